// Weights of 8 and of 4 bits for rows in bfloat16. Decoding does little but read weights, and these are a half and a
// quarter of the bytes. They are widened in registers, once for all rows of a block; both kinds are exact in bfloat16. For
// the matrix unit a panel is widened as a whole.
#pragma once

#include "stack.h"

constexpr size_t GROUP = 32;         // inputs that share a scale and a middle in a column of 4-bit weights
constexpr size_t BYTES_AHEAD = 8192;  // that weights are fetched ahead

struct Int8Weights : Bfloat16 {};
struct Int4Weights : Bfloat16 {};

struct Int8WeightsAmx : Bfloat16Amx {
    static constexpr bool NARROW = true;
};
struct Int4WeightsAmx : Bfloat16Amx {
    static constexpr bool NARROW = true;
};

template <>
struct Between<Int8Weights> {
    using Type = Bfloat16;
};
template <>
struct Between<Int4Weights> {
    using Type = Bfloat16;
};
template <>
struct Between<Int8WeightsAmx> {
    using Type = Bfloat16Amx;
};
template <>
struct Between<Int4WeightsAmx> {
    using Type = Bfloat16Amx;
};

inline void fetch_ahead(const void* from) {
    _mm_prefetch(static_cast<const char*>(from) + BYTES_AHEAD, _MM_HINT_T0);
}

// [steps of two inputs][64 columns][2] signed bytes, then a float32 scale for each column.
template <>
struct Weights<Int8Weights> {
    static size_t units(size_t inputs) { return inputs / 4 * PANEL + PANEL; }

    template <int R, int C>
    [[gnu::always_inline]] static void add(const uint32_t* rows, size_t stride, const uint32_t* panel, size_t inputs,
                                           __m512 (&sums)[R][C]) {
        const auto* bytes = reinterpret_cast<const char*>(panel);
        for (size_t step = 0; step < inputs / 2; ++step, bytes += 2 * PANEL) {
            __m512i weights[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                const auto* place = reinterpret_cast<const __m128i*>(bytes + c * 2 * WIDTH);
                const Floats low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(place)));
                const Floats high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(place + 1)));
                weights[c] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
                if (c % 2 == 0) fetch_ahead(place);
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const __m512i unit = _mm512_set1_epi32(int(rows[r * stride + step]));
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) sums[r][c] = Bfloat16::dot(sums[r][c], unit, weights[c]);
            }
        }
        const auto* scale = reinterpret_cast<const float*>(bytes);
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) sums[r][c] = rounded(sums[r][c] * load(scale + c * WIDTH));
        }
    }
};

// Groups of 32 inputs: [4 octets of inputs][64 columns] units, then for each column a bfloat16 scale, and a bfloat16 middle. A
// unit's lower half holds inputs 0, 2, 4 and 6, from its lowest bits up, its upper half 1, 3, 5 and 7: what is looked up for
// a shifted vector of halves are bfloat16 pairs as they are multiplied. A number n stands for (n - 8) · scale + middle.
template <>
struct Weights<Int4Weights> {
    static constexpr size_t OCTETS = GROUP / 8, GROUP_UNITS = OCTETS * PANEL + PANEL;

    static size_t units(size_t inputs) { return (inputs + GROUP - 1) / GROUP * GROUP_UNITS; }

    template <int R, int C>
    [[gnu::always_inline]] static void add(const uint32_t* rows, size_t stride, const uint32_t* panel, size_t inputs,
                                           __m512 (&sums)[R][C]) {
        const __m512i values = table();
        for (size_t group = 0; group < inputs; group += GROUP, panel += GROUP_UNITS) {
            const size_t rest = std::min(GROUP, inputs - group);
            const uint32_t* units = rows + group / 2;
            __m512 parts[R][C] = {}, totals[R] = {};  // totals: of the rows' inputs, in every lane
            size_t octet = 0;
            for (; octet < rest / 8; ++octet)
                add_octet<4>(units + octet * 4, stride, panel + octet * PANEL, values, parts, totals);
            if (rest % 8) add_octet<2>(units + octet * 4, stride, panel + octet * PANEL, values, parts, totals);  // half of one
            const auto* scale = reinterpret_cast<const bfloat16*>(panel + OCTETS * PANEL);
#pragma GCC unroll 4
            for (int line = 0; line < 4; ++line) fetch_ahead(scale + line * 2 * WIDTH);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                const Floats factor = load(scale + c * WIDTH), middle = load(scale + PANEL + c * WIDTH);
#pragma GCC unroll 6
                for (int r = 0; r < R; ++r)
                    sums[r][c] = _mm512_fmadd_ps(totals[r], middle, _mm512_fmadd_ps(parts[r][c], factor, sums[r][c]));
            }
        }
    }

    // -8 to 7 in bfloat16, twice.
    static __m512i table() {
        const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const Floats numbers = _mm512_cvtepi32_ps(lanes) - splat(8.0f);
        return (__m512i)_mm512_cvtne2ps_pbh(numbers, numbers);
    }

  private:
    template <int PAIRS, int R, int C>
    [[gnu::always_inline]] static void add_octet(const uint32_t* rows, size_t stride, const uint32_t* octet,
                                                 __m512i values, __m512 (&sums)[R][C], __m512 (&totals)[R]) {
        const __m512i ones = _mm512_set1_epi32(0x3f803f80);
        __m512i packed[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            packed[c] = _mm512_loadu_si512(octet + c * WIDTH);
            fetch_ahead(octet + c * WIDTH);
        }
#pragma GCC unroll 4
        for (int pair = 0; pair < PAIRS; ++pair) {
            __m512i weights[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c)  // the table is there twice: the fifth bit, the next number's, does not matter
                weights[c] = _mm512_permutexvar_epi16(_mm512_srli_epi16(packed[c], 4 * pair), values);
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const __m512i unit = _mm512_set1_epi32(int(rows[r * stride + pair]));
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) sums[r][c] = Bfloat16::dot(sums[r][c], unit, weights[c]);
                totals[r] = Bfloat16::dot(totals[r], unit, ones);
            }
        }
    }
};

// Sixteen units of two bfloat16, from the even and the odd ones as float32: their upper halves.
inline __m512i upper_halves(Floats even, Floats odd) {
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_castps_si512(odd));
}

template <>
struct Weights<Int8WeightsAmx> : Weights<Int8Weights> {
    // 32 inputs of a panel as bfloat16 units [16][64]. Whole numbers of 8 bits need no rounding.
    static void widen(const uint32_t* panel, size_t input, uint32_t* to) {
        const auto* bytes = reinterpret_cast<const char*>(panel) + input * PANEL;
        for (size_t i = 0; i < EDGE * PANEL; i += WIDTH) {
            const auto* place = reinterpret_cast<const __m256i*>(bytes + 2 * i);
            if (i % (2 * WIDTH) == 0) fetch_ahead(place);
            const __m512i pairs = _mm512_cvtepi16_epi32(_mm256_loadu_si256(place));
            const Floats even = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(pairs, 24), 24));
            _mm512_store_si512(to + i, upper_halves(even, _mm512_cvtepi32_ps(_mm512_srai_epi32(pairs, 8))));
        }
    }

    static __m512 scaled(__m512 sums, const uint32_t* panel, size_t inputs, size_t column) {
        return rounded(sums * load(reinterpret_cast<const float*>(panel + inputs / 4 * PANEL) + column));
    }
};

template <>
struct Weights<Int4WeightsAmx> : Weights<Int4Weights> {
    // The same, as the numbers they stand for: rounded once more, by a twentieth of what rounding to 4 bits has cost.
    static void widen(const uint32_t* panel, size_t input, uint32_t* to) {
        const __m512i values = table(), upper = _mm512_set1_epi32(int(0xffff0000));
        panel += input / GROUP * GROUP_UNITS;
        const auto* scale = reinterpret_cast<const bfloat16*>(panel + OCTETS * PANEL);
#pragma GCC unroll 4
        for (int line = 0; line < 4; ++line) fetch_ahead(scale + line * 2 * WIDTH);
        for (size_t column = 0; column < PANEL; column += WIDTH) {
            const Floats factor = load(scale + column), middle = load(scale + PANEL + column);
#pragma GCC unroll 4
            for (size_t octet = 0; octet < OCTETS; ++octet) {
                const uint32_t* place = panel + octet * PANEL + column;
                const __m512i packed = _mm512_loadu_si512(place);
                fetch_ahead(place);
#pragma GCC unroll 4
                for (int pair = 0; pair < 4; ++pair) {
                    const __m512i units = _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 4 * pair), values);
                    // Without the bits below it, which would make a zero a subnormal number: those are slow.
                    const Floats even = _mm512_castsi512_ps(_mm512_slli_epi32(units, 16));
                    const Floats odd = _mm512_castsi512_ps(_mm512_and_si512(units, upper));
                    _mm512_store_si512(to + (octet * 4 + size_t(pair)) * PANEL + column,
                                       upper_halves(nearest(_mm512_fmadd_ps(even, factor, middle)),
                                                    nearest(_mm512_fmadd_ps(odd, factor, middle))));
                }
            }
        }
    }

    static __m512 scaled(__m512 sums, const uint32_t*, size_t, size_t) { return sums; }

  private:
    // Half of the last place of a bfloat16 added, so that its upper half is the nearest one.
    static Floats nearest(Floats x) {
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
    }
};
