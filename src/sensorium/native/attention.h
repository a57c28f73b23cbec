// softmax(q·Kᵀ · scale) · V for one head of one sequence: the keys and the values are packed as the weights of two
// products are, in pages of 64 tokens.
#pragma once

#include <cmath>
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

// Pack a whole run of tokens, from 0: keys as [units of a head][width], sixteen numbers of a value at a time.
template <class Dtype>
inline void put_keys(uint32_t* to, size_t width, size_t tokens, const typename Dtype::Number* key, size_t stride,
                     size_t size) {
    for (size_t token = 0; token < tokens; ++token) {
        const auto* units = reinterpret_cast<const uint32_t*>(key + token * stride);
        for (size_t unit = 0; unit < size / Dtype::PER_UNIT; ++unit) to[unit * width + token] = units[unit];
    }
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
            const __mmask16 lanes = first_lanes(size - i), second = token + 1 < tokens ? lanes : 0;
            const bfloat16* even = value + token * stride + i;
            const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, even));
            const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, even + stride));
            _mm512_storeu_si512(to + token / 2 * row + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

// One head of one sequence: `count` queries, the first of which sees `visible` keys, each next one more when causal.
template <class Number>
struct Head {
    const Number* queries;  // [count, size], `stride` numbers from row to row
    Number* output;         // [count, size], `output_stride` numbers from row to row
    size_t stride, output_stride, count, size, keys, visible;
    bool causal;
    float scale;
};

// Every weight stays as it is: no dropout.
struct Stays {
    Floats operator()(size_t, size_t, Floats weight) const { return weight; }
};

// Scores and weights of six queries live in `scratch`: ROWS · round_up(keys, 64) float32, twice. drop(query, key, sixteen
// weights) is what dropout leaves of weights.
template <class Dtype, class Drop = Stays>
inline void attend(const Head<typename Dtype::Number>& head, const Page* pages, float* scratch, const Drop& drop = {}) {
    using Number = typename Dtype::Number;
    constexpr int EXACT = sizeof(Number) == 4 ? 8 : 5;
    const size_t places = round_up(head.keys, PAGE), row_size = round_up(head.size, WIDTH);
    auto* weights = reinterpret_cast<Number*>(scratch + ROWS * places);
    const auto* queries = reinterpret_cast<const uint32_t*>(head.queries);
    const size_t query_stride = head.stride / Dtype::PER_UNIT, weight_stride = places / Dtype::PER_UNIT;
    const Floats scale = splat(head.scale * 1.44269504f);  // e^x = 2^(x · log₂ e)
    for (size_t row = 0; row < head.count; row += ROWS) {
        with_constant<ROWS>(int(std::min(size_t(ROWS), head.count - row)), [&](auto block) {
            constexpr int R = decltype(block)::value;
            const size_t most = head.causal ? head.visible + row + R - 1 : head.keys;  // keys that the last row sees
            for (size_t first = 0; first < most; first += PAGE) {
                const Page& page = pages[first / PAGE];
                with_constant<PAGE / WIDTH>(int((std::min(PAGE, most - first) + WIDTH - 1) / WIDTH), [&](auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    __m512 sums[R][C] = {};
                    add_dots<Dtype, R, C>(queries + row * query_stride, query_stride, 1, page.keys, page.width,
                                          head.size / Dtype::PER_UNIT, sums);
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c) store(scratch + r * places + first + c * WIDTH, sums[r][c] * scale);
                });
            }
            float inverse[R];
            for (int r = 0; r < R; ++r) {
                const size_t seen = head.causal ? head.visible + row + r : head.keys;
                const float* scores = scratch + r * places;
                Floats largest = splat(-std::numeric_limits<float>::infinity());
                for (size_t i = 0; i < seen; i += WIDTH) {
                    const __mmask16 lanes = first_lanes(seen - i);
                    largest = _mm512_mask_max_ps(largest, lanes, largest, load(scores + i, lanes));
                }
                const Floats most_likely = splat(maximum(largest));
                Floats total = splat(0.0f);
                size_t i = 0;
                for (; i < seen; i += WIDTH) {
                    const __mmask16 lanes = first_lanes(seen - i);
                    const Floats weight = _mm512_maskz_mov_ps(lanes, exp2<EXACT>(load(scores + i, lanes) - most_likely));
                    total += weight;
                    store(weights + r * places + i, drop(row + r, i, weight));
                }
                for (; i < round_up(most, WIDTH); i += WIDTH) store(weights + r * places + i, splat(0.0f));
                inverse[r] = 1.0f / sum(total);
            }
            for (size_t first = 0; first < head.size; first += PANEL) {
                const size_t width = std::min(PANEL, head.size - first);
                with_constant<PANEL / WIDTH>(int((width + WIDTH - 1) / WIDTH), [&](auto vectors) {
                    constexpr int C = decltype(vectors)::value;
                    __m512 sums[R][C] = {};
                    for (size_t key = 0; key < most; key += PAGE) {
                        const size_t steps = (std::min(PAGE, most - key) + Dtype::PER_UNIT - 1) / Dtype::PER_UNIT;
                        add_dots<Dtype, R, C>(reinterpret_cast<const uint32_t*>(weights + key), weight_stride, 1,
                                              pages[key / PAGE].values + first, row_size, steps, sums);
                    }
                    for (int r = 0; r < R; ++r)
                        for (int c = 0; c < C; ++c)
                            store(head.output + (row + r) * head.output_stride + first + c * WIDTH,
                                  sums[r][c] * splat(inverse[r]), first_lanes(head.size - first - c * WIDTH));
                });
            }
        });
    }
}
