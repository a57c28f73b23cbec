// Products with the gradients of logits: sums over words, or over tokens, of rows of numbers.
#pragma once

#include "backward.h"

// to[row] (+)= Σ_step a[row][step] · b[step], for `size` columns, by tiles. Rows of a are read up to a whole number of tiles.
template <class Dtype>
inline void products_by_tiles(const uint32_t* a, size_t a_stride, size_t count, const Zipped& b, size_t size, float* to,
                              bool more) {
    using Sums = amx::Sums<Dtype, 2, 2>;
    constexpr size_t SIDE = 2 * EDGE;
    alignas(64) float last[SIDE][SIDE];  // what is no whole block goes this way
    for (size_t column = 0; column < size; column += SIDE) {
        const uint32_t* columns = b.panel(column / PANEL, 0) + column % PANEL;
        for (size_t row = 0; row < count; row += SIDE) {
            float* place = to + row * size + column;
            const bool whole = row + SIDE <= count;
            if (whole && more) Sums::take(place, size);
            else Sums::clear();
            Sums::add(a + row * a_stride, a_stride, columns, PANEL, b.steps);
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

// to[row] (+)= Σ_step a[row][step] · b[step], for `size` columns
template <class Dtype>
inline void products(const uint32_t* a, size_t a_row, size_t a_step, size_t count, const Zipped& b, size_t steps, size_t size,
                     float* to, bool more) {
    for (size_t column = 0; column < size; column += PANEL) {
        with_constant<PANEL / WIDTH>(int((std::min(PANEL, size - column) + WIDTH - 1) / WIDTH), [&](auto vectors) {
            constexpr int C = decltype(vectors)::value;
            for (size_t row = 0; row < count; row += ROWS) {
                with_constant<ROWS>(int(std::min(size_t(ROWS), count - row)), [&](auto block) {
                    constexpr int R = decltype(block)::value;
                    __m512 sums[R][C];
                    const auto place = [&](int r, int c) { return to + (row + r) * size + column + c * WIDTH; };
                    const auto lanes = [&](int c) { return first_lanes(size - column - c * WIDTH); };
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c) sums[r][c] = more ? load(place(r, c), lanes(c)) : splat(0.0f);
                    add_dots<Dtype, R, C>(a + row * a_row, a_row, a_step, b.panel(column / PANEL, 0), PANEL, steps, sums);
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c) store(place(r, c), sums[r][c], lanes(c));
                });
            }
        });
    }
}
