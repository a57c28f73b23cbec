// What gradients need beside products with transposed weights: rows zipped for products over rows, LayerNorm backwards,
// attention backwards.
#pragma once

#include <cmath>
#include <utility>

#include "attention.h"

// Two rows' numbers as units of a product over rows (bfloat16); one row's as they are (float32).
template <class Dtype>
inline __m512i zip(Floats even, Floats odd) {
    if constexpr (Dtype::PER_UNIT == 1) return _mm512_castps_si512(even);
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
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
                    const __mmask16 lanes = first_lanes(columns - column);
                    const bool pair = Dtype::PER_UNIT == 2 && row + 1 < count;
                    const Floats even = read(row, column, lanes);
                    const Floats odd = pair ? read(row + 1, column, lanes) : splat(0.0f);
                    totals[c] += even + odd;
                    _mm512_storeu_si512(place + c * WIDTH, zip<Dtype>(even, odd));
                }
            }
            if (!sums) return;
            for (int c = 0; c < C; ++c) {
                float* sum = sums + first + c * WIDTH;
                const __mmask16 lanes = first_lanes(columns - first - c * WIDTH);
                store(sum, load(sum, lanes) + totals[c], lanes);
            }
        });
    }
}

constexpr size_t STEPS = 256;  // of a product over rows at a time: a panel of that many lies in the nearest caches

// gradient[n][k] (+)= Σ_step a[step][n] · b[step][k] for `outputs` columns n of a panel of a, and all `inputs` columns k
// of b, from `step` on; `more`: add to what is there.
template <class Dtype>
inline void add_weight_gradient(const Zipped& a, size_t panel, size_t outputs, const Zipped& b, size_t inputs, size_t step,
                                size_t steps, bool more, float* gradient) {
    for (size_t first = 0; first < inputs; first += PANEL) {
        const uint32_t* columns = b.panel(first / PANEL, step);
        const size_t width = std::min(PANEL, inputs - first);
        with_constant<PANEL / WIDTH>(int((width + WIDTH - 1) / WIDTH), [&](auto vectors) {
            constexpr int C = decltype(vectors)::value;
            for (size_t n = 0; n < outputs; n += ROWS) {
                with_constant<ROWS>(int(std::min(size_t(ROWS), outputs - n)), [&](auto block) {
                    constexpr int R = decltype(block)::value;
                    __m512 sums[R][C];
                    const auto place = [&](int r, int c) { return gradient + (n + r) * inputs + first + c * WIDTH; };
                    const auto lanes = [&](int c) { return first_lanes(inputs - first - c * WIDTH); };
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c) sums[r][c] = more ? load(place(r, c), lanes(c)) : splat(0.0f);
                    add_dots<Dtype, R, C>(a.panel(panel, step) + n, 1, PANEL, columns, PANEL, steps, sums);
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c) store(place(r, c), sums[r][c], lanes(c));
                });
            }
        });
    }
}

// The same by tiles, for whole ones: the panel of a is turned around first, so that a column's steps are a row.
template <class Dtype>
inline void add_weight_gradient_by_tiles(const Zipped& a, size_t panel, size_t outputs, const Zipped& b, size_t inputs,
                                         size_t step, size_t steps, bool more, float* gradient) {
    using Sums = amx::Sums<Dtype, 2, 2>;
    alignas(64) static thread_local uint32_t rows[PANEL * STEPS];
    transpose(a.panel(panel, step), PANEL, steps, outputs, rows, STEPS);
    for (size_t first = 0; first < inputs; first += 2 * EDGE) {
        const uint32_t* columns = b.panel(first / PANEL, step) + first % PANEL;
        for (size_t n = 0; n < outputs; n += 2 * EDGE) {
            float* place = gradient + n * inputs + first;
            if (more) Sums::take(place, inputs);
            else Sums::clear();
            Sums::add(rows + n * STEPS, STEPS, columns, PANEL, steps);
            Sums::keep(place, inputs);
        }
    }
}

// gradient[n][k] = Σ_row a[row][n] · b[row][k] for the outputs n of some panels of a, and all `inputs` k of b. The panels
// take turns, so that they find the same rows of b in a cache.
template <class Dtype>
inline void weight_gradient(const Zipped& a, size_t first, size_t last, size_t outputs, const Zipped& b, size_t inputs,
                            float* gradient) {
    constexpr auto add = [](auto... arguments) {
        if constexpr (Dtype::AMX) add_weight_gradient_by_tiles<Dtype>(arguments...);
        else add_weight_gradient<Dtype>(arguments...);
    };
    for (size_t step = 0; step < a.steps; step += STEPS) {
        const size_t steps = std::min(STEPS, a.steps - step);
        for (size_t panel = first; panel < last; ++panel)
            add(a, panel, std::min(PANEL, outputs - panel * PANEL), b, inputs, step, steps, step > 0,
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
        const __mmask16 lanes = first_lanes(size - i);
        const Floats away = _mm512_maskz_sub_ps(lanes, load(row + i, lanes), splat(mean));
        squares += away * away;
    }
    *inverse = 1.0f / std::sqrt(sum(squares) / float(size) + epsilon);
    for (size_t i = 0; i < size; i += WIDTH) {
        const __mmask16 lanes = first_lanes(size - i);
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
        const __mmask16 lanes = first_lanes(size - i);
        const Floats g = load(gradient + i, lanes), x = load(normal + i, lanes), scaled = g * load(weight + i, lanes);
        total += scaled;
        along += scaled * x;
        store(weight_sums + i, load(weight_sums + i, lanes) + g * x, lanes);
        store(bias_sums + i, load(bias_sums + i, lanes) + g, lanes);
    }
    const Floats mean = splat(sum(total) / float(size)), share = splat(sum(along) / float(size));
    for (size_t i = 0; i < size; i += WIDTH) {
        const __mmask16 lanes = first_lanes(size - i);
        const Floats scaled = load(gradient + i, lanes) * load(weight + i, lanes);
        store(gradient + i, (scaled - mean - load(normal + i, lanes) * share) * splat(inverse), lanes);
    }
}

// One head of one whole sequence, backwards: rows of `count` tokens, `stride` numbers apart.
template <class Number>
struct HeadGradient {
    const Number *query, *key, *value;  // [count, size], `stride` apart
    const Number *output, *gradient;    // [count, size], `output_stride` apart: what attention gave, and its gradient
    Number *query_gradient, *key_gradient, *value_gradient;  // as query, key, value
    size_t stride, output_stride, count, size;
    bool causal;
    float scale;
};

// Units of scratch that `attend_backward` takes for so many tokens of a head.
template <class Dtype>
inline size_t backward_scratch(size_t count, size_t size) {
    const size_t width = round_up(count, PANEL), steps = width / Dtype::PER_UNIT, row = round_up(size, WIDTH);
    return 2 * size * width + 3 * steps * row + 2 * steps * width + 3 * QUERIES<Dtype> * width;
}

// What the way back needs of one head: its rows as columns and zipped, weights and their slopes, and scratch for some
// queries.
template <class Dtype>
struct HeadScratch {
    using Number = typename Dtype::Number;
    uint32_t *keys, *values;                                // [units of a head][width]
    uint32_t *key_rows, *query_rows, *gradient_rows;        // [steps][head size up to a multiple of sixteen]
    uint32_t *weights, *slopes;                             // of all queries
    float *scores, *wanted;                                 // [QUERIES, width]
    Number* rows;                                           // [QUERIES, width]
    const size_t width, steps, row_size;

    HeadScratch(const HeadGradient<Number>& head, uint32_t* scratch)
        : width(round_up(head.count, PANEL)), steps(width / Dtype::PER_UNIT), row_size(round_up(head.size, WIDTH)) {
        const auto take = [&](size_t number) { return std::exchange(scratch, scratch + number); };
        keys = take(head.size * width), values = take(head.size * width);
        key_rows = take(steps * row_size), query_rows = take(steps * row_size), gradient_rows = take(steps * row_size);
        weights = take(steps * width), slopes = take(steps * width);
        scores = reinterpret_cast<float*>(take(QUERIES<Dtype> * width));
        wanted = reinterpret_cast<float*>(take(QUERIES<Dtype> * width));
        rows = reinterpret_cast<Number*>(take(QUERIES<Dtype> * width));
        put_keys<Dtype>(keys, width, head.count, head.key, head.stride, head.size);
        put_keys<Dtype>(values, width, head.count, head.value, head.stride, head.size);
        put_values(key_rows, head.count, head.key, head.stride, head.size);
        put_values(query_rows, head.count, head.query, head.stride, head.size);
        put_values(gradient_rows, head.count, head.gradient, head.output_stride, head.size);
    }
};

// One query's scores → its weights after dropout, and dP → dS = P·(dP - D) with D = Σ dO·O, times the scale of scores;
// zeros behind the keys that it sees.
template <int EXACT, class Number, class Drop>
inline void weights_and_slopes(const HeadGradient<Number>& head, size_t row, size_t width, float* score, float* want,
                               const Drop& drop) {
    const size_t seen = head.causal ? row + 1 : head.count;
    const Number *output = head.output + row * head.output_stride, *gradient = head.gradient + row * head.output_stride;
    Floats along = splat(0.0f), largest = splat(-std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < head.size; i += WIDTH)
        along += load(output + i, first_lanes(head.size - i)) * load(gradient + i, first_lanes(head.size - i));
    for (size_t i = 0; i < seen; i += WIDTH)
        largest = _mm512_mask_max_ps(largest, first_lanes(seen - i), largest, load(score + i));
    const Floats to_log2 = splat(head.scale * 1.44269504f), top = splat(maximum(largest)) * to_log2, mean = splat(sum(along));
    Floats total = splat(0.0f);
    for (size_t i = 0; i < seen; i += WIDTH) {
        const Floats power = _mm512_fmsub_ps(load(score + i), to_log2, top);
        const Floats weight = _mm512_maskz_mov_ps(first_lanes(seen - i), exp2<EXACT>(power));
        total += weight;
        store(score + i, weight);
    }
    const Floats inverse = splat(1.0f / sum(total)), scale = splat(head.scale);
    size_t i = 0;
    for (; i < seen; i += WIDTH) {
        const Floats weight = load(score + i) * inverse;
        const Floats slope = weight * (drop(row, i, load(want + i)) - mean) * scale;
        store(score + i, drop(row, i, weight));
        store(want + i, _mm512_maskz_mov_ps(first_lanes(seen - i), slope));
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
    const size_t count = head.count, whole = round_up(count, SIDE), units = head.size / 2;
    for (uint32_t* rows : {s.key_rows, s.query_rows, s.gradient_rows})
        if (count < whole) clear_values<Dtype>(rows, count, head.size);
    alignas(64) float result[SIDE][SIDE];
    const auto give = [&](Number* to, size_t row, size_t first) {  // `result` as numbers
        Sums::keep(result, SIDE);
        for (size_t r = 0; r < std::min(SIDE, count - row); ++r)
            convert_row(result[r], SIDE, to + (row + r) * head.stride + first);
    };
    for (size_t row = 0; row < count; row += SIDE) {
        const size_t have = std::min(SIDE, count - row);
        const size_t most = head.causal ? row + SIDE : whole;  // keys that these queries see
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
                __m512i block[WIDTH];
#pragma GCC unroll 16
                for (size_t r = 0; r < WIDTH; ++r)
                    block[r] = zip<Dtype>(load(from + 2 * r * s.width + key), load(from + (2 * r + 1) * s.width + key));
                transpose(block);
#pragma GCC unroll 16
                for (size_t k = 0; k < WIDTH; ++k) _mm512_storeu_si512(to + (key + k) * s.steps + row / 2, block[k]);
            }
        };
        turn(s.scores, s.weights);
        turn(s.wanted, s.slopes);
        for (size_t first = 0; first < head.size; first += SIDE) {
            Sums::clear();
            Sums::add(reinterpret_cast<const uint32_t*>(s.rows), s.width / 2, s.key_rows + first, s.row_size, most / 2);
            give(head.query_gradient, row, first);
        }
    }
    for (size_t key = 0; key < count; key += SIDE) {
        const size_t begin = head.causal ? key / 2 : 0;  // earlier queries do not see these keys
        for (size_t first = 0; first < head.size; first += SIDE) {
            const auto over_queries = [&](const uint32_t* a, const uint32_t* b, Number* to) {
                Sums::clear();
                Sums::add(a + key * s.steps + begin, s.steps, b + begin * s.row_size + first, s.row_size, whole / 2 - begin);
                give(to, key, first);
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
    const size_t count = head.count, size = head.size, width = s.width, row_size = s.row_size, units = size / PER;
    for (size_t row = 0; row < count; row += ROWS) {
        with_constant<ROWS>(int(std::min(size_t(ROWS), count - row)), [&](auto block) {
            constexpr int R = decltype(block)::value;
            const size_t most = head.causal ? row + R : count;  // keys that the last of these queries sees
            const auto times = [&](const Number* a, size_t stride, const uint32_t* b, float* to) {
                for (size_t first = 0; first < most; first += PANEL) {
                    with_constant<PANEL / WIDTH>(int((std::min(PANEL, most - first) + WIDTH - 1) / WIDTH), [&](auto vectors) {
                        constexpr int C = decltype(vectors)::value;
                        __m512 sums[R][C] = {};
                        add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(a), stride / PER, 1, b + first, width,
                                              units, sums);
                        for (int r = 0; r < R; ++r)
                            for (int c = 0; c < C; ++c) store(to + r * width + first + c * WIDTH, sums[r][c]);
                    });
                }
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
                        _mm512_storeu_si512(to + (row + r) / PER * width + i, zip<Dtype>(load(from + r * width + i), odd));
                    }
                };
                zipped(s.scores, s.weights);
                zipped(s.wanted, s.slopes);
            }
            for (size_t first = 0; first < size; first += PANEL) {
                const size_t columns = std::min(PANEL, size - first);
                with_constant<PANEL / WIDTH>(int((columns + WIDTH - 1) / WIDTH), [&](auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    __m512 sums[R][C] = {};
                    add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(s.rows), width / PER, 1, s.key_rows + first,
                                          row_size, (most + PER - 1) / PER, sums);
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c)
                            store(head.query_gradient + (row + r) * head.stride + first + c * WIDTH, sums[r][c],
                                  first_lanes(size - first - c * WIDTH));
                });
            }
        });
    }
    const size_t all = (count + PER - 1) / PER;
    const auto over_queries = [&](const uint32_t* a, const uint32_t* b, Number* to) {
        for (size_t key = 0; key < count; key += ROWS) {
            with_constant<ROWS>(int(std::min(size_t(ROWS), count - key)), [&](auto block) {
                constexpr int R = decltype(block)::value;
                const size_t begin = head.causal ? key / PER : 0;  // earlier queries do not see these keys
                for (size_t first = 0; first < size; first += PANEL) {
                    const size_t columns = std::min(PANEL, size - first);
                    with_constant<PANEL / WIDTH>(int((columns + WIDTH - 1) / WIDTH), [&](auto vectors) {
                        constexpr int C = decltype(vectors)::value;
                        __m512 sums[R][C] = {};
                        add_dots<Dtype, R, C>(a + begin * width + key, 1, width, b + begin * row_size + first, row_size,
                                              all - begin, sums);
                        for (int r = 0; r < R; ++r)
                            for (int c = 0; c < C; ++c)
                                store(to + (key + r) * head.stride + first + c * WIDTH, sums[r][c],
                                      first_lanes(size - first - c * WIDTH));
                    });
                }
            });
        }
    };
    over_queries(s.slopes, s.query_rows, head.key_gradient);
    over_queries(s.weights, s.gradient_rows, head.value_gradient);
}
