// Attention of one head of one whole sequence to itself, or to the vectors of another, backwards. Weights are worked out again from queries and keys (as Dao et al.,
// 2022).
#pragma once

#include <utility>

#include "backward.h"

// One head, backwards: `count` queries and `keys` keys; as many, where it is causal.
template <class Number>
struct HeadGradient {
    const Number *query, *key, *value;  // [count, size], `stride` numbers apart; [keys, size], `key_stride` apart
    const Number *output, *gradient;    // [count, size], `output_stride` apart: what attention gave, and its gradient
    Number *query_gradient, *key_gradient, *value_gradient;  // as query, key, value
    size_t stride, key_stride, output_stride, count, keys, size;
    bool causal;
    float scale;
};

// Units of scratch that `attend_backward` takes for so many queries and keys of a head.
template <class Dtype>
inline size_t backward_scratch(size_t count, size_t keys, size_t size) {
    const size_t width = round_up(keys, PANEL), key_steps = width / Dtype::PER_UNIT, row = round_up(size, WIDTH);
    const size_t steps = round_up(count, PANEL) / Dtype::PER_UNIT;
    return 2 * size * width + (key_steps + 2 * steps) * row + 2 * steps * width + 3 * QUERIES<Dtype> * width;
}

// What the way back needs of one head: its rows as columns and zipped, weights and their slopes, and scratch for some
// queries.
template <class Dtype>
struct HeadScratch {
    using Number = typename Dtype::Number;
    uint32_t *keys, *values;                  // [units of a head][width]
    uint32_t* key_rows;                       // [width / PER_UNIT][head size up to a multiple of sixteen]
    uint32_t *query_rows, *gradient_rows;     // [steps][the same]
    uint32_t *weights, *slopes;               // of all queries
    float *scores, *wanted;                   // [QUERIES, width]
    Number* rows;                             // [QUERIES, width]
    const size_t width, steps, row_size;      // width: of keys; steps: of queries

    HeadScratch(const HeadGradient<Number>& head, uint32_t* scratch)
        : width(round_up(head.keys, PANEL)), steps(round_up(head.count, PANEL) / Dtype::PER_UNIT),
          row_size(round_up(head.size, WIDTH)) {
        const auto take = [&](size_t number) { return std::exchange(scratch, scratch + number); };
        keys = take(head.size * width), values = take(head.size * width);
        key_rows = take(width / Dtype::PER_UNIT * row_size);
        query_rows = take(steps * row_size), gradient_rows = take(steps * row_size);
        weights = take(steps * width), slopes = take(steps * width);
        scores = reinterpret_cast<float*>(take(QUERIES<Dtype> * width));
        wanted = reinterpret_cast<float*>(take(QUERIES<Dtype> * width));
        rows = reinterpret_cast<Number*>(take(QUERIES<Dtype> * width));
        put_keys<Dtype>(keys, width, head.keys, head.key, head.key_stride, head.size);
        put_keys<Dtype>(values, width, head.keys, head.value, head.key_stride, head.size);
        put_values(key_rows, head.keys, head.key, head.key_stride, head.size);
        put_values(query_rows, head.count, head.query, head.stride, head.size);
        put_values(gradient_rows, head.count, head.gradient, head.output_stride, head.size);
    }
};

// One query's scores → its weights after dropout, and dP → dS = P·(dP - D) with D = Σ dO·O, times the scale of scores;
// zeros behind the keys that it sees.
template <int EXACT, class Number, class Drop>
inline void weights_and_slopes(const HeadGradient<Number>& head, size_t row, size_t width, float* score, float* want,
                               const Drop& drop) {
    const size_t seen = head.causal ? row + 1 : head.keys;
    const Number *output = head.output + row * head.output_stride, *gradient = head.gradient + row * head.output_stride;
    Floats along = splat(0.0f), largest = splat(-std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < head.size; i += WIDTH)
        along += load(output + i, first_lanes(head.size - i)) * load(gradient + i, first_lanes(head.size - i));
    for (size_t i = 0; i < seen; i += WIDTH)
        largest = choose(first_lanes(seen - i), larger(largest, load(score + i)), largest);
    const Floats to_log2 = splat(head.scale * 1.44269504f), top = splat(maximum(largest)) * to_log2, mean = splat(sum(along));
    Floats total = splat(0.0f);
    for (size_t i = 0; i < seen; i += WIDTH) {
        const Floats power = fused_less(load(score + i), to_log2, top);
        const Floats weight = only(first_lanes(seen - i), exp2<EXACT>(power));
        total += weight;
        store(score + i, weight);
    }
    const Floats inverse = splat(1.0f / sum(total)), scale = splat(head.scale);
    size_t i = 0;
    for (; i < seen; i += WIDTH) {
        const Floats weight = load(score + i) * inverse;
        const Floats slope = weight * (drop(row, i, load(want + i)) - mean) * scale;
        store(score + i, drop(row, i, weight));
        store(want + i, only(first_lanes(seen - i), slope));
    }
    for (; i < width; i += WIDTH) store(score + i, splat(0.0f)), store(want + i, splat(0.0f));
}

// By tiles, for heads that are whole ones; rows of queries and gradients are read up to a whole number of tiles.
template <class Dtype, class Drop>
inline void attend_backward_by_tiles(const HeadGradient<typename Dtype::Number>& head, const HeadScratch<Dtype>& s,
                                     const Drop& drop) {
    using Number = typename Dtype::Number;
    using Sums = amx::Sums<Dtype, 2, 2>;
    constexpr size_t SIDE = QUERIES<Dtype>;
    const size_t count = head.count, keys = head.keys, units = head.size / 2;
    const size_t whole = round_up(count, SIDE), whole_keys = round_up(keys, SIDE);
    if (keys < whole_keys) clear_values<Dtype>(s.key_rows, keys, head.size);
    for (uint32_t* rows : {s.query_rows, s.gradient_rows})
        if (count < whole) clear_values<Dtype>(rows, count, head.size);
    alignas(64) float result[SIDE][SIDE];
    const auto give = [&](Number* to, size_t stride, size_t have) {  // the sums as numbers
        Sums::keep(result, SIDE);
        for (size_t r = 0; r < std::min(SIDE, have); ++r) convert_row(result[r], SIDE, to + r * stride);
    };
    for (size_t row = 0; row < count; row += SIDE) {
        const size_t have = std::min(SIDE, count - row);
        const size_t most = head.causal ? row + SIDE : whole_keys;  // keys that these queries see
        const auto times = [&](const Number* a, size_t stride, const uint32_t* b, float* to) {
            for (size_t first = 0; first < most; first += SIDE) {
                Sums::clear();
                Sums::add(reinterpret_cast<const uint32_t*>(a), stride / 2, b + first, s.width, units);
                Sums::keep(to + first, s.width);
            }
        };
        times(head.query + row * head.stride, head.stride, s.keys, s.scores);
        times(head.gradient + row * head.output_stride, head.output_stride, s.values, s.wanted);
        for (size_t r = 0; r < SIDE; ++r) {
            float *score = s.scores + r * s.width, *want = s.wanted + r * s.width;
            if (r < have) weights_and_slopes<5>(head, row + r, most, score, want, drop);
            else std::fill_n(score, most, 0.0f), std::fill_n(want, most, 0.0f);
            convert_row(want, most, s.rows + r * s.width);
        }
        const auto turn = [&](const float* from, uint32_t* to) {  // [queries, keys] → a key's queries as a row of units
            for (size_t key = 0; key < most; key += WIDTH) {
                Integers block[WIDTH];
#pragma GCC unroll 16
                for (size_t r = 0; r < WIDTH; ++r)
                    block[r] = zip<Dtype>(load(from + 2 * r * s.width + key), load(from + (2 * r + 1) * s.width + key));
                transpose(block);
#pragma GCC unroll 16
                for (size_t k = 0; k < WIDTH; ++k) store_units(to + (key + k) * s.steps + row / 2, block[k]);
            }
        };
        turn(s.scores, s.weights);
        turn(s.wanted, s.slopes);
        for (size_t first = 0; first < head.size; first += SIDE) {
            Sums::clear();
            Sums::add(reinterpret_cast<const uint32_t*>(s.rows), s.width / 2, s.key_rows + first, s.row_size, most / 2);
            give(head.query_gradient + row * head.stride + first, head.stride, have);
        }
    }
    for (size_t key = 0; key < keys; key += SIDE) {
        const size_t begin = head.causal ? key / 2 : 0;  // earlier queries do not see these keys
        for (size_t first = 0; first < head.size; first += SIDE) {
            const auto over_queries = [&](const uint32_t* a, const uint32_t* b, Number* to) {
                Sums::clear();
                Sums::add(a + key * s.steps + begin, s.steps, b + begin * s.row_size + first, s.row_size, whole / 2 - begin);
                give(to + key * head.key_stride + first, head.key_stride, keys - key);
            };
            over_queries(s.slopes, s.query_rows, head.key_gradient);
            over_queries(s.weights, s.gradient_rows, head.value_gradient);
        }
    }
}

// Weights are worked out again from queries and keys (as Dao et al., 2022), then with dP = dO·Vᵀ:
// dQ = dS·K, dK = dSᵀ·Q, dV = Pᵀ·dO. drop(query, key, sixteen numbers) is the dropout of the way there.
template <class Dtype, class Drop>
inline void attend_backward(const HeadGradient<typename Dtype::Number>& head, uint32_t* scratch, const Drop& drop) {
    using Number = typename Dtype::Number;
    constexpr int EXACT = sizeof(Number) == 4 ? 8 : 5;
    constexpr size_t PER = Dtype::PER_UNIT;
    const HeadScratch<Dtype> s(head, scratch);
    if constexpr (Dtype::AMX) {
        if (head.size % (2 * EDGE) == 0) return attend_backward_by_tiles<Dtype>(head, s, drop);
    }
    const size_t count = head.count, keys = head.keys, size = head.size, width = s.width, row_size = s.row_size;
    const size_t units = size / PER;
    for (size_t row = 0; row < count; row += ROWS) {
        with_constant<ROWS>(int(std::min(size_t(ROWS), count - row)), [&](auto block) {
            constexpr int R = decltype(block)::value;
            const size_t most = head.causal ? row + R : keys;  // keys that the last of these queries sees
            const auto times = [&](const Number* a, size_t stride, const uint32_t* b, float* to) {
                with_columns<R>(most, [&](size_t first, auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    Floats sums[R][C] = {};
                    add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(a), stride / PER, 1, b + first, width, units,
                                          sums);
                    each_sum<R, C>([&](int r, int c) { store(to + r * width + first + c * WIDTH, sums[r][c]); });
                });
            };
            times(head.query + row * head.stride, head.stride, s.keys, s.scores);
            times(head.gradient + row * head.output_stride, head.output_stride, s.values, s.wanted);
            for (int r = 0; r < R; ++r) {
                weights_and_slopes<EXACT>(head, row + r, width, s.scores + r * width, s.wanted + r * width, drop);
                convert_row(s.wanted + r * width, round_up(most, WIDTH), s.rows + r * width);
            }
            for (int r = 0; r < R; r += int(PER)) {
                const bool pair = PER == 2 && r + 1 < R;
                const auto zipped = [&](const float* from, uint32_t* to) {
                    for (size_t i = 0; i < width; i += WIDTH) {
                        const Floats odd = pair ? load(from + (r + 1) * width + i) : splat(0.0f);
                        store_units(to + (row + r) / PER * width + i, zip<Dtype>(load(from + r * width + i), odd));
                    }
                };
                zipped(s.scores, s.weights);
                zipped(s.wanted, s.slopes);
            }
            with_columns<R>(size, [&](size_t first, auto vectors) {
                constexpr int C = decltype(vectors)::value;
                Floats sums[R][C] = {};
                add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(s.rows), width / PER, 1, s.key_rows + first,
                                      row_size, (most + PER - 1) / PER, sums);
                each_sum<R, C>([&](int r, int c) {
                    store(head.query_gradient + (row + r) * head.stride + first + c * WIDTH, sums[r][c],
                          first_lanes(size - first - c * WIDTH));
                });
            });
        });
    }
    const size_t all = (count + PER - 1) / PER;
    const auto over_queries = [&](const uint32_t* a, const uint32_t* b, Number* to) {
        for (size_t key = 0; key < keys; key += ROWS) {
            with_constant<ROWS>(int(std::min(size_t(ROWS), keys - key)), [&](auto block) {
                constexpr int R = decltype(block)::value;
                const size_t begin = head.causal ? key / PER : 0;  // earlier queries do not see these keys
                with_columns<R>(size, [&](size_t first, auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    Floats sums[R][C] = {};
                    add_dots<Dtype, R, C>(a + begin * width + key, 1, width, b + begin * row_size + first, row_size,
                                          all - begin, sums);
                    each_sum<R, C>([&](int r, int c) {
                        store(to + (key + r) * head.key_stride + first + c * WIDTH, sums[r][c],
                              first_lanes(size - first - c * WIDTH));
                    });
                });
            });
        }
    };
    over_queries(s.slopes, s.query_rows, head.key_gradient);
    over_queries(s.weights, s.gradient_rows, head.value_gradient);
}
