// The Stack forwards and backwards, for training. As in inference a thread takes a tile of whole sequences through a layer
// while it lies in its cache. The backward pass goes down layer by layer: first all tiles, then the weights' gradients as
// products over all rows.
//
// Nothing depends on the number of threads: a tile's sums go into a place of its own, and are added up in order.
#include "training_tile.h"

namespace {

// Tiles for training: smaller ones of a small batch, so that all threads have their share. It is the batch that decides,
// not the number of threads, because sums over tiles must not depend on that.
template <class Dtype>
std::vector<std::pair<size_t, size_t>> training_tiles(const int64_t* offsets, const int64_t* sources, size_t sequences) {
    const auto cut = [&](const int64_t* ends, int64_t most) {
        return tiles(ends, sequences, std::clamp(ends[sequences] / 16, most / 4, most));
    };
    if (!sources) return cut(offsets, BLOCK<Dtype>);
    std::vector<int64_t> both(sequences + 1);
    for (size_t n = 0; n <= sequences; ++n) both[n] = offsets[n] + sources[n];
    return cut(both.data(), 2 * BLOCK<Dtype>);
}

// The steps of products over rows: where each tile's begin, and how many there are for whole tiles of the matrix unit.
struct Steps {
    std::vector<size_t> first = {0};
    size_t all = 0;
};
template <class Dtype>
Steps steps_of(const std::vector<std::pair<size_t, size_t>>& cut, const int64_t* offsets) {
    Steps steps;
    for (const auto& [first, last] : cut)
        steps.first.push_back(steps.first.back() +
                              (size_t(offsets[last] - offsets[first]) + Dtype::PER_UNIT - 1) / Dtype::PER_UNIT);
    steps.all = Dtype::AMX ? round_up(steps.first.back(), EDGE) : steps.first.back();
    return steps;
}

template <class Dtype>
void run_forward(const Training& training, const int64_t* offsets, size_t sequences, float* x, int threads) {
    const auto cut = training_tiles<Dtype>(offsets, training.sources, sequences);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t i = 0; i < cut.size(); ++i) {
        static thread_local Memory memory;
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
        TrainingTile<Dtype> tile(training, offsets, cut[i].first, cut[i].second, x, memory);
        for (int64_t layer = 0; layer < training.stack.layers; ++layer) tile.forward(size_t(layer));
    }
}

// The gradients of one layer's weights, some panels of outputs at a time, and of its vectors.
template <class Dtype>
void layer_gradients(const Training& training, size_t layer, const Operands& operands, size_t number_of_tiles) {
    const LayerBackward& b = training.backward[layer];
    const Layer& l = training.stack.layer[layer];
    struct Work {
        Map map;
        size_t first, last;  // panels
    };
    // A few panels at a time share what they read; with many threads there are not enough for that.
    const size_t together = omp_get_num_threads() > 4 ? 1 : 4;
    std::vector<Work> work;
    for (Map map : {DOWN, UP, QKV, KEY_VALUE, OUTPUT, QUERY, MEMORY_OUTPUT}) {  // the longest first
        const size_t panels = (size_t((l.*MAP[map]).outputs) + PANEL - 1) / PANEL;
        for (size_t panel = 0; b.weights[map] && panel < panels; panel += together)
            work.push_back({map, panel, std::min(panel + together, panels)});
    }
#pragma omp for schedule(dynamic) nowait
    for (size_t i = 0; i < work.size(); ++i) {
        const auto [map, first, last] = work[i];
        const Linear& linear = l.*MAP[map];
        weight_gradient<Dtype>(operands.gradient[map], first, last, size_t(linear.outputs), operands.input[map],
                               size_t(linear.inputs), b.weights[map]);
    }
    const size_t count = Vectors(nullptr, training.stack).count;
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; ++i) {
        float sum = 0.0f;
        for (size_t tile = 0; tile < number_of_tiles; ++tile) sum += training.sums[tile * count + i];
        b.vectors[i] = sum;
    }
}

template <class Dtype>
void run_backward(const Training& training, const int64_t* offsets, size_t sequences, float* x, int threads) {
    const auto cut = training_tiles<Dtype>(offsets, training.sources, sequences);
    const Layer& any = training.stack.layer[0];
    const size_t count = Vectors(nullptr, training.stack).count;
    const Steps steps = steps_of<Dtype>(cut, offsets);
    const Steps source_steps = training.sources ? steps_of<Dtype>(cut, training.sources) : Steps{steps.first, 0};
    const Operands operands(training.zipped, steps.all, source_steps.all, any);
    operands.clear(steps.first.back(), source_steps.first.back(), any);
#pragma omp parallel num_threads(threads)
    for (int64_t layer = training.stack.layers - 1; layer >= training.lowest; --layer) {
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < cut.size(); ++i) {
            static thread_local Memory memory;
            float* sums = training.sums + i * count;
            std::memset(sums, 0, count * sizeof(float));
            TrainingTile<Dtype>(training, offsets, cut[i].first, cut[i].second, x, memory)
                .backward(size_t(layer), operands, steps.first[i], source_steps.first[i], Vectors(sums, training.stack));
        }
        layer_gradients<Dtype>(training, size_t(layer), operands, cut.size());
    }
}

// Weights [outputs, inputs] as panels for products with them, and with their transpose.
template <class Dtype>
void pack(const typename Dtype::Number* weights, size_t outputs, size_t inputs, uint32_t* panels, uint32_t* transposed,
          int threads) {
    const size_t steps = inputs / Dtype::PER_UNIT, steps_back = (outputs + Dtype::PER_UNIT - 1) / Dtype::PER_UNIT;
    const size_t count = (outputs + PANEL - 1) / PANEL, count_back = (inputs + PANEL - 1) / PANEL;
    const auto* units = reinterpret_cast<const uint32_t*>(weights);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t number = 0; number < count + count_back; ++number) {
        if (number < count) {
            const uint32_t* from = units + number * PANEL * steps;
            uint32_t* to = panels + number * PANEL * steps;
            const size_t rows = std::min(PANEL, outputs - number * PANEL);
            for (size_t step = 0; step < steps; ++step, to += PANEL)
                for (size_t row = 0; row < rows; ++row) to[row] = from[row * steps + step];
        } else {
            const size_t panel = number - count, first = panel * PANEL;
            zip_rows<Dtype>({transposed + panel * steps_back * PANEL, steps_back}, 0, outputs,
                            std::min(PANEL, inputs - first), [&](size_t row, size_t column, Lanes lanes) {
                                return load(weights + row * inputs + first + column, lanes);
                            }, nullptr);
        }
    }
}

template <class Number>
void drop_out(const Dropout& dropout, const Number* from, size_t rows, size_t columns, Number* to, int threads) {
#pragma omp parallel for num_threads(threads)
    for (size_t row = 0; row < rows; ++row) {
        const Dropout::Row drop = dropout.row(0, row);
        for (size_t i = 0; i < columns; i += WIDTH) {
            const Lanes lanes = first_lanes(columns - i);
            store(to + row * columns + i, drop(i, load(from + row * columns + i, lanes)), lanes);
        }
    }
}

}  // namespace

// Called from Python (native/__init__.py); nothing is checked here. dtype: 0 float32, 1 bfloat16, 5 bfloat16 by tiles.
extern "C" {

void sensorium_pack(int64_t dtype, const void* weights, int64_t outputs, int64_t inputs, uint32_t* panels,
                    uint32_t* transposed, int64_t threads) {
    if (dtype == 0)
        pack<Float32>(static_cast<const float*>(weights), size_t(outputs), size_t(inputs), panels, transposed, int(threads));
    else
        pack<Bfloat16>(static_cast<const bfloat16*>(weights), size_t(outputs), size_t(inputs), panels, transposed,
                       int(threads));
}

// Rows [rows, columns] of float32 or bfloat16; `from` and `to` may be the same.
void sensorium_dropout(int64_t dtype, const Dropout* dropout, const void* from, int64_t rows, int64_t columns, void* to,
                       int64_t threads) {
    if (dtype == 0)
        drop_out(*dropout, static_cast<const float*>(from), size_t(rows), size_t(columns), static_cast<float*>(to),
                 int(threads));
    else
        drop_out(*dropout, static_cast<const bfloat16*>(from), size_t(rows), size_t(columns), static_cast<bfloat16*>(to),
                 int(threads));
}

// How many tiles, and how many tokens, of sequences and of sources, with every tile's rounded up to whole steps: what `sums`
// and `zipped` need room for.
void sensorium_tiles(int64_t dtype, const int64_t* offsets, const int64_t* sources, int64_t sequences, int64_t* count,
                     int64_t* tokens, int64_t* source_tokens) {
    with_trained(dtype, [&](auto d) {
        using Dtype = decltype(d);
        const auto cut = training_tiles<Dtype>(offsets, sources, size_t(sequences));
        *count = int64_t(cut.size());
        *tokens = int64_t(steps_of<Dtype>(cut, offsets).all * Dtype::PER_UNIT);
        *source_tokens = sources ? int64_t(steps_of<Dtype>(cut, sources).all * Dtype::PER_UNIT) : 0;
    });
}

void sensorium_forward(int64_t dtype, const Training* training, const int64_t* offsets, int64_t sequences, float* x,
                       int64_t threads) {
    with_trained(dtype, [&](auto d) {
        run_forward<decltype(d)>(*training, offsets, size_t(sequences), x, int(threads));
    });
}

void sensorium_backward(int64_t dtype, const Training* training, const int64_t* offsets, int64_t sequences, float* x,
                        int64_t threads) {
    with_trained(dtype, [&](auto d) {
        run_backward<decltype(d)>(*training, offsets, size_t(sequences), x, int(threads));
    });
}

}
