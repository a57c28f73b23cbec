// A tile of whole sequences on its way through the Stack and back, for training.
#pragma once

#include "training.h"

template <class Dtype>
class TrainingTile {
    using Number = typename Dtype::Number;

  public:
    TrainingTile(const Training& training, const int64_t* offsets, size_t first, size_t last, float* x, Memory& memory)
        : t_(training), s_(training.stack), offsets_(offsets), first_(first), last_(last), size_(size_t(s_.hidden)),
          mlp_(size_t(s_.mlp)), start_(size_t(offsets[first])), rows_(size_t(offsets[last]) - start_), x_(x) {
        if (t_.sources) source_start_ = size_t(t_.sources[first]), source_rows_ = size_t(t_.sources[last]) - source_start_;
        size_t longest = 0, keys = 0;
        for (size_t n = first; n < last; ++n) {
            const Sequence q = sequence(n);
            longest = std::max(longest, q.count), keys = std::max({keys, q.count, q.source_count});
        }
        const size_t head = size_ / size_t(s_.heads), pages = (keys + PAGE - 1) / PAGE;
        const size_t forward = pages * (sizeof(Page) + 8 * PAGE * round_up(head, WIDTH)) + 4 * attention_scratch<Dtype>(keys);
        const size_t scratch = std::max(forward + 4096, 4 * backward_scratch<Dtype>(longest, keys, head));
        const size_t block = BLOCK<Dtype> + SPARE, rows = rows_ + SPARE, sources = source_rows_ + SPARE;
        memory.reset(block * (mlp_ + size_) * sizeof(Number) + block * size_ * 4 +
                     (rows * 4 + sources * 2) * size_ * sizeof(Number) + scratch + 4096);
        middle_ = memory.take<Number>(block * mlp_);
        operand_ = memory.take<Number>(block * size_);
        branch_ = memory.take<float>(block * size_);
        attended_ = memory.take<Number>(rows * size_);
        qkv_ = memory.take<Number>(rows * 3 * size_);
        key_value_ = memory.take<Number>(sources * 2 * size_);
        scratch_ = memory.take<char>(scratch);
    }

    // x [T, hidden] becomes the output.
    void forward(size_t layer) {
        const Layer& l = s_.layer[layer];
        each_block(rows_, [&](size_t row, size_t count) {
            enter(layer, ATTENTION, row, count);
            if (layer == 0 && !s_.pre_norm) std::memcpy(input(row), operand_, count * size_ * sizeof(Number));
            give(operand_, count, l.qkv, qkv(layer, row));
        });
        attention(layer, WEIGHTS);
        if (t_.sources) {
            each_block(rows_, [&](size_t row, size_t count) {
                add(layer, ATTENTION, attended(layer, row), l.output, row, count);
                enter(layer, MEMORY, row, count);
                give(operand_, count, l.query, query(layer, row));
            });
            each_block(source_rows_, [&](size_t row, size_t count) {
                give(memory(row), count, l.key_value, key_value(layer, row));
            });
            attention(layer, MEMORY_WEIGHTS);
        }
        each_block(rows_, [&](size_t row, size_t count) {
            if (t_.sources) add(layer, MEMORY, memory_attended(layer, row), l.memory_output, row, count);
            else add(layer, ATTENTION, attended(layer, row), l.output, row, count);
            enter(layer, MLP, row, count);
            Number *to = up(layer, row), *middle = middle_;
            with_activation(s_.activation, [&](auto activate) {
                times(operand_, count, l.up,
                      [=, stride = mlp_](size_t r, size_t column, Lanes lanes, Floats value) {
                          store(to + r * stride + column, value, lanes);
                          store(middle + r * stride + column, activate(value), lanes);
                      }, fetch_to_write(to, mlp_));
            });
            add(layer, MLP, middle_, l.down, row, count);
        });
    }

    // x [T, hidden], the gradient of a layer's output, becomes that of its input. The operands of the weights' gradients
    // are left in `operands` from `step` on (of sources, from `source_step`); `sums` gets the gradients of norms and biases.
    void backward(size_t layer, const Operands& operands, size_t step, size_t source_step, const Vectors& sums) {
        const LayerBackward& b = t_.backward[layer];
        const auto leave_attention = [&](Place place, Map map, const Number* found, size_t row, size_t count) {
            const size_t at = step + row / Dtype::PER_UNIT;
            leave_backward(layer, place, sums, row, count);
            zip(operands.gradient[map], at, count, size_, rows_of(operand_, size_), sums.bias[map]);
            zip(operands.input[map], at, count, size_, rows_of(found, size_));
            give(operand_, count, b.linear[map], attended_ + row * size_);
        };
        each_block(rows_, [&](size_t row, size_t count) {
            const size_t at = step + row / Dtype::PER_UNIT;
            leave_backward(layer, MLP, sums, row, count);
            zip(operands.gradient[DOWN], at, count, size_, rows_of(operand_, size_), sums.bias[DOWN]);
            mlp_backward(layer, b, operands, at, sums.bias[UP], row, count);
            zip(operands.input[UP], at, count, size_, entered(layer, MLP, row));
            enter_backward(layer, MLP, middle_, b.linear[UP], sums, row, count);
            if (t_.sources) leave_attention(MEMORY, MEMORY_OUTPUT, memory_attended(layer, row), row, count);
            else leave_attention(ATTENTION, OUTPUT, attended(layer, row), row, count);
        });
        if (t_.sources) {
            attention_backward(layer, MEMORY_WEIGHTS);
            each_block(rows_, [&](size_t row, size_t count) {
                const size_t at = step + row / Dtype::PER_UNIT;
                const Number* gradient = qkv_ + row * size_;
                zip(operands.gradient[QUERY], at, count, size_, rows_of(gradient, size_), sums.bias[QUERY]);
                zip(operands.input[QUERY], at, count, size_, entered(layer, MEMORY, row));
                enter_backward(layer, MEMORY, gradient, b.linear[QUERY], sums, row, count);
                leave_attention(ATTENTION, OUTPUT, attended(layer, row), row, count);
            });
            each_block(source_rows_, [&](size_t row, size_t count) {
                const size_t at = source_step + row / Dtype::PER_UNIT, width = size_t(s_.layer[layer].key_value.inputs);
                const Number* gradient = key_value_ + row * 2 * size_;
                zip(operands.gradient[KEY_VALUE], at, count, 2 * size_, rows_of(gradient, 2 * size_), sums.bias[KEY_VALUE]);
                zip(operands.input[KEY_VALUE], at, count, width, rows_of(memory(row), width));
                if (t_.memory_gradient)
                    times(gradient, count, b.linear[KEY_VALUE],
                          added(t_.memory_gradient + (source_start_ + row) * width, width));
            });
        }
        attention_backward(layer, WEIGHTS);
        each_block(rows_, [&](size_t row, size_t count) {
            const size_t at = step + row / Dtype::PER_UNIT;
            const Number* gradient = qkv_ + row * 3 * size_;
            zip(operands.gradient[QKV], at, count, 3 * size_, rows_of(gradient, 3 * size_), sums.bias[QKV]);
            if (layer == 0 && !s_.pre_norm) zip(operands.input[QKV], at, count, size_, rows_of(input(row), size_));
            else zip(operands.input[QKV], at, count, size_, entered(layer, ATTENTION, row));
            enter_backward(layer, ATTENTION, gradient, b.linear[QKV], sums, row, count);
        });
    }

  private:
    // --- places ---
    Number* at(void* base, size_t plane, size_t row, size_t width) const {
        return static_cast<Number*>(base) + (plane * size_t(t_.tokens) + start_ + row) * width;
    }
    // A sequence: its rows of the tile, and those of its source.
    struct Sequence {
        size_t row, count, source_row, source_count;
    };
    Sequence sequence(size_t n) const {
        const size_t row = size_t(offsets_[n]) - start_, count = size_t(offsets_[n + 1] - offsets_[n]);
        if (!t_.sources) return {row, count, 0, 0};
        return {row, count, size_t(t_.sources[n]) - source_start_, size_t(t_.sources[n + 1] - t_.sources[n])};
    }
    Number* input(size_t row) const { return at(t_.kept.input, 0, row, size_); }
    Number* qkv(size_t layer, size_t row) const { return at(t_.kept.qkv, layer, row, 3 * size_); }
    Number* attended(size_t layer, size_t row) const { return at(t_.kept.attended, layer, row, size_); }
    Number* up(size_t layer, size_t row) const { return at(t_.kept.up, layer, row, mlp_); }
    Number* query(size_t layer, size_t row) const { return at(t_.kept.query, layer, row, size_); }
    Number* memory_attended(size_t layer, size_t row) const { return at(t_.kept.memory_attended, layer, row, size_); }
    Number* key_value(size_t layer, size_t row) const {
        const size_t plane = size_t(t_.source_tokens) * layer;
        return static_cast<Number*>(t_.kept.key_value) + (plane + source_start_ + row) * 2 * size_;
    }
    const Number* memory(size_t row) const {
        return static_cast<const Number*>(t_.memory) + (source_start_ + row) * size_t(s_.layer[0].key_value.inputs);
    }
    Number* normal(size_t layer, Place place, size_t row) const {
        return at(t_.kept.normals, t_.places() * layer + place, row, size_);
    }
    float* inverse(size_t layer, Place place, size_t row) const {
        return t_.kept.inverses + (t_.places() * layer + place) * size_t(t_.tokens) + start_ + row;
    }
    float* x(size_t row) const { return x_ + (start_ + row) * size_; }
    const Norm& norm(size_t layer, Place place) const { return s_.layer[layer].*NORM[place]; }

    // Where chance strikes in a layer: its places, then the weights of its two attentions.
    enum Site { WEIGHTS = PLACES, MEMORY_WEIGHTS, SITES };
    Dropout::Row dropped(size_t layer, Place place, size_t row) const {
        return t_.dropout.row(SITES * layer + place, start_ + row);
    }

    template <class F>
    static void each_block(size_t rows, const F& f) {
        const size_t step = block_rows<Dtype>(rows);
        for (size_t row = 0; row < rows; row += step) f(row, std::min(step, rows - row));
    }
    template <class F, class Ahead = Nothing>
    void times(const Number* rows, size_t count, const Linear& linear, const F& finish, const Ahead& ahead = {}) const {
        product<Dtype>({1, 0}, {rows, size_t(linear.inputs) / Dtype::PER_UNIT, nullptr}, count, linear, finish, ahead);
    }
    // Results as they are, a row as wide as the map's outputs.
    void give(const Number* rows, size_t count, const Linear& linear, Number* to) const {
        const size_t stride = size_t(linear.outputs);
        times(rows, count, linear, [=](size_t row, size_t column, Lanes lanes, Floats value) {
            store(to + row * stride + column, value, lanes);
        }, fetch_to_write(to, stride));
    }
    template <class Read>
    void zip(const Zipped& to, size_t step, size_t count, size_t columns, const Read& read, float* sums = nullptr) const {
        zip_rows<Dtype>(to, step, count, columns, read, sums);
    }
    auto rows_of(const Number* rows, size_t stride) const {
        return [=](size_t row, size_t column, Lanes lanes) { return load(rows + row * stride + column, lanes); };
    }
    // A norm's output, from its normal form.
    auto normal_rows(size_t layer, Place place, size_t row) const {
        return [rows = normal(layer, place, row), norm = norm(layer, place), stride = size_](
                   size_t r, size_t column, Lanes lanes) {
            return load(rows + r * stride + column, lanes) * load(norm.weight + column, lanes) +
                   load(norm.bias + column, lanes);
        };
    }
    // What a branch took: its own norm's output, or that of the norm behind the branch before.
    auto entered(size_t layer, Place place, size_t row) const {
        if (s_.pre_norm) return normal_rows(layer, place, row);
        if (place == ATTENTION) return normal_rows(layer - 1, MLP, row);
        return normal_rows(layer, place == MLP && t_.sources ? MEMORY : ATTENTION, row);
    }

    // For `product`: results are added to rows. What it does with them holds copies, which stay in registers.
    static auto added(float* rows, size_t stride) {
        return [=](size_t row, size_t column, Lanes lanes, Floats value) {
            float* sum = rows + row * stride + column;
            store(sum, load(sum, lanes) + value, lanes);
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
    void enter(size_t layer, Place place, size_t row, size_t count) {
        const Norm& norm = this->norm(layer, place);
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
    void add(size_t layer, Place place, const Number* rows, const Linear& linear, size_t row, size_t count) {
        const auto add_to = added(x(row), size_);
        if (t_.dropout.threshold == 0) {
            times(rows, count, linear, add_to);
        } else {
            times(rows, count, linear, [=, this](size_t r, size_t column, Lanes lanes, Floats value) {
                add_to(r, column, lanes, dropped(layer, place, row + r)(column, value));
            });
        }
        if (s_.pre_norm) return;
        const Norm& norm = this->norm(layer, place);
        for (size_t r = row; r < row + count; ++r)
            layer_norm_kept(x(r), size_, norm.weight, norm.bias, s_.epsilon, normal(layer, place, r),
                            inverse(layer, place, r));
    }

    // f(sequence, head, its dropout of weights)
    template <class F>
    void each_head(size_t layer, Site site, const F& f) const {
        const size_t heads = size_t(s_.heads);
        for (size_t n = first_; n < last_; ++n) {
            const Sequence q = sequence(n);
            for (size_t h = 0; h < heads; ++h)
                f(q, h, [this, layer, site, heads, start = q.row, h](size_t query, size_t key, Floats weights) {
                    if (t_.attention_dropout.threshold == 0) return weights;
                    const size_t row = (start_ + start + query) * heads + h;
                    return t_.attention_dropout.row(SITES * layer + site, row)(key, weights);
                });
        }
    }

    // What a head reads of a sequence: queries, and keys with their values `size_` numbers behind them.
    struct Reading {
        const Number *query, *key;
        Number* output;
        size_t stride, key_stride, keys;
        bool causal;
    };
    Reading reading(size_t layer, Site site, const Sequence& q, size_t first) const {
        if (site == MEMORY_WEIGHTS)
            return {query(layer, q.row) + first, key_value(layer, q.source_row) + first,
                    memory_attended(layer, q.row) + first, size_, 2 * size_, q.source_count, false};
        const Number* query = qkv(layer, q.row) + first;
        return {query, query + size_, attended(layer, q.row) + first, 3 * size_, 3 * size_, q.count, s_.causal != 0};
    }

    void attention(size_t layer, Site site) {
        const size_t size = size_ / size_t(s_.heads);
        each_head(layer, site, [&](const Sequence& q, size_t h, const auto& drop) {
            const Reading r = reading(layer, site, q, h * size);
            const Head<Number> head = {r.query, r.output, r.stride, size_, q.count, size, r.keys, 1, r.causal, s_.scale};
            attend_to(head, r.key, r.key + size_, r.key_stride, drop);
        });
    }

    // Keys and values, `stride` numbers from row to row, become pages, and the head attends to them.
    template <class Drop>
    void attend_to(const Head<Number>& head, const Number* key, const Number* value, size_t stride, const Drop& drop) {
        const size_t size = head.size, keys = head.keys, row_size = round_up(size, WIDTH), units = size / Dtype::PER_UNIT;
        const size_t pages = (keys + PAGE - 1) / PAGE;
        auto* page = reinterpret_cast<Page*>(scratch_);
        auto* scores = reinterpret_cast<float*>(scratch_ + round_up(pages * sizeof(Page), 64));
        auto* place = reinterpret_cast<uint32_t*>(scores + attention_scratch<Dtype>(keys));
        for (size_t p = 0; p < pages; ++p, key += PAGE * stride, value += PAGE * stride) {
            const size_t tokens = std::min(PAGE, keys - p * PAGE);
            page[p] = {place, place + units * PAGE, round_up(tokens, WIDTH)};
            place += units * PAGE + PAGE / Dtype::PER_UNIT * row_size;
            put_keys<Dtype>(page[p].keys, page[p].width, tokens, key, stride, size);
            put_values(page[p].values, tokens, value, stride, size);
            if (tokens % (2 * EDGE)) clear_values<Dtype>(page[p].values, tokens, size);
        }
        attend<Dtype>(head, page, scores, drop);
    }

    // --- backwards ---
    // Through the norm where it stands after, and the dropout: what the last product of a branch gave.
    void leave_backward(size_t layer, Place place, const Vectors& sums, size_t row, size_t count) {
        for (size_t r = row; r < row + count; ++r) {
            if (!s_.pre_norm) norm_backward(layer, place, sums, r, x(r));
            const Dropout::Row drop = dropped(layer, place, r);
            for (size_t i = 0; i < size_; i += WIDTH) {
                const Lanes lanes = first_lanes(size_ - i);
                store(operand_ + (r - row) * size_ + i, drop(i, load(x(r) + i, lanes)), lanes);
            }
        }
    }

    // Through the first product of a branch, and the norm where it stands before, onto the residual stream.
    void enter_backward(size_t layer, Place place, const Number* rows, const Linear& linear, const Vectors& sums, size_t row,
                        size_t count) {
        float* to = s_.pre_norm ? branch_ : x(row);
        const bool onto = !s_.pre_norm;
        times(rows, count, linear, [=, stride = size_](size_t r, size_t column, Lanes lanes, Floats value) {
            float* place = to + r * stride + column;
            store(place, onto ? load(place, lanes) + value : value, lanes);
        });
        if (onto) return;
        for (size_t r = 0; r < count; ++r) {
            float *branch = branch_ + r * size_, *sum = x(row + r);
            norm_backward(layer, place, sums, row + r, branch);
            for (size_t i = 0; i < size_; i += WIDTH) {
                const Lanes lanes = first_lanes(size_ - i);
                store(sum + i, load(sum + i, lanes) + load(branch + i, lanes), lanes);
            }
        }
    }

    // The gradient of a norm's output for a row → of its input.
    void norm_backward(size_t layer, Place place, const Vectors& sums, size_t row, float* gradient) {
        layer_norm_backward(gradient, size_, normal(layer, place, row), *inverse(layer, place, row),
                            norm(layer, place).weight, sums.norm_weight[place], sums.norm_bias[place]);
    }

    // From the gradient of the MLP's output in `operand_` to that before its activation in `middle_`.
    void mlp_backward(size_t layer, const LayerBackward& b, const Operands& operands, size_t step, float* sums, size_t row,
                      size_t count) {
        const Number* before = up(layer, row);
        Number* middle = middle_;
        with_slope(t_.slope, [&](auto slope) {
            times(operand_, count, b.linear[DOWN], [=, stride = mlp_](size_t r, size_t column, Lanes lanes, Floats value) {
                const size_t place = r * stride + column;
                store(middle + place, value * slope(load(before + place, lanes)), lanes);
            }, fetch(before, mlp_));
        });
        zip(operands.gradient[UP], step, count, mlp_, rows_of(middle_, mlp_), sums);
        with_activation(s_.activation, [&](auto activate) {
            zip(operands.input[DOWN], step, count, mlp_, [&](size_t r, size_t column, Lanes lanes) {
                return activate(load(before + r * mlp_ + column, lanes));
            });
        });
    }

    // From the gradient of what was attended in `attended_` to those of queries in `qkv_`; of keys and values behind them
    // there, or in `key_value_`.
    void attention_backward(size_t layer, Site site) {
        const size_t size = size_ / size_t(s_.heads);
        each_head(layer, site, [&](const Sequence& q, size_t h, const auto& drop) {
            const size_t first = h * size;
            const Reading r = reading(layer, site, q, first);
            Number* query = qkv_ + q.row * r.stride + first;
            Number* key = site == MEMORY_WEIGHTS ? key_value_ + q.source_row * r.key_stride + first : query + size_;
            const HeadGradient<Number> head = {
                r.query, r.key, r.key + size_, r.output, attended_ + q.row * size_ + first, query, key, key + size_,
                r.stride, r.key_stride, size_, q.count, r.keys, size, r.causal, s_.scale};
            attend_backward<Dtype>(head, reinterpret_cast<uint32_t*>(scratch_), drop);
        });
    }

    const Training& t_;
    const Stack& s_;
    const int64_t* offsets_;
    const size_t first_, last_, size_, mlp_, start_, rows_;
    size_t source_start_ = 0, source_rows_ = 0;
    float *x_, *branch_;
    Number *middle_, *operand_, *attended_, *qkv_, *key_value_;
    char* scratch_;
};
