// The Stack over packed sequences. A thread takes a tile, some whole sequences, through all layers while it lies in its
// cache; nothing waits for anything. A batch too small for that is one tile, whose products a team of threads shares.
#include <cstring>

#include "stack.h"
#include "weights.h"

namespace {

// Tables [rows, hidden] in float32; segments and the norm may be null.
struct Stem {
    const float *tokens, *positions, *segments;
    Norm norm;
    int64_t hidden;
    float epsilon;
};

// Keys and values of earlier tokens: pages [layers, pages, heads, a page], and which pages a sequence has.
struct Cache {
    uint32_t* keys;
    uint32_t* values;
    const int64_t* table;    // [sequences, columns]
    const int64_t* lengths;  // [sequences] tokens before this step
    int64_t pages, columns;
};

struct Batch {
    float* x;                // [T, hidden], in and out
    const int64_t* offsets;  // [sequences + 1]
    const Cache* cache;      // null: every sequence is whole
};

template <class Dtype>
class Tile {
    using Middle = typename Between<Dtype>::Type;
    using Number = typename Middle::Number;

  public:
    Tile(const Stack& stack, const Batch& batch, size_t first, size_t last, Memory& memory)
        : s_(stack), batch_(batch), first_(first), last_(last), size_(size_t(stack.hidden)), mlp_(size_t(stack.mlp)),
          rows_(size_t(batch.offsets[last] - batch.offsets[first])), step_(block_rows<Dtype>(rows_)),
          x_(batch.x + size_t(batch.offsets[first]) * size_) {
        const size_t in_block = mlp_ * sizeof(Number) + (size_ + mlp_) * 4 + 8;
        memory.reset((rows_ + SPARE) * 4 * size_ * sizeof(Number) + (BLOCK<Dtype> + SPARE) * in_block + 4096);
        qkv_ = memory.take<Number>((rows_ + SPARE) * 3 * size_);
        attended_ = memory.take<Number>((rows_ + SPARE) * size_);
        middle_ = memory.take<Number>((BLOCK<Dtype> + SPARE) * mlp_);
        operand_ = memory.take<typename Dtype::Number>((BLOCK<Dtype> + SPARE) * std::max(size_, mlp_));
        scales_ = memory.take<float>(BLOCK<Dtype>);
    }

    // Every thread of the team calls this; `own` is the thread's own memory.
    void run(const Team& team, Memory& own) {
        for (int64_t layer = 0; layer < s_.layers; ++layer) {
            for (size_t row = 0; row < rows_; row += step_) attention_in(team, s_.layer[layer], row, block(row));
            team.meet();
            attention(team, size_t(layer), own);
            team.meet();
            for (size_t row = 0; row < rows_; row += step_) rest(team, s_.layer[layer], row, block(row));
        }
        if (s_.final_norm.weight) each_row(team, rows_, [&](size_t row) { norm(s_.final_norm, x_ + row * size_); });
    }

  private:
    size_t block(size_t row) const { return std::min(step_, rows_ - row); }
    void norm(const Norm& n, float* row) const { layer_norm(row, size_, n.weight, n.bias, s_.epsilon); }

    template <class F>
    static void each_row(const Team& team, size_t count, const F& f) {
        size_t begin, end;
        team.share(count, &begin, &end);
        for (size_t row = begin; row < end; ++row) f(row);
    }

    template <class From>
    void prepare(const From* from, size_t row, const Linear& linear) {
        prepare_row<Dtype>(from, linear, operand_ + row * size_t(linear.inputs), scales_ + row);
    }
    Rows prepared(size_t size) const { return {operand_, size / Dtype::PER_UNIT, scales_}; }

    // Rows that the next product takes: as they are where their dtype is the product's.
    Rows operand(const Team& team, const Number* from, size_t count, const Linear& linear) {
        const size_t size = size_t(linear.inputs);
        if constexpr (Dtype::PER_UNIT != 4) return {from, size / Dtype::PER_UNIT, nullptr};
        each_row(team, count, [&](size_t row) { prepare(from + row * size, row, linear); });
        team.meet();
        return prepared(size);
    }

    // The residual stream's rows, normalised on the way where the norm stands before.
    Rows normal(const Team& team, const Norm& n, float* x, size_t count, const Linear& linear) {
        each_row(team, count, [&](size_t row) {
            if (s_.pre_norm) {
                float copy[MOST_HIDDEN];
                std::memcpy(copy, x + row * size_, size_ * sizeof(float));
                norm(n, copy);
                prepare(copy, row, linear);
            } else {
                prepare(x + row * size_, row, linear);
            }
        });
        team.meet();
        return prepared(size_);
    }

    // x = x + rows · weights, then the norm where it stands after.
    void add(const Team& team, const Linear& linear, const Rows& rows, float* x, size_t count, const Norm& n) {
        const size_t size = size_;
        product<Dtype>(team, rows, count, linear, [=](size_t row, size_t column, __mmask16 lanes, Floats value) {
            float* place = x + row * size + column;
            store(place, load(place, lanes) + value, lanes);
        });
        team.meet();
        if (!s_.pre_norm) each_row(team, count, [&](size_t row) { norm(n, x + row * size_); });
    }

    void attention_in(const Team& team, const Layer& layer, size_t row, size_t count) {
        team.meet();
        const Rows rows = normal(team, layer.attention_norm, x_ + row * size_, count, layer.qkv);
        const size_t stride = 3 * size_;
        Number* to = qkv_ + row * stride;
        product<Dtype>(team, rows, count, layer.qkv, [=](size_t r, size_t column, __mmask16 lanes, Floats value) {
            store(to + r * stride + column, value, lanes);
        });
    }

    void rest(const Team& team, const Layer& layer, size_t row, size_t count) {
        float* x = x_ + row * size_;
        const Rows attended = operand(team, attended_ + row * size_, count, layer.output);
        add(team, layer.output, attended, x, count, layer.attention_norm);
        const Rows rows = normal(team, layer.mlp_norm, x, count, layer.up);
        Number* to = middle_;
        const size_t stride = mlp_;
        with_activation(s_.activation, [&](auto activate) {
            product<Dtype>(team, rows, count, layer.up, [=](size_t r, size_t column, __mmask16 lanes, Floats value) {
                store(to + r * stride + column, activate(value), lanes);
            });
        });
        team.meet();
        add(team, layer.down, operand(team, middle_, count, layer.down), x, count, layer.mlp_norm);
        team.meet();
    }

    void attention(const Team& team, size_t layer, Memory& own) {
        const size_t heads = size_t(s_.heads), size = size_ / heads;
        size_t begin, end;
        team.share((last_ - first_) * heads, &begin, &end);
        for (size_t i = begin; i < end; ++i) {
            const size_t n = first_ + i / heads, h = i % heads;
            const size_t start = size_t(batch_.offsets[n] - batch_.offsets[first_]);
            const size_t count = size_t(batch_.offsets[n + 1] - batch_.offsets[n]);
            const size_t before = batch_.cache ? size_t(batch_.cache->lengths[n]) : 0, keys = before + count;
            const Number* q = qkv_ + start * 3 * size_ + h * size;
            const size_t pages = (keys + PAGE - 1) / PAGE, row = round_up(size, WIDTH);
            const size_t key_units = size / Middle::PER_UNIT * PAGE, value_units = PAGE / Middle::PER_UNIT * row;
            own.reset(pages * (sizeof(Page) + 4 * (key_units + value_units)) + 4 * attention_scratch<Middle>(keys) + 4096);
            Page* page = own.take<Page>(pages);
            float* scratch = own.take<float>(attention_scratch<Middle>(keys));
            if (batch_.cache) {
                const Cache& c = *batch_.cache;
                for (size_t p = 0; p < pages; ++p) {
                    const size_t number = size_t(c.table[n * size_t(c.columns) + p]);
                    const size_t place = (layer * size_t(c.pages) + number) * heads + h;
                    page[p] = {c.keys + place * key_units, c.values + place * value_units, PAGE};
                }
                for (size_t t = 0; t < count; ++t) {
                    const size_t place = (before + t) % PAGE;
                    if (place % (2 * EDGE) == 0) clear_values<Middle>(page[(before + t) / PAGE].values, place, size);
                    const Number* key = q + t * 3 * size_ + size_;
                    put<Middle>(page[(before + t) / PAGE], place, key, key + size_, size);
                }
            } else {
                for (size_t p = 0; p < pages; ++p) {
                    const size_t tokens = std::min(PAGE, keys - p * PAGE);
                    page[p] = {own.take<uint32_t>(key_units), own.take<uint32_t>(value_units), round_up(tokens, WIDTH)};
                    const Number* key = q + p * PAGE * 3 * size_ + size_;
                    put_keys<Middle>(page[p].keys, page[p].width, tokens, key, 3 * size_, size);
                    put_values(page[p].values, tokens, key + size_, 3 * size_, size);
                    if (tokens % (2 * EDGE)) clear_values<Middle>(page[p].values, tokens, size);
                }
            }
            const Head<Number> head = {q, attended_ + start * size_ + h * size, 3 * size_, size_, count, size, keys,
                                       before + 1, s_.causal != 0, s_.scale};
            attend<Middle>(head, page, scratch);
        }
    }

    static constexpr size_t MOST_HIDDEN = 1 << 14;

    const Stack& s_;
    const Batch& batch_;
    const size_t first_, last_, size_, mlp_, rows_, step_;  // step: rows of a block
    float* x_;
    Number *qkv_, *attended_, *middle_;
    typename Dtype::Number* operand_;
    float* scales_;
};

// Whether each thread may take tiles of its own: there are enough rows to use the weights for, and about as many for each.
bool alone(const int64_t* offsets, const std::vector<std::pair<size_t, size_t>>& cut, int64_t threads) {
    const int64_t tokens = offsets[cut.back().second];
    int64_t most = 0;
    for (const auto& [first, last] : cut) most = std::max(most, offsets[last] - offsets[first]);
    const int64_t rounds = (int64_t(cut.size()) + threads - 1) / threads;
    return tokens >= threads * 64 && 5 * tokens >= 4 * most * rounds * threads;
}

template <class Dtype>
void run_stack(const Stack& stack, const Batch& batch, size_t sequences, int threads) {
    const auto cut = even_tiles(batch.offsets, sequences, int64_t(BLOCK<Dtype>), threads);
    if (threads == 1 || alone(batch.offsets, cut, threads)) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (size_t i = 0; i < cut.size(); ++i) {
            static thread_local Memory memory, own;
            [[maybe_unused]] const MatrixUnit<Dtype> unit;
            Tile<Dtype>(stack, batch, cut[i].first, cut[i].second, memory).run({1, 0}, own);
        }
        return;
    }
    static thread_local Memory memory;
    const Tile<Dtype> tile(stack, batch, 0, sequences, memory);
#pragma omp parallel num_threads(threads)
    {
        static thread_local Memory own;
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
        Tile<Dtype>(tile).run({omp_get_num_threads(), omp_get_thread_num()}, own);
    }
}

// x [count, inputs] → y [count, outputs], both float32: a head over a vocabulary.
template <class Dtype>
void run_linear(const Linear& linear, const float* x, size_t count, float* y, int threads) {
    const size_t inputs = size_t(linear.inputs), outputs = size_t(linear.outputs);
    static thread_local Memory memory;
    memory.reset((count + SPARE) * (inputs * sizeof(float) + sizeof(float)) + 4096);
    auto* units = memory.take<typename Dtype::Number>((count + SPARE) * inputs);
    float* scales = memory.take<float>(count);
    for (size_t row = 0; row < count; ++row)
        prepare_row<Dtype>(x + row * inputs, linear, units + row * inputs, scales + row);
    const Rows rows = {units, inputs / Dtype::PER_UNIT, scales};
#pragma omp parallel num_threads(threads)
    {
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
        product<Dtype>({omp_get_num_threads(), omp_get_thread_num()}, rows, count, linear,
                       [&](size_t row, size_t column, __mmask16 lanes, Floats value) {
                           store(y + row * outputs + column, value, lanes);
                       });
    }
}

// Rows of the tables added up and normalised. Ids are within the tables: Python has looked.
void run_stem(const Stem& stem, const int64_t* ids, const int64_t* positions, const int64_t* segments, int64_t count,
              float* x, int threads) {
    const size_t size = size_t(stem.hidden);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < count; ++t) {
        const float* token = stem.tokens + size_t(ids[t]) * size;
        const float* position = stem.positions + size_t(positions[t]) * size;
        const float* segment = stem.segments ? stem.segments + size_t(segments ? segments[t] : 0) * size : nullptr;
        float* row = x + size_t(t) * size;
        for (size_t i = 0; i < size; i += WIDTH) {
            const __mmask16 lanes = first_lanes(size - i);
            const Floats sum = load(token + i, lanes) + load(position + i, lanes);
            store(row + i, segment ? sum + load(segment + i, lanes) : sum, lanes);
        }
        if (stem.norm.weight) layer_norm(row, size, stem.norm.weight, stem.norm.bias, stem.epsilon);
    }
}

// Read `bytes` of memory with all threads, as fast as it comes; what is read goes into a sum that nobody needs.
uint64_t read_memory(const char* from, size_t bytes, int threads) {
    uint64_t total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        size_t begin, end;
        Team{omp_get_num_threads(), omp_get_thread_num()}.share(bytes / 256, &begin, &end);
        __m512i sums[4] = {};
        for (size_t i = begin; i < end; ++i) {
            for (int k = 0; k < 4; ++k) {
                const char* place = from + i * 256 + k * 64;
                _mm_prefetch(place + 6144, _MM_HINT_T0);
                sums[k] = _mm512_add_epi64(sums[k], _mm512_loadu_si512(place));
            }
        }
        for (const __m512i& sum : sums) total += uint64_t(_mm512_reduce_add_epi64(sum));
    }
    return total;
}

// f(dtype) for the dtype of a number that Python gives (native/__init__.py).
template <class F>
void with_dtype(int64_t number, const F& f) {
    switch (number) {
        case 0: return f(Float32{});
        case 1: return f(Bfloat16{});
        case 2: return f(Int8{});
        case 3: return f(Int8Weights{});
        case 4: return f(Int4Weights{});
        case 5: return f(Bfloat16Amx{});
        case 6: return f(Int8Amx{});
        case 7: return f(Int8WeightsAmx{});
        case 8: return f(Int4WeightsAmx{});
    }
}

}  // namespace

// Called from Python (native/__init__.py); nothing is checked here.
extern "C" {

void sensorium_stem(const Stem* stem, const int64_t* ids, const int64_t* positions, const int64_t* segments,
                    int64_t count, float* x, int64_t threads) {
    run_stem(*stem, ids, positions, segments, count, x, int(threads));
}

int64_t sensorium_amx() { return amx::available(); }

uint64_t sensorium_read(const char* from, int64_t bytes, int64_t threads) {
    return read_memory(from, size_t(bytes), int(threads));
}

void sensorium_stack(int64_t dtype, const Stack* stack, const Batch* batch, int64_t sequences, int64_t threads) {
    with_dtype(dtype, [&](auto d) { run_stack<decltype(d)>(*stack, *batch, size_t(sequences), int(threads)); });
}

void sensorium_linear(int64_t dtype, const Linear* linear, const float* x, int64_t count, float* y, int64_t threads) {
    with_dtype(dtype, [&](auto d) { run_linear<decltype(d)>(*linear, x, size_t(count), y, int(threads)); });
}

}
