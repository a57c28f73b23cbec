// softmax(q·Kᵀ · scale) · V for one head of one sequence: the keys and the values are packed as the weights of two
// products are, in pages of 64 tokens.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "rows.h"

constexpr size_t PAGE = PANEL;  // tokens of a page

inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Keys of a page: [units of a head][width tokens]; values: [tokens / PER_UNIT][head size up to a multiple of 16].
struct Page {
    uint32_t* keys;
    uint32_t* values;
    size_t width;
};

// Put the key and the value of a token into its page. `size` is the head size.
template <class Dtype>
inline void put(const Page& page, size_t token, const typename Dtype::Number* key, const typename Dtype::Number* value,
                size_t size) {
    const auto* units = reinterpret_cast<const uint32_t*>(key);
    for (size_t unit = 0; unit < size / Dtype::PER_UNIT; ++unit) page.keys[unit * page.width + token] = units[unit];
    const size_t row = round_up(size, WIDTH);
    auto* values = reinterpret_cast<typename Dtype::Number*>(page.values + token / Dtype::PER_UNIT * row);
    const size_t place = token % Dtype::PER_UNIT;
    for (size_t i = 0; i < size; ++i) values[i * Dtype::PER_UNIT + place] = value[i];
}

// `rows` rows of `columns` units → columns, [columns][rows up to a multiple of sixteen].
inline void transpose(const uint32_t* from, size_t stride, size_t rows, size_t columns, uint32_t* to, size_t to_stride) {
    for (size_t row = 0; row < rows; row += WIDTH) {
        const size_t count = std::min(WIDTH, rows - row);
        for (size_t column = 0; column < columns; column += WIDTH) {
            const Lanes lanes = first_lanes(columns - column);
            Integers block[WIDTH];
#pragma GCC unroll 16
            for (size_t i = 0; i < WIDTH; ++i)
                block[i] = load_units(from + (row + i) * stride + column, i < count ? lanes : NONE);
            transpose(block);
            for (size_t i = 0; i < std::min(WIDTH, columns - column); ++i)
                store_units(to + (column + i) * to_stride + row, block[i]);
        }
    }
}

// Pack a whole run of tokens, from 0: keys as [units of a head][width], sixteen numbers of a value at a time.
template <class Dtype>
inline void put_keys(uint32_t* to, size_t width, size_t tokens, const typename Dtype::Number* key, size_t stride,
                     size_t size) {
    transpose(reinterpret_cast<const uint32_t*>(key), stride / Dtype::PER_UNIT, tokens, size / Dtype::PER_UNIT, to, width);
}

inline void put_values(uint32_t* to, size_t tokens, const float* value, size_t stride, size_t size) {
    const size_t row = round_up(size, WIDTH);
    for (size_t token = 0; token < tokens; ++token)
        convert_row(value + token * stride, size, reinterpret_cast<float*>(to + token * row));
}

inline void put_values(uint32_t* to, size_t tokens, const bfloat16* value, size_t stride, size_t size) {
    const size_t row = round_up(size, WIDTH);
    for (size_t token = 0; token < tokens; token += 2) {
        for (size_t i = 0; i < size; i += WIDTH) {
            const Lanes lanes = first_lanes(size - i), second = token + 1 < tokens ? lanes : NONE;
            const bfloat16* even = value + token * stride + i;
            store_units(to + token / 2 * row + i, load_halves(even, lanes) | load_halves(even + stride, second) << 16);
        }
    }
}

// Products by tiles take 32 tokens at a time: the places of those that are not there yet must add nothing. An odd `begin`
// shares its unit with the token before it, and is not cleared.
template <class Dtype>
inline void clear_values(uint32_t* to, size_t begin, size_t size) {
    if constexpr (!Dtype::AMX) return;
    const size_t row = round_up(size, WIDTH), first = (begin + 1) / 2, last = round_up(begin + 1, 2 * EDGE) / 2;
    std::memset(to + first * row, 0, (last - first) * row * sizeof(uint32_t));
}

// One head of one sequence: `count` queries, the first of which sees `visible` keys, each next one more when causal.
template <class Number>
struct Head {
    const Number* queries;  // [count, size], `stride` numbers from row to row
    Number* output;         // [count, size], `output_stride` numbers from row to row
    size_t stride, output_stride, count, size, keys, visible;
    bool causal;
    float scale;
    const float* bias = nullptr;  // bias[key - query's place] is added to scores that are yet to be scaled; null: nothing
    size_t window = 0;            // keys that a query sees, its own the last; 0: all of them
    size_t place = 0, step = 1;   // of the first query among the keys, and from row to row: 0 where rows are heads

    size_t seen(size_t row) const { return causal ? visible + row : keys; }
    size_t first(size_t row) const {  // of the keys that a query sees
        const size_t end = place + row * step + 1;
        return window && end > window ? end - window : 0;
    }
};

// Every weight stays as it is: no dropout.
struct Stays {
    Floats operator()(size_t, size_t, Floats weight) const { return weight; }
};

// Queries that are taken together, and the float32 of scratch that `attend` needs for so many keys: scores, weights, and
// what the last weights' vector writes behind them.
template <class Dtype>
constexpr size_t QUERIES = Dtype::AMX ? 2 * EDGE : size_t(ROWS);
template <class Dtype>
inline size_t attention_scratch(size_t keys) {
    return 2 * QUERIES<Dtype> * round_up(keys, PAGE) + WIDTH;
}

// The weights of a query that sees `seen` keys, not yet divided by their sum; `most` numbers are written, zeros behind
// those seen. Returns one over the sum. scale: of scores, times log₂ e, because e^x = 2^(x · log₂ e).
template <int EXACT, class Number, class Drop>
inline float soften(const float* scores, float scale, size_t seen, size_t most, Number* weights, const Drop& drop) {
    Floats largest = splat(-std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < seen; i += WIDTH) {
        const Lanes lanes = first_lanes(seen - i);
        largest = choose(lanes, larger(largest, load(scores + i, lanes)), largest);
    }
    const Floats most_likely = splat(maximum(largest) * scale);
    Floats total = splat(0.0f);
    size_t i = 0;
    for (; i < seen; i += WIDTH) {
        const Lanes lanes = first_lanes(seen - i);
        const Floats power = fused_less(load(scores + i, lanes), splat(scale), most_likely);
        const Floats weight = only(lanes, exp2<EXACT>(power));
        total += weight;
        store(weights + i, drop(i, weight));
    }
    for (; i < most; i += WIDTH) store(weights + i, splat(0.0f));
    return 1.0f / sum(total);
}

// The weights of a query, as `soften` gives them: `most` numbers from key `begin` on, of which those it does not see are 0.
template <int EXACT, class Number, class Drop>
inline float weigh(const Head<Number>& head, size_t row, size_t begin, size_t most, float* scores, Number* weights,
                   const Drop& drop) {
    const size_t seen = head.seen(row), first = head.first(row);
    if (head.bias) {
        const float* bias = head.bias - (head.place + row * head.step);
        for (size_t i = first; i < seen; i += WIDTH) {
            const Lanes lanes = first_lanes(seen - i);
            store(scores + i, load(scores + i, lanes) + load(bias + i, lanes), lanes);
        }
    }
    std::fill(weights + begin, weights + first, Number());
    return soften<EXACT>(scores + first, head.scale * 1.44269504f, seen - first, most - first, weights + first,
                         [&](size_t key, Floats weight) { return drop(row, first + key, weight); });
}

// By tiles, for heads that are whole ones. Queries are read up to a whole number of tiles.
template <class Dtype, class Drop>
inline void attend_by_tiles(const Head<typename Dtype::Number>& head, const Page* pages, float* scratch, const Drop& drop) {
    using Number = typename Dtype::Number;
    const size_t places = round_up(head.keys, PAGE), units = head.size / Dtype::PER_UNIT;
    auto* weights = reinterpret_cast<Number*>(scratch + QUERIES<Dtype> * places);
    const auto* queries = reinterpret_cast<const uint32_t*>(head.queries);
    // A tile has sixteen rows whatever is in them: where there is one query, all are that one, and nothing else is read.
    const size_t query_stride = head.count == 1 ? 0 : head.stride / Dtype::PER_UNIT;
    const size_t weight_stride = head.count == 1 ? 0 : places / Dtype::PER_UNIT;
    alignas(64) float output[QUERIES<Dtype>][2 * EDGE];
    for (size_t row = 0; row < head.count; row += QUERIES<Dtype>) {
        const size_t have = std::min(QUERIES<Dtype>, head.count - row);
        const size_t most = head.seen(row + have - 1), begin = head.first(row) / PAGE * PAGE;  // keys that some row sees
        with_constant<2>(have > EDGE ? 2 : 1, [&](auto tiles) {
            constexpr int R = decltype(tiles)::value;
            for (size_t first = begin; first < most; first += PAGE) {
                const Page& page = pages[first / PAGE];
                for (size_t c = 0; c < std::min(PAGE, most - first); c += 2 * EDGE) {
                    with_constant<2>(most - first - c > EDGE ? 2 : 1, [&](auto columns) {
                        using Sums = amx::Sums<Dtype, R, decltype(columns)::value>;
                        Sums::clear();
                        Sums::add(queries + row * query_stride, query_stride, page.keys + c, page.width, units);
                        Sums::keep(scratch + first + c, places);
                    });
                }
            }
            float inverse[QUERIES<Dtype>];
            for (size_t r = 0; r < have; ++r)
                inverse[r] = weigh<5>(head, row + r, begin, round_up(most, 2 * EDGE), scratch + r * places,
                                      weights + r * places, drop);
            for (size_t first = 0; first < head.size; first += 2 * EDGE) {
                using Sums = amx::Sums<Dtype, R, 2>;
                Sums::clear();
                for (size_t key = begin; key < most; key += PAGE) {
                    const size_t steps = round_up(std::min(PAGE, most - key), 2 * EDGE) / Dtype::PER_UNIT;
                    Sums::add(reinterpret_cast<const uint32_t*>(weights + key), weight_stride,
                              pages[key / PAGE].values + first, head.size, steps);
                }
                Sums::keep(output, 2 * EDGE);
                for (size_t r = 0; r < have; ++r)
                    for (size_t c = 0; c < 2 * EDGE; c += WIDTH)
                        store(head.output + (row + r) * head.output_stride + first + c,
                              load(output[r] + c) * splat(inverse[r]));
            }
        });
    }
}

// Scores and weights of some queries live in `scratch`. drop(query, key, sixteen weights) is what dropout leaves of weights.
template <class Dtype, class Drop = Stays>
inline void attend(const Head<typename Dtype::Number>& head, const Page* pages, float* scratch, const Drop& drop = {}) {
    using Number = typename Dtype::Number;
    constexpr int EXACT = sizeof(Number) == 4 ? 8 : 5;
    if constexpr (Dtype::AMX) {
        if (head.size % (2 * EDGE) == 0) return attend_by_tiles<Dtype>(head, pages, scratch, drop);
    }
    const size_t places = round_up(head.keys, PAGE), row_size = round_up(head.size, WIDTH);
    auto* weights = reinterpret_cast<Number*>(scratch + QUERIES<Dtype> * places);
    const auto* queries = reinterpret_cast<const uint32_t*>(head.queries);
    const size_t query_stride = head.stride / Dtype::PER_UNIT, weight_stride = places / Dtype::PER_UNIT;
    for (size_t row = 0; row < head.count; row += ROWS) {
        with_constant<ROWS>(int(std::min(size_t(ROWS), head.count - row)), [&](auto block) {
            constexpr int R = decltype(block)::value;
            const size_t most = head.seen(row + R - 1), begin = head.first(row) / PAGE * PAGE;  // keys that some row sees
            for (size_t first = begin; first < most; first += PAGE) {
                const Page& page = pages[first / PAGE];
                with_columns<R>(std::min(PAGE, most - first), [&](size_t column, auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    Floats sums[R][C] = {};
                    add_dots<Dtype, R, C>(queries + row * query_stride, query_stride, 1, page.keys + column, page.width,
                                          head.size / Dtype::PER_UNIT, sums);
                    each_sum<R, C>([&](int r, int c) {
                        store(scratch + r * places + first + column + c * WIDTH, sums[r][c]);
                    });
                });
            }
            float inverse[R];
            for (int r = 0; r < R; ++r)
                inverse[r] = weigh<EXACT>(head, row + r, begin, round_up(most, WIDTH), scratch + r * places,
                                          weights + r * places, drop);
            with_columns<R>(head.size, [&](size_t first, auto vectors) {
                constexpr int C = decltype(vectors)::value;
                Floats sums[R][C] = {};
                for (size_t key = begin; key < most; key += PAGE) {
                    const size_t steps = (std::min(PAGE, most - key) + Dtype::PER_UNIT - 1) / Dtype::PER_UNIT;
                    add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(weights + key), weight_stride, 1,
                                          pages[key / PAGE].values + first, row_size, steps, sums);
                }
                each_sum<R, C>([&](int r, int c) {
                    store(head.output + (row + r) * head.output_stride + first + c * WIDTH,
                          sums[r][c] * splat(inverse[r]), first_lanes(head.size - first - c * WIDTH));
                });
            });
        });
    }
}
