// The Stack forwards and backwards, for training. As in inference a thread takes a tile of whole sequences through a layer
// while it lies in its cache. The backward pass goes down layer by layer: first all tiles, then the weights' gradients as
// products over all rows.
//
// Nothing depends on the number of threads: a tile's sums go into a place of its own, and are added up in order.
#include "training.h"

namespace {

// Tiles for training: smaller ones of a small batch, so that all threads have their share. It is the batch that decides,
// not the number of threads, because sums over tiles must not depend on that.
template <class Dtype>
std::vector<std::pair<size_t, size_t>> training_tiles(const int64_t* offsets, size_t sequences) {
    return tiles(offsets, sequences, std::clamp(offsets[sequences] / 16, int64_t(BLOCK<Dtype>) / 4, int64_t(BLOCK<Dtype>)));
}

template <class Dtype>
void run_forward(const Training& training, const int64_t* offsets, size_t sequences, float* x, int threads) {
    const auto cut = training_tiles<Dtype>(offsets, sequences);
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
    const Linear* const linear[4] = {&l.qkv, &l.output, &l.up, &l.down};
    struct Work {
        int which;
        size_t first, last;  // panels
    };
    // A few panels at a time share what they read; with many threads there are not enough for that.
    const size_t together = omp_get_num_threads() > 4 ? 1 : 4;
    std::vector<Work> work;
    for (int i : {3, 2, 0, 1}) {  // the longest first
        const size_t panels = (size_t(linear[i]->outputs) + PANEL - 1) / PANEL;
        for (size_t panel = 0; b.weights[i] && panel < panels; panel += together)
            work.push_back({i, panel, std::min(panel + together, panels)});
    }
#pragma omp for schedule(dynamic) nowait
    for (size_t i = 0; i < work.size(); ++i) {
        const auto [which, first, last] = work[i];
        weight_gradient<Dtype>(operands.gradient[which], first, last, size_t(linear[which]->outputs),
                               operands.input[which], size_t(linear[which]->inputs), b.weights[which]);
    }
    const size_t count = Vectors::count(size_t(training.stack.hidden), size_t(training.stack.mlp));
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; ++i) {
        float sum = 0.0f;
        for (size_t tile = 0; tile < number_of_tiles; ++tile) sum += training.sums[tile * count + i];
        b.vectors[i] = sum;
    }
}

// Steps of the products over rows: whole tiles.
template <class Dtype>
size_t all_steps(size_t steps) {
    return Dtype::AMX ? round_up(steps, EDGE) : steps;
}

template <class Dtype>
void run_backward(const Training& training, const int64_t* offsets, size_t sequences, float* x, int threads) {
    const auto cut = training_tiles<Dtype>(offsets, sequences);
    const size_t size = size_t(training.stack.hidden), mlp = size_t(training.stack.mlp);
    const size_t count = Vectors::count(size, mlp);
    std::vector<size_t> first_step = {0};
    for (const auto& [first, last] : cut)
        first_step.push_back(first_step.back() +
                             (size_t(offsets[last] - offsets[first]) + Dtype::PER_UNIT - 1) / Dtype::PER_UNIT);
    const Operands operands(training.zipped, all_steps<Dtype>(first_step.back()), size, mlp);
    if (operands.input[0].steps > first_step.back()) operands.clear(first_step.back(), size, mlp);
#pragma omp parallel num_threads(threads)
    for (int64_t layer = training.stack.layers - 1; layer >= training.lowest; --layer) {
        [[maybe_unused]] const MatrixUnit<Dtype> unit;
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < cut.size(); ++i) {
            static thread_local Memory memory;
            float* sums = training.sums + i * count;
            std::memset(sums, 0, count * sizeof(float));
            TrainingTile<Dtype>(training, offsets, cut[i].first, cut[i].second, x, memory)
                .backward(size_t(layer), operands, first_step[i], Vectors(sums, size));
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
                            std::min(PANEL, inputs - first), [&](size_t row, size_t column, __mmask16 lanes) {
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
            const __mmask16 lanes = first_lanes(columns - i);
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

// How many tiles, and how many tokens with every tile's rounded up to two: what `sums` and `zipped` need room for.
void sensorium_tiles(int64_t dtype, const int64_t* offsets, int64_t sequences, int64_t* count, int64_t* tokens) {
    with_trained(dtype, [&](auto d) {
        using Dtype = decltype(d);
        *count = *tokens = 0;
        for (const auto& [first, last] : training_tiles<Dtype>(offsets, size_t(sequences))) {
            *count += 1;
            *tokens += int64_t(round_up(size_t(offsets[last] - offsets[first]), 2));
        }
        *tokens = int64_t(all_steps<Dtype>(size_t(*tokens) / Dtype::PER_UNIT) * Dtype::PER_UNIT);
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
