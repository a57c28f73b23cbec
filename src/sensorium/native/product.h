// Matrix products: rows of activations times packed weights, with what follows done while the sums are at hand: in registers,
// or on their way from the matrix unit.
#pragma once

#include <algorithm>

#include "dots.h"
#include "threads.h"

// A linear map's weights [outputs, inputs], packed by Python (engine.py).
struct Linear {
    const uint32_t* panels;
    const float* bias;      // [outputs] or null
    const float* scale;     // [outputs], 8-bit weights only
    const int32_t* offset;  // [outputs] 128 · Σ weights, which rows shifted by 128 add; 8-bit only
    const float* factors;   // [inputs] on the rows before they become 8-bit numbers, or null
    int64_t inputs, outputs;
};

// Rows [rows, inputs] as units; 8-bit rows have a scale each.
struct Rows {
    const void* units;
    size_t stride;  // units from row to row
    const float* scale;
};

// Sixteen columns of a product: what makes sums results is loaded once for all rows.
template <class Dtype>
struct Column {
    const size_t first;
    const Lanes lanes;
    Floats bias, scale;
    Integers offset;

    Column(const Linear& linear, size_t column)
        : first(column), lanes(first_lanes(size_t(linear.outputs) - column)),
          bias(linear.bias ? load(linear.bias + column, lanes) : splat(0.0f)) {
        if constexpr (Dtype::PER_UNIT != 4) return;
        scale = load(linear.scale + column, lanes);
        if constexpr (SHIFTED) offset = load_units(reinterpret_cast<const uint32_t*>(linear.offset) + column, lanes);
    }

    Floats result(typename Dtype::Sums sums, const Rows& rows, size_t row) const {
        if constexpr (Dtype::PER_UNIT != 4) {
            return sums + bias;
        } else {
            if constexpr (SHIFTED) sums = sums - offset;
            return fused(to_floats(sums), scale * splat(rows.scale[row]), bias);
        }
    }
};

// How a dtype's weights lie in a panel, and how rows meet them. weights.h has those that are narrower than their rows.
template <class Dtype>
struct Weights {
    static size_t units(size_t inputs) { return inputs / Dtype::PER_UNIT * PANEL; }

    // Rows times C vectors of a panel's columns, from `column` on.
    template <int R, int C>
    [[gnu::always_inline]] static void add(const uint32_t* rows, size_t stride, const uint32_t* panel, size_t column,
                                           size_t inputs, typename Dtype::Sums (&sums)[R][C]) {
        add_dots<Dtype, R, C>(rows, stride, 1, panel + column, PANEL, inputs / Dtype::PER_UNIT, sums);
    }
};

struct Nothing {
    void operator()(size_t, size_t) const {}
};

// What a thread must have before products of a dtype.
template <class Dtype>
using MatrixUnit = std::conditional_t<Dtype::AMX, amx::Configured, Nothing>;

constexpr size_t SPARE = 2 * EDGE;  // rows of memory behind the last one, which products by tiles read

// All rows times one panel, some rows at a time in registers.
template <class Dtype, class Finish, class Ahead>
inline void panel_by_rows(const Rows& rows, size_t count, const Linear& linear, const uint32_t* weights, size_t first,
                          const Finish& finish, const Ahead& ahead) {
    const auto* units = static_cast<const uint32_t*>(rows.units);
    const size_t width = std::min(PANEL, size_t(linear.outputs) - first);
    for (size_t row = 0; row < count; row += ROWS) {
        with_constant<ROWS>(int(std::min(size_t(ROWS), count - row)), [&](auto block) {
            constexpr int R = decltype(block)::value;
            for (int r = 0; r < R; ++r) ahead(row + r, first);
            with_columns<R>(width, [&](size_t begin, auto vectors) {
                constexpr int C = decltype(vectors)::value;
                typename Dtype::Sums sums[R][C] = {};
                Weights<Dtype>::template add<R, C>(units + row * rows.stride, rows.stride, weights, begin,
                                                   size_t(linear.inputs), sums);
                each_sum<R, C>([&](int r, int c) {
                    const Column<Dtype> column(linear, first + begin + c * WIDTH);
                    finish(row + r, column.first, column.lanes, column.result(sums[r][c], rows, row + r));
                });
            });
        });
    }
}

// Sixteen sums that the matrix unit has left in memory.
template <class Dtype>
inline typename Dtype::Sums sums_at(const uint32_t* place) {
    if constexpr (Dtype::PER_UNIT == 4) return load_units(place);
    else return floats(load_units(place));
}

// The same for some panels on the matrix unit: 32 rows by 32 columns at a time, whose sums go through memory. While it
// works on a block, the vector units finish the one before. Rows are read up to a whole number of tiles: what lies behind
// the last one must be memory, but matters to nothing.
template <class Dtype, class Finish, class Ahead>
inline void panels_by_tiles(const Rows& rows, size_t count, const Linear& linear, size_t begin, size_t end,
                            const Finish& finish, const Ahead& ahead) {
    constexpr size_t SIDE = 2 * EDGE;
    const auto* units = static_cast<const uint32_t*>(rows.units);
    const size_t outputs = size_t(linear.outputs), steps = size_t(linear.inputs) / Dtype::PER_UNIT;
    const size_t at_once = (SIDE * EDGE + steps - 1) / steps;  // rows to finish while a step is added
    alignas(64) uint32_t sums[2][SIDE][SIDE];
    const size_t panel_units = Weights<Dtype>::units(size_t(linear.inputs));
    // Lines of the next panel to fetch while a step is added, so that all have come when it begins.
    const size_t blocks = (count + SIDE - 1) / SIDE * 2, lines = (panel_units / EDGE + blocks * steps / EDGE - 1) / (blocks * steps / EDGE);
    static thread_local Units wide;  // a panel of narrow weights, widened
    if constexpr (Dtype::NARROW) wide.resize(steps * PANEL);
    size_t row_before = 0, rows_before = 0, column_before = 0, turn = 0;  // the block that waits to be finished
    const uint32_t* panel_before = nullptr;
    const auto finish_rows = [&](size_t from, size_t to) {
        to = std::min(to, rows_before);
        for (size_t c = 0; c < SIDE && column_before + c < outputs; c += WIDTH) {
            const Finish own = finish;  // a copy, so that its values stay in registers whatever is stored
            const Column<Dtype> column(linear, column_before + c);
            const uint32_t* place = sums[1 - turn][from] + c;
            for (size_t r = from, row = row_before + from; r < to; ++r, ++row, place += SIDE) {
                auto found = sums_at<Dtype>(place);
                if constexpr (Dtype::NARROW)
                    found = Weights<Dtype>::scaled(found, panel_before, size_t(linear.inputs), column_before % PANEL + c);
                own(row, column.first, column.lanes, column.result(found, rows, row));
            }
        }
    };
    for (size_t panel = begin; panel < end; ++panel) {
        const uint32_t *packed = linear.panels + panel * panel_units, *weights = packed, *next = packed + panel_units;
        if constexpr (Dtype::NARROW) {
            for (size_t step = 0; step < steps; step += EDGE)
                Weights<Dtype>::widen(packed, step * Dtype::PER_UNIT, wide.data() + step * PANEL);
            weights = wide.data();
        }
        for (size_t row = 0; row < count; row += SIDE) {
            const size_t have = std::min(SIDE, count - row);
            for (size_t r = 0; r < have; ++r) ahead(row + r, panel * PANEL);
            for (size_t column = 0; column < std::min(PANEL, outputs - panel * PANEL); column += SIDE) {
                with_constant<2>(have > EDGE ? 2 : 1, [&](auto tiles) {
                    using Sums = amx::Sums<Dtype, decltype(tiles)::value, 2>;
                    Sums::clear();
                    size_t done = 0;
                    Sums::add(units + row * rows.stride, rows.stride, weights + column, PANEL, steps, [&] {
                        finish_rows(done, done + at_once);
                        done += at_once;
                        for (size_t line = 0; line < lines; ++line, next += EDGE) _mm_prefetch(next, _MM_HINT_T1);
                    });
                    Sums::keep(sums[turn], SIDE);
                });
                turn = 1 - turn;
                row_before = row, rows_before = have, column_before = panel * PANEL + column, panel_before = packed;
            }
        }
    }
    finish_rows(0, SIDE);
}

// The same for a single tile of rows and narrow weights, as in decoding: they are widened a tile at a time, while the one
// before is multiplied, and not written to memory that no near cache holds.
template <class Dtype, class Finish>
inline void narrow_panels(const Rows& rows, size_t count, const Linear& linear, size_t begin, size_t end,
                          const Finish& finish) {
    const auto* units = static_cast<const uint32_t*>(rows.units);
    const size_t inputs = size_t(linear.inputs), outputs = size_t(linear.outputs), steps = inputs / Dtype::PER_UNIT;
    alignas(64) uint32_t wide[2][EDGE * PANEL];
    alignas(64) float sums[EDGE][PANEL];
    for (size_t panel = begin; panel < end; ++panel) {
        const uint32_t* packed = linear.panels + panel * Weights<Dtype>::units(inputs);
        amx::zero<0>(), amx::zero<1>(), amx::zero<2>(), amx::zero<3>();
        Weights<Dtype>::widen(packed, 0, wide[0]);
        for (size_t step = 0, turn = 0; step < steps; step += EDGE, turn = 1 - turn) {
            if (step + EDGE < steps) Weights<Dtype>::widen(packed, (step + EDGE) * Dtype::PER_UNIT, wide[1 - turn]);
            amx::load<4>(units + step, rows.stride);
            amx::load<5>(wide[turn], PANEL);
            Dtype::template tile_dot<0, 4, 5>();
            amx::load<6>(wide[turn] + EDGE, PANEL);
            Dtype::template tile_dot<1, 4, 6>();
            amx::load<5>(wide[turn] + 2 * EDGE, PANEL);
            Dtype::template tile_dot<2, 4, 5>();
            amx::load<6>(wide[turn] + 3 * EDGE, PANEL);
            Dtype::template tile_dot<3, 4, 6>();
        }
        amx::store<0>(sums[0], PANEL), amx::store<1>(sums[0] + EDGE, PANEL);
        amx::store<2>(sums[0] + 2 * EDGE, PANEL), amx::store<3>(sums[0] + 3 * EDGE, PANEL);
        for (size_t c = 0; c < PANEL && panel * PANEL + c < outputs; c += WIDTH) {
            const Column<Dtype> column(linear, panel * PANEL + c);
            for (size_t r = 0; r < count; ++r) {
                const Floats found = Weights<Dtype>::scaled(load(sums[r] + c), packed, inputs, c);
                finish(r, column.first, column.lanes, column.result(found, rows, r));
            }
        }
    }
}

// finish(row, column, lanes, sixteen results) for every row and every sixteen columns; the team shares the panels.
// ahead(row, column) is called before the sums of a row and 64 columns are begun: time to fetch what `finish` will touch.
template <class Dtype, class Finish, class Ahead = Nothing>
inline void product(const Team& team, const Rows& rows, size_t count, const Linear& linear, const Finish& finish,
                    const Ahead& ahead = {}) {
    const size_t outputs = size_t(linear.outputs);
    size_t begin, end;
    team.share((outputs + PANEL - 1) / PANEL, &begin, &end);
    if constexpr (Dtype::AMX) {
        if constexpr (Dtype::NARROW)
            if (count <= EDGE) return narrow_panels<Dtype>(rows, count, linear, begin, end, finish);
        return panels_by_tiles<Dtype>(rows, count, linear, begin, end, finish, ahead);
    }
    for (size_t panel = begin; panel < end; ++panel) {
        const uint32_t* weights = linear.panels + panel * Weights<Dtype>::units(size_t(linear.inputs));
        panel_by_rows<Dtype>(rows, count, linear, weights, panel * PANEL, finish, ahead);
    }
}
