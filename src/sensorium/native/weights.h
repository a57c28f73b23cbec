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
    [[gnu::always_inline]] static void add(const uint32_t* rows, size_t stride, const uint32_t* panel, size_t column,
                                           size_t inputs, Floats (&sums)[R][C]) {
        const auto* bytes = reinterpret_cast<const char*>(panel) + 2 * column;
        for (size_t step = 0; step < inputs / 2; ++step, bytes += 2 * PANEL) {
            Pairs weights[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                weights[c] = byte_pairs(bytes + c * 2 * WIDTH);
                if (c % 2 == 0) fetch_ahead(bytes + c * 2 * WIDTH);
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const Pairs unit = pairs(splat_units(rows[r * stride + step]));
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) sums[r][c] = add_pairs(sums[r][c], unit, weights[c]);
            }
        }
        const auto* scale = reinterpret_cast<const float*>(panel + inputs / 4 * PANEL) + column;
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
    [[gnu::always_inline]] static void add(const uint32_t* rows, size_t stride, const uint32_t* panel, size_t column,
                                           size_t inputs, Floats (&sums)[R][C]) {
        for (size_t group = 0; group < inputs; group += GROUP, panel += GROUP_UNITS) {
            const size_t rest = std::min(GROUP, inputs - group);
            const uint32_t* units = rows + group / 2;
            Floats parts[R][C] = {}, totals[R] = {};  // totals: of the rows' inputs, in every lane
            size_t octet = 0;
            for (; octet < rest / 8; ++octet)
                add_octet<4>(units + octet * 4, stride, panel + octet * PANEL + column, parts, totals);
            if (rest % 8) add_octet<2>(units + octet * 4, stride, panel + octet * PANEL + column, parts, totals);  // half of one
            const auto* scale = reinterpret_cast<const bfloat16*>(panel + OCTETS * PANEL) + column;
#pragma GCC unroll 4
            for (int line = 0; line < 4; ++line) fetch_ahead(scale + line * 2 * WIDTH);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                const Floats factor = load(scale + c * WIDTH);
                Floats middle = load(scale + PANEL + c * WIDTH);
                if constexpr (NIBBLES_ABOVE > 0.0f) middle = middle - factor * splat(NIBBLES_ABOVE);
#pragma GCC unroll 6
                for (int r = 0; r < R; ++r)
                    sums[r][c] = fused(totals[r], middle, fused(parts[r][c], factor, sums[r][c]));
            }
        }
    }

  private:
    template <int PAIRS, int R, int C>
    [[gnu::always_inline]] static void add_octet(const uint32_t* rows, size_t stride, const uint32_t* octet,
                                                 Floats (&sums)[R][C], Floats (&totals)[R]) {
        const Pairs ones = pairs(splat_units(0x3f803f80));
        Integers packed[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            packed[c] = load_units(octet + c * WIDTH);
            fetch_ahead(octet + c * WIDTH);
        }
#pragma GCC unroll 4
        for (int pair = 0; pair < PAIRS; ++pair) {
            Pairs weights[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) weights[c] = nibble_pairs(packed[c], pair);
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const Pairs unit = pairs(splat_units(rows[r * stride + pair]));
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) sums[r][c] = add_pairs(sums[r][c], unit, weights[c]);
                totals[r] = add_pairs(totals[r], unit, ones);
            }
        }
    }
};

#ifdef __AVX512F__  // as processors with the matrix unit have

// Sixteen units of two bfloat16, from the even and the odd ones as float32: their upper halves.
inline Integers upper_halves(Floats even, Floats odd) {
    return (Integers)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)(bits(even) >> 16), (__m512i)bits(odd));
}

template <>
struct Weights<Int8WeightsAmx> : Weights<Int8Weights> {
    // 32 inputs of a panel as bfloat16 units [16][64]. Whole numbers of 8 bits need no rounding.
    static void widen(const uint32_t* panel, size_t input, uint32_t* to) {
        const auto* bytes = reinterpret_cast<const char*>(panel) + input * PANEL;
        for (size_t i = 0; i < EDGE * PANEL; i += WIDTH) {
            const auto* place = reinterpret_cast<const __m256i*>(bytes + 2 * i);
            if (i % (2 * WIDTH) == 0) fetch_ahead(place);
            const __m512i both = _mm512_cvtepi16_epi32(_mm256_loadu_si256(place));
            const Floats even = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 24), 24));
            store_units(to + i, upper_halves(even, _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 8))));
        }
    }

    static Floats scaled(Floats sums, const uint32_t* panel, size_t inputs, size_t column) {
        return rounded(sums * load(reinterpret_cast<const float*>(panel + inputs / 4 * PANEL) + column));
    }
};

template <>
struct Weights<Int4WeightsAmx> : Weights<Int4Weights> {
    // The same, as the numbers they stand for: rounded once more, by a twentieth of what rounding to 4 bits has cost.
    static void widen(const uint32_t* panel, size_t input, uint32_t* to) {
        panel += input / GROUP * GROUP_UNITS;
        const auto* scale = reinterpret_cast<const bfloat16*>(panel + OCTETS * PANEL);
#pragma GCC unroll 4
        for (int line = 0; line < 4; ++line) fetch_ahead(scale + line * 2 * WIDTH);
        for (size_t column = 0; column < PANEL; column += WIDTH) {
            const Floats factor = load(scale + column), middle = load(scale + PANEL + column);
#pragma GCC unroll 4
            for (size_t octet = 0; octet < OCTETS; ++octet) {
                const uint32_t* place = panel + octet * PANEL + column;
                const Integers packed = load_units(place);
                fetch_ahead(place);
#pragma GCC unroll 4
                for (int pair = 0; pair < 4; ++pair) {
                    const Integers units = nibble_pairs(packed, pair);
                    // Without the bits below it, which would make a zero a subnormal number: those are slow.
                    const Floats even = floats(units << 16), odd = floats(units & splat_units(0xffff0000));
                    store_units(to + (octet * 4 + size_t(pair)) * PANEL + column,
                                upper_halves(half_up(fused(even, factor, middle)), half_up(fused(odd, factor, middle))));
                }
            }
        }
    }

    static Floats scaled(Floats sums, const uint32_t*, size_t, size_t) { return sums; }

  private:
    // Half of the last place of a bfloat16 added, so that its upper half is the nearest one.
    static Floats half_up(Floats x) { return floats(bits(x) + splat_units(0x8000)); }
};

#endif
