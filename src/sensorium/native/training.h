// A tile of whole sequences on its way through the Stack and back, for training. The forward pass keeps what the way back
// can't cheaply work out again.
#pragma once

#include "attention_backward.h"
#include "dropout.h"
#include "stack.h"

struct LayerBackward {
    Linear qkv, output, up, down;  // transposed, without bias
    float* weights[4];             // gradients [outputs, inputs] of qkv, output, up, down; null: not wanted
    float* vectors;                // gradients of norms and biases, see `Vectors`
};

// What the forward pass keeps, for all T tokens, in the dtype of the products; products by tiles read SPARE rows more.
struct Kept {
    void* input;      // [T, hidden]
    void* normals;    // [layers, 2, T, hidden] of the norms at attention and MLP
    float* inverses;  // [layers, 2, T] one over their deviations
    void* qkv;        // [layers, T, 3 · hidden]
    void* attended;   // [layers, T, hidden]
    void* up;         // [layers, T, mlp] before the activation
};

struct Training {
    Stack stack;
    Activation slope;
    Dropout dropout, attention_dropout;
    const LayerBackward* backward;
    Kept kept;
    int64_t tokens, lowest;  // layers below `lowest` need no gradients
    uint32_t* zipped;        // room for the operands of a layer's products over rows
    float* sums;             // [tiles, vectors]
};

// Where the gradients of a layer's norms and biases stand in one row of numbers.
struct Vectors {
    float *attention_weight, *attention_bias, *mlp_weight, *mlp_bias, *qkv, *output, *down, *up;
    Vectors(float* row, size_t size)
        : attention_weight(row), attention_bias(row + size), mlp_weight(row + 2 * size), mlp_bias(row + 3 * size),
          qkv(row + 4 * size), output(row + 7 * size), down(row + 8 * size), up(row + 9 * size) {}
    static size_t count(size_t size, size_t mlp) { return 9 * size + mlp; }
};

// Both operands of the products over rows of a layer: gradients of what linear maps gave, and what they took.
struct Operands {
    Zipped gradient[4], input[4];  // qkv, output, up, down
    Operands(uint32_t* units, size_t steps, size_t size, size_t mlp) {
        const size_t outputs[4] = {3 * size, size, mlp, size}, inputs[4] = {size, size, size, mlp};
        for (int i = 0; i < 4; ++i) {
            gradient[i] = {units, steps};
            units += round_up(outputs[i], PANEL) * steps;
            input[i] = {units, steps};
            units += round_up(inputs[i], PANEL) * steps;
        }
    }

    // Nothing in the steps behind the last row.
    void clear(size_t begin, size_t size, size_t mlp) const {
        const size_t columns[2][4] = {{3 * size, size, mlp, size}, {size, size, size, mlp}};
        for (int i = 0; i < 4; ++i) {
            for (const auto& [zipped, count] : {std::pair(gradient[i], columns[0][i]), std::pair(input[i], columns[1][i])})
                for (size_t panel = 0; panel * PANEL < count; ++panel)
                    std::memset(zipped.panel(panel, begin), 0, (zipped.steps - begin) * PANEL * sizeof(uint32_t));
        }
    }
};

enum Place { ATTENTION, MLP };  // of a norm, and of the dropout before it

template <class Dtype>
class TrainingTile {
    using Number = typename Dtype::Number;

  public:
    TrainingTile(const Training& training, const int64_t* offsets, size_t first, size_t last, float* x, Memory& memory)
        : t_(training), s_(training.stack), offsets_(offsets), first_(first), last_(last), size_(size_t(s_.hidden)),
          mlp_(size_t(s_.mlp)), start_(size_t(offsets[first])), rows_(size_t(offsets[last]) - start_), x_(x) {
        size_t longest = 0;
        for (size_t n = first; n < last; ++n) longest = std::max(longest, size_t(offsets[n + 1] - offsets[n]));
        const size_t head = size_ / size_t(s_.heads), pages = (longest + PAGE - 1) / PAGE;
        const size_t forward = pages * (sizeof(Page) + 8 * PAGE * round_up(head, WIDTH)) + 4 * attention_scratch<Dtype>(longest);
        const size_t scratch = std::max(forward + 4096, 4 * backward_scratch<Dtype>(longest, head));
        const size_t block = BLOCK<Dtype> + SPARE, rows = rows_ + SPARE;
        memory.reset(block * (mlp_ + size_) * sizeof(Number) + block * size_ * 4 + rows * 4 * size_ * sizeof(Number) +
                     scratch + 4096);
        middle_ = memory.take<Number>(block * mlp_);
        operand_ = memory.take<Number>(block * size_);
        branch_ = memory.take<float>(block * size_);
        attended_ = memory.take<Number>(rows * size_);
        qkv_ = memory.take<Number>(rows * 3 * size_);
        scratch_ = memory.take<char>(scratch);
    }

    // x [T, hidden] becomes the output.
    void forward(size_t layer) {
        const Layer& l = s_.layer[layer];
        each_block([&](size_t row, size_t count) {
            enter(layer, ATTENTION, l.attention_norm, row, count);
            if (layer == 0 && !s_.pre_norm) std::memcpy(input(row), operand_, count * size_ * sizeof(Number));
            Number* to = qkv(layer, row);
            times(operand_, count, l.qkv, stored(to, 3 * size_), fetch_to_write(to, 3 * size_));
        });
        attention(layer);
        each_block([&](size_t row, size_t count) {
            add(layer, ATTENTION, attended(layer, row), l.output, l.attention_norm, row, count);
            enter(layer, MLP, l.mlp_norm, row, count);
            Number *to = up(layer, row), *middle = middle_;
            with_activation(s_.activation, [&](auto activate) {
                times(operand_, count, l.up,
                      [=, stride = mlp_](size_t r, size_t column, __mmask16 lanes, Floats value) {
                          store(to + r * stride + column, value, lanes);
                          store(middle + r * stride + column, activate(value), lanes);
                      }, fetch_to_write(to, mlp_));
            });
            add(layer, MLP, middle_, l.down, l.mlp_norm, row, count);
        });
    }

    // x [T, hidden], the gradient of a layer's output, becomes that of its input. The operands of the weights' gradients
    // are left in `operands` from `step` on; `sums` gets the gradients of norms and biases.
    void backward(size_t layer, const Operands& operands, size_t step, const Vectors& sums) {
        const Layer& l = s_.layer[layer];
        const LayerBackward& b = t_.backward[layer];
        each_block([&](size_t row, size_t count) {
            const size_t at = step + row / Dtype::PER_UNIT;
            const Norm& before_mlp = s_.pre_norm ? l.mlp_norm : l.attention_norm;
            leave_backward(layer, MLP, l.mlp_norm, sums.mlp_weight, sums.mlp_bias, row, count);
            zip(operands.gradient[3], at, count, size_, rows_of(operand_, size_), sums.down);
            mlp_backward(layer, b, operands, at, sums.up, row, count);
            zip(operands.input[2], at, count, size_, normal_rows(layer, s_.pre_norm ? MLP : ATTENTION, row, before_mlp));
            enter_backward(layer, MLP, middle_, b.up, l.mlp_norm, sums.mlp_weight, sums.mlp_bias, row, count);

            leave_backward(layer, ATTENTION, l.attention_norm, sums.attention_weight, sums.attention_bias, row, count);
            zip(operands.gradient[1], at, count, size_, rows_of(operand_, size_), sums.output);
            zip(operands.input[1], at, count, size_, rows_of(attended(layer, row), size_));
            times(operand_, count, b.output, stored(attended_ + row * size_, size_));
        });
        attention_backward(layer);
        each_block([&](size_t row, size_t count) {
            const size_t at = step + row / Dtype::PER_UNIT;
            const Number* gradient = qkv_ + row * 3 * size_;
            zip(operands.gradient[0], at, count, 3 * size_, rows_of(gradient, 3 * size_), sums.qkv);
            if (s_.pre_norm) zip(operands.input[0], at, count, size_, normal_rows(layer, ATTENTION, row, l.attention_norm));
            else if (layer == 0) zip(operands.input[0], at, count, size_, rows_of(input(row), size_));
            else zip(operands.input[0], at, count, size_, normal_rows(layer - 1, MLP, row, s_.layer[layer - 1].mlp_norm));
            enter_backward(layer, ATTENTION, gradient, b.qkv, l.attention_norm, sums.attention_weight,
                           sums.attention_bias, row, count);
        });
    }

  private:
    // --- places ---
    Number* at(void* base, size_t plane, size_t row, size_t width) const {
        return static_cast<Number*>(base) + (plane * size_t(t_.tokens) + start_ + row) * width;
    }
    Number* input(size_t row) const { return at(t_.kept.input, 0, row, size_); }
    Number* qkv(size_t layer, size_t row) const { return at(t_.kept.qkv, layer, row, 3 * size_); }
    Number* attended(size_t layer, size_t row) const { return at(t_.kept.attended, layer, row, size_); }
    Number* up(size_t layer, size_t row) const { return at(t_.kept.up, layer, row, mlp_); }
    Number* normal(size_t layer, Place place, size_t row) const {
        return at(t_.kept.normals, 2 * layer + place, row, size_);
    }
    float* inverse(size_t layer, Place place, size_t row) const {
        return t_.kept.inverses + (2 * layer + place) * size_t(t_.tokens) + start_ + row;
    }
    float* x(size_t row) const { return x_ + (start_ + row) * size_; }
    Dropout::Row dropped(size_t layer, Place place, size_t row) const {
        return t_.dropout.row(4 * layer + place, start_ + row);
    }

    template <class F>
    void each_block(const F& f) const {
        const size_t step = block_rows<Dtype>(rows_);
        for (size_t row = 0; row < rows_; row += step) f(row, std::min(step, rows_ - row));
    }
    template <class F, class Ahead = Nothing>
    void times(const Number* rows, size_t count, const Linear& linear, const F& finish, const Ahead& ahead = {}) const {
        product<Dtype>({1, 0}, {rows, size_t(linear.inputs) / Dtype::PER_UNIT, nullptr}, count, linear, finish, ahead);
    }
    template <class Read>
    void zip(const Zipped& to, size_t step, size_t count, size_t columns, const Read& read, float* sums = nullptr) const {
        zip_rows<Dtype>(to, step, count, columns, read, sums);
    }
    auto rows_of(const Number* rows, size_t stride) const {
        return [=](size_t row, size_t column, __mmask16 lanes) { return load(rows + row * stride + column, lanes); };
    }
    // A norm's output, from its normal form.
    auto normal_rows(size_t layer, Place place, size_t row, const Norm& norm) const {
        const Number* rows = normal(layer, place, row);
        return [=, this_size = size_](size_t r, size_t column, __mmask16 lanes) {
            return load(rows + r * this_size + column, lanes) * load(norm.weight + column, lanes) +
                   load(norm.bias + column, lanes);
        };
    }

    // For `product`: results as they are. What it does with them holds copies, which stay in registers.
    static auto stored(Number* rows, size_t stride) {
        return [=](size_t row, size_t column, __mmask16 lanes, Floats value) {
            store(rows + row * stride + column, value, lanes);
        };
    }
    // For `product`: 64 numbers of a row that lie in memory, not in a cache.
    static auto fetch(const Number* rows, size_t stride) {
        return [=](size_t row, size_t column) {
            const char* place = reinterpret_cast<const char*>(rows + row * stride + column);
            for (size_t i = 0; i < PANEL * sizeof(Number); i += 64) _mm_prefetch(place + i, _MM_HINT_T0);
        };
    }
    static auto fetch_to_write(Number* rows, size_t stride) {
        return [=](size_t row, size_t column) {
            char* place = reinterpret_cast<char*>(rows + row * stride + column);
            for (size_t i = 0; i < PANEL * sizeof(Number); i += 64) __builtin_prefetch(place + i, 1);
        };
    }

    // --- forwards ---
    // The residual stream as the next product takes it, normalised on the way where the norm stands before.
    void enter(size_t layer, Place place, const Norm& norm, size_t row, size_t count) {
        for (size_t r = row; r < row + count; ++r) {
            const float* from = x(r);
            if (s_.pre_norm) {
                std::memcpy(branch_, from, size_ * sizeof(float));
                from = branch_;
                layer_norm_kept(branch_, size_, norm.weight, norm.bias, s_.epsilon, normal(layer, place, r),
                                inverse(layer, place, r));
            }
            convert_row(from, size_, operand_ + (r - row) * size_);
        }
    }

    // x = x + dropout(rows · weights), then the norm where it stands after.
    void add(size_t layer, Place place, const Number* rows, const Linear& linear, const Norm& norm, size_t row,
             size_t count) {
        const auto add_to = [to = x(row), stride = size_](size_t r, size_t column, __mmask16 lanes, Floats value) {
            float* sum = to + r * stride + column;
            store(sum, load(sum, lanes) + value, lanes);
        };
        if (t_.dropout.threshold == 0) {
            times(rows, count, linear, add_to);
        } else {
            times(rows, count, linear, [=, this](size_t r, size_t column, __mmask16 lanes, Floats value) {
                add_to(r, column, lanes, dropped(layer, place, row + r)(column, value));
            });
        }
        if (s_.pre_norm) return;
        for (size_t r = row; r < row + count; ++r)
            layer_norm_kept(x(r), size_, norm.weight, norm.bias, s_.epsilon, normal(layer, place, r),
                            inverse(layer, place, r));
    }

    // f(sequence's first row, its tokens, head, its dropout of weights)
    template <class F>
    void each_head(size_t layer, const F& f) const {
        const size_t heads = size_t(s_.heads);
        for (size_t n = first_; n < last_; ++n) {
            const size_t start = size_t(offsets_[n]) - start_, count = size_t(offsets_[n + 1] - offsets_[n]);
            for (size_t h = 0; h < heads; ++h)
                f(start, count, h, [this, layer, heads, start, h](size_t query, size_t key, Floats weights) {
                    if (t_.attention_dropout.threshold == 0) return weights;
                    const size_t row = (start_ + start + query) * heads + h;
                    return t_.attention_dropout.row(4 * layer + 2, row)(key, weights);
                });
        }
    }

    void attention(size_t layer) {
        const size_t size = size_ / size_t(s_.heads), row_size = round_up(size, WIDTH);
        each_head(layer, [&](size_t start, size_t count, size_t h, const auto& drop) {
            const Number* query = qkv(layer, start) + h * size;
            const size_t pages = (count + PAGE - 1) / PAGE, units = size / Dtype::PER_UNIT;
            auto* page = reinterpret_cast<Page*>(scratch_);
            auto* scores = reinterpret_cast<float*>(scratch_ + round_up(pages * sizeof(Page), 64));
            auto* place = reinterpret_cast<uint32_t*>(scores + attention_scratch<Dtype>(count));
            for (size_t p = 0; p < pages; ++p) {
                const size_t tokens = std::min(PAGE, count - p * PAGE);
                page[p] = {place, place + units * PAGE, round_up(tokens, WIDTH)};
                place += units * PAGE + PAGE / Dtype::PER_UNIT * row_size;
                const Number* key = query + p * PAGE * 3 * size_ + size_;
                put_keys<Dtype>(page[p].keys, page[p].width, tokens, key, 3 * size_, size);
                put_values(page[p].values, tokens, key + size_, 3 * size_, size);
                if (tokens % (2 * EDGE)) clear_values<Dtype>(page[p].values, tokens, size);
            }
            const Head<Number> head = {query, attended(layer, start) + h * size, 3 * size_, size_, count, size, count,
                                       1, s_.causal != 0, s_.scale};
            attend<Dtype>(head, page, scores, drop);
        });
    }

    // --- backwards ---
    // Through the norm where it stands after, and the dropout: what the last product of a branch gave.
    void leave_backward(size_t layer, Place place, const Norm& norm, float* weight_sums, float* bias_sums, size_t row,
                        size_t count) {
        for (size_t r = row; r < row + count; ++r) {
            if (!s_.pre_norm)
                layer_norm_backward(x(r), size_, normal(layer, place, r), *inverse(layer, place, r), norm.weight,
                                    weight_sums, bias_sums);
            const Dropout::Row drop = dropped(layer, place, r);
            for (size_t i = 0; i < size_; i += WIDTH) {
                const __mmask16 lanes = first_lanes(size_ - i);
                store(operand_ + (r - row) * size_ + i, drop(i, load(x(r) + i, lanes)), lanes);
            }
        }
    }

    // Through the first product of a branch, and the norm where it stands before, onto the residual stream.
    void enter_backward(size_t layer, Place place, const Number* rows, const Linear& linear, const Norm& norm,
                        float* weight_sums, float* bias_sums, size_t row, size_t count) {
        float* to = s_.pre_norm ? branch_ : x(row);
        const bool onto = !s_.pre_norm;
        times(rows, count, linear, [=, stride = size_](size_t r, size_t column, __mmask16 lanes, Floats value) {
            float* place = to + r * stride + column;
            store(place, onto ? load(place, lanes) + value : value, lanes);
        });
        if (onto) return;
        for (size_t r = 0; r < count; ++r) {
            float *branch = branch_ + r * size_, *sum = x(row + r);
            layer_norm_backward(branch, size_, normal(layer, place, row + r), *inverse(layer, place, row + r),
                                norm.weight, weight_sums, bias_sums);
            for (size_t i = 0; i < size_; i += WIDTH) {
                const __mmask16 lanes = first_lanes(size_ - i);
                store(sum + i, load(sum + i, lanes) + load(branch + i, lanes), lanes);
            }
        }
    }

    // From the gradient of the MLP's output in `operand_` to that before its activation in `middle_`.
    void mlp_backward(size_t layer, const LayerBackward& b, const Operands& operands, size_t step, float* sums, size_t row,
                      size_t count) {
        const Number* before = up(layer, row);
        Number* middle = middle_;
        with_slope(t_.slope, [&](auto slope) {
            times(operand_, count, b.down, [=, stride = mlp_](size_t r, size_t column, __mmask16 lanes, Floats value) {
                const size_t place = r * stride + column;
                store(middle + place, value * slope(load(before + place, lanes)), lanes);
            }, fetch(before, mlp_));
        });
        zip(operands.gradient[2], step, count, mlp_, rows_of(middle_, mlp_), sums);
        with_activation(s_.activation, [&](auto activate) {
            zip(operands.input[3], step, count, mlp_, [&](size_t r, size_t column, __mmask16 lanes) {
                return activate(load(before + r * mlp_ + column, lanes));
            });
        });
    }

    void attention_backward(size_t layer) {
        const size_t size = size_ / size_t(s_.heads);
        each_head(layer, [&](size_t start, size_t count, size_t h, const auto& drop) {
            const Number* query = qkv(layer, start) + h * size;
            Number* gradient = qkv_ + start * 3 * size_ + h * size;
            const HeadGradient<Number> head = {
                query, query + size_, query + 2 * size_, attended(layer, start) + h * size,
                attended_ + start * size_ + h * size, gradient, gradient + size_, gradient + 2 * size_, 3 * size_, size_,
                count, size, s_.causal != 0, s_.scale};
            attend_backward<Dtype>(head, reinterpret_cast<uint32_t*>(scratch_), drop);
        });
    }

    const Training& t_;
    const Stack& s_;
    const int64_t* offsets_;
    const size_t first_, last_, size_, mlp_, start_, rows_;
    float *x_, *branch_;
    Number *middle_, *operand_, *attended_, *qkv_;
    char* scratch_;
};
