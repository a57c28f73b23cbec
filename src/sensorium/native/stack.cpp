// The Stack over packed sequences. A thread takes a tile, some whole sequences, through all layers while it lies in its
// cache; nothing waits for anything. A batch too small for that is one tile, whose products a team of threads shares.
#include "tile.h"

namespace {

// Tables [rows, hidden] in float32; all but the tokens' may be null. Rows of tokens are multiplied by `scale`.
struct Stem {
    const float *tokens, *positions, *segments;
    Norm norm;
    int64_t hidden;
    float epsilon, scale;
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

// What each layer will attend to: keys and values of packed vectors [S, inputs], in pages.
template <class Dtype>
void run_memory(const Stack& stack, const float* vectors, const int64_t* offsets, size_t sources, const Cache& cache,
                int threads) {
    using Middle = typename Between<Dtype>::Type;
    const size_t heads = size_t(stack.heads), head = size_t(stack.head), width = heads * head;
    const size_t inputs = size_t(stack.layer[0].key_value.inputs), rows = size_t(offsets[sources]);
    const size_t key_units = head / Middle::PER_UNIT * PAGE, value_units = PAGE / Middle::PER_UNIT * round_up(head, WIDTH);
    static thread_local Memory memory;
    memory.reset((rows + SPARE) * (2 * width * sizeof(typename Middle::Number) + (inputs + 1) * 4) + 4096);
    auto* operand = memory.take<typename Dtype::Number>((rows + SPARE) * inputs);
    auto* key_value = memory.take<typename Middle::Number>((rows + SPARE) * 2 * width);
    auto* scales = memory.take<float>(rows);
#pragma omp parallel num_threads(threads)
    {
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
        const Team team = {omp_get_num_threads(), omp_get_thread_num()};
        const auto each = [&](size_t count, const auto& f) {
            size_t begin, end;
            team.share(count, &begin, &end);
            for (size_t i = begin; i < end; ++i) f(i);
            team.meet();
        };
        each(rows, [&](size_t row) {
            prepare_row<Dtype>(vectors + row * inputs, stack.layer[0].key_value, operand + row * inputs, scales + row);
        });
        for (size_t layer = 0; layer < size_t(stack.layers); ++layer) {
            const size_t stride = 2 * width;
            product<Dtype>(team, {operand, inputs / Dtype::PER_UNIT, scales}, rows, stack.layer[layer].key_value,
                           [=](size_t row, size_t column, Lanes lanes, Floats value) {
                               store(key_value + row * stride + column, value, lanes);
                           });
            team.meet();
            each(sources * heads, [&](size_t i) {
                const size_t n = i / heads, h = i % heads, begin = size_t(offsets[n]), count = size_t(offsets[n + 1]) - begin;
                for (size_t p = 0; p * PAGE < count; ++p) {
                    const size_t number = size_t(cache.table[n * size_t(cache.columns) + p]);
                    const size_t place = (layer * size_t(cache.pages) + number) * heads + h;
                    const size_t tokens = std::min(PAGE, count - p * PAGE);
                    const auto* from = key_value + (begin + p * PAGE) * stride + h * head;
                    put_keys<Middle>(cache.keys + place * key_units, PAGE, tokens, from, stride, head);
                    put_values(cache.values + place * value_units, tokens, from + width, stride, head);
                    if (tokens % (2 * EDGE)) clear_values<Middle>(cache.values + place * value_units, tokens, head);
                }
            });
        }
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
                       [&](size_t row, size_t column, Lanes lanes, Floats value) {
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
        const float* position = stem.positions ? stem.positions + size_t(positions[t]) * size : nullptr;
        const float* segment = stem.segments ? stem.segments + size_t(segments ? segments[t] : 0) * size : nullptr;
        float* row = x + size_t(t) * size;
        for (size_t i = 0; i < size; i += WIDTH) {
            const Lanes lanes = first_lanes(size - i);
            Floats sum = load(token + i, lanes) * splat(stem.scale);
            if (position) sum += load(position + i, lanes);
            if (segment) sum += load(segment + i, lanes);
            store(row + i, sum, lanes);
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
        Integers sums[4] = {};
        for (size_t i = begin; i < end; ++i) {
            for (int k = 0; k < 4; ++k) {
                const char* place = from + i * 256 + k * 64;
                _mm_prefetch(place + 6144, _MM_HINT_T0);
                sums[k] = sums[k] + load_units(place);
            }
        }
        for (const Integers& four : sums) total += uint64_t(sum(to_floats(four & splat_units(1))));
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
#ifdef __AVX512F__
        case 5: return f(Bfloat16Amx{});
        case 6: return f(Int8Amx{});
        case 7: return f(Int8WeightsAmx{});
        case 8: return f(Int4WeightsAmx{});
#endif
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

void sensorium_memory(int64_t dtype, const Stack* stack, const float* vectors, const int64_t* offsets, int64_t sources,
                      const Cache* cache, int64_t threads) {
    with_dtype(dtype, [&](auto d) {
        run_memory<decltype(d)>(*stack, vectors, offsets, size_t(sources), *cache, int(threads));
    });
}

void sensorium_linear(int64_t dtype, const Linear* linear, const float* x, int64_t count, float* y, int64_t threads) {
    with_dtype(dtype, [&](auto d) { run_linear<decltype(d)>(*linear, x, size_t(count), y, int(threads)); });
}

}
