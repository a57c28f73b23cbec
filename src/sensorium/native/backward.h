// What gradients need beside products with transposed weights: rows zipped for products over rows, LayerNorm backwards.
#pragma once

#include <cmath>

#include "attention.h"

// Two rows' numbers as units of a product over rows (bfloat16); one row's as they are (float32).
template <class Dtype>
inline Integers zip(Floats even, [[maybe_unused]] Floats odd) {
    if constexpr (Dtype::PER_UNIT == 1) return bits(even);
    else return rounded_halves(even) | rounded_halves(odd) << 16;
}

// A matrix read by products over its rows: panels of 64 columns, PER_UNIT rows a step.
struct Zipped {
    uint32_t* units;  // [panels][steps][64]
    size_t steps;
    uint32_t* panel(size_t number, size_t step) const { return units + (number * steps + step) * PANEL; }
};

// `count` rows, read(row, column, lanes), as the steps of `to` from `step` on; their sums are added to `sums`.
template <class Dtype, class Read>
inline void zip_rows(const Zipped& to, size_t step, size_t count, size_t columns, const Read& read, float* sums) {
    for (size_t first = 0; first < columns; first += PANEL) {
        const size_t width = std::min(PANEL, columns - first);
        with_constant<PANEL / WIDTH>(int((width + WIDTH - 1) / WIDTH), [&](auto vectors) {
            constexpr int C = decltype(vectors)::value;
            uint32_t* place = to.panel(first / PANEL, step);
            Floats totals[C] = {};
            for (size_t row = 0; row < count; row += Dtype::PER_UNIT, place += PANEL) {
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) {
                    const size_t column = first + c * WIDTH;
                    const Lanes lanes = first_lanes(columns - column);
                    const bool pair = Dtype::PER_UNIT == 2 && row + 1 < count;
                    const Floats even = read(row, column, lanes);
                    const Floats odd = pair ? read(row + 1, column, lanes) : splat(0.0f);
                    totals[c] += even + odd;
                    store_units(place + c * WIDTH, zip<Dtype>(even, odd));
                }
            }
            if (!sums) return;
            for (int c = 0; c < C; ++c) {
                float* sum = sums + first + c * WIDTH;
                const Lanes lanes = first_lanes(columns - first - c * WIDTH);
                store(sum, load(sum, lanes) + totals[c], lanes);
            }
        });
    }
}

constexpr size_t STEPS = 256;  // of a product over rows at a time: a panel of that many lies in the nearest caches

// to[row] (+)= Σ_step a[row][step] · b[step], for `size` columns, from `step` of b on; `more`: add to what is there
template <class Dtype>
inline void products(const uint32_t* a, size_t a_row, size_t a_step, size_t count, const Zipped& b, size_t step,
                     size_t steps, size_t size, float* to, bool more) {
    for (size_t column = 0; column < size; column += PANEL) {
        for (size_t row = 0; row < count; row += ROWS) {
            with_constant<ROWS>(int(std::min(size_t(ROWS), count - row)), [&](auto block) {
                constexpr int R = decltype(block)::value;
                with_columns<R>(std::min(PANEL, size - column), [&](size_t begin, auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    Floats sums[R][C];
                    const size_t first = column + begin;
                    const auto place = [&](int r, int c) { return to + (row + r) * size + first + c * WIDTH; };
                    const auto lanes = [&](int c) { return first_lanes(size - first - c * WIDTH); };
                    each_sum<R, C>([&](int r, int c) { sums[r][c] = more ? load(place(r, c), lanes(c)) : splat(0.0f); });
                    add_dots<Dtype, R, C>(a + row * a_row, a_row, a_step, b.panel(column / PANEL, step) + begin, PANEL,
                                          steps, sums);
                    each_sum<R, C>([&](int r, int c) { store(place(r, c), sums[r][c], lanes(c)); });
                });
            });
        }
    }
}

// to[row] (+)= Σ_step a[row][step] · b[step], for `size` columns, by tiles. Rows of a are read up to a whole number of tiles.
template <class Dtype>
inline void products_by_tiles(const uint32_t* a, size_t a_stride, size_t count, const Zipped& b, size_t step,
                              size_t steps, size_t size, float* to, bool more) {
    using Sums = amx::Sums<Dtype, 2, 2>;
    constexpr size_t SIDE = 2 * EDGE;
    alignas(64) float last[SIDE][SIDE];  // what is no whole block goes this way
    for (size_t column = 0; column < size; column += SIDE) {
        const uint32_t* columns = b.panel(column / PANEL, step) + column % PANEL;
        for (size_t row = 0; row < count; row += SIDE) {
            float* place = to + row * size + column;
            const bool whole = row + SIDE <= count;
            if (whole && more) Sums::take(place, size);
            else Sums::clear();
            Sums::add(a + row * a_stride, a_stride, columns, PANEL, steps);
            Sums::keep(whole ? place : last[0], whole ? size : SIDE);
            for (size_t r = 0; !whole && row + r < count; ++r) {
                for (size_t c = 0; c < SIDE; c += WIDTH) {
                    float* sum = place + r * size + c;
                    store(sum, load(last[r] + c) + (more ? load(sum) : splat(0.0f)));
                }
            }
        }
    }
}

// gradient[n][k] (+)= Σ_step a[step][n] · b[step][k] for `outputs` columns n of a panel of a, and all `inputs` columns k
// of b, from `step` on. By tiles the panel is turned around first, so that a column's steps are a row.
template <class Dtype>
inline void add_weight_gradient(const Zipped& a, size_t panel, size_t outputs, const Zipped& b, size_t inputs, size_t step,
                                size_t steps, float* gradient) {
    const uint32_t* columns = a.panel(panel, step);
    if constexpr (Dtype::AMX) {
        alignas(64) static thread_local uint32_t rows[PANEL * STEPS];
        transpose(columns, PANEL, steps, outputs, rows, STEPS);
        return products_by_tiles<Dtype>(rows, STEPS, outputs, b, step, steps, inputs, gradient, step > 0);
    }
    products<Dtype>(columns, 1, PANEL, outputs, b, step, steps, inputs, gradient, step > 0);
}

// gradient[n][k] = Σ_row a[row][n] · b[row][k] for the outputs n of some panels of a, and all `inputs` k of b. The panels
// take turns, so that they find the same rows of b in a cache.
template <class Dtype>
inline void weight_gradient(const Zipped& a, size_t first, size_t last, size_t outputs, const Zipped& b, size_t inputs,
                            float* gradient) {
    for (size_t step = 0; step < a.steps; step += STEPS) {
        const size_t steps = std::min(STEPS, a.steps - step);
        for (size_t panel = first; panel < last; ++panel)
            add_weight_gradient<Dtype>(a, panel, std::min(PANEL, outputs - panel * PANEL), b, inputs, step, steps,
                                       gradient + panel * PANEL * inputs);
    }
}

// LayerNorm of a row, in place; keeps its normal form and one over its deviation for the way back.
template <class Number>
inline void layer_norm_kept(float* row, size_t size, const float* weight, const float* bias, float epsilon,
                            Number* normal, float* inverse) {
    Floats total = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) total += load(row + i, first_lanes(size - i));
    const float mean = sum(total) / float(size);
    Floats squares = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats away = only(lanes, load(row + i, lanes) - splat(mean));
        squares += away * away;
    }
    *inverse = 1.0f / std::sqrt(sum(squares) / float(size) + epsilon);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats x = (load(row + i, lanes) - splat(mean)) * splat(*inverse);
        store(normal + i, x, lanes);
        store(row + i, x * load(weight + i, lanes) + load(bias + i, lanes), lanes);
    }
}

// The gradient of a LayerNorm's output → of its input, in place; adds to the gradients of weight and bias.
template <class Number>
inline void layer_norm_backward(float* gradient, size_t size, const Number* normal, float inverse, const float* weight,
                                float* weight_sums, float* bias_sums) {
    Floats total = splat(0.0f), along = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats g = load(gradient + i, lanes), x = load(normal + i, lanes), scaled = g * load(weight + i, lanes);
        total += scaled;
        along += scaled * x;
        store(weight_sums + i, load(weight_sums + i, lanes) + g * x, lanes);
        store(bias_sums + i, load(bias_sums + i, lanes) + g, lanes);
    }
    const Floats mean = splat(sum(total) / float(size)), share = splat(sum(along) / float(size));
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats scaled = load(gradient + i, lanes) * load(weight + i, lanes);
        store(gradient + i, (scaled - mean - load(normal + i, lanes) * share) * splat(inverse), lanes);
    }
}
