// Sums of products of 32-bit units: one float32, two bfloat16 or four 8-bit numbers. Every dtype is the same loop over them.
// A unit of a row is repeated over a vector, and multiplied with a vector that holds that unit of sixteen columns.
#pragma once

#include <algorithm>
#include <type_traits>

#include "amx.h"
#include "simd.h"

constexpr size_t PANEL = 64;  // columns of a panel of packed weights: [panels][units of a row][64 columns] units
constexpr size_t AHEAD = 24;  // steps that weights are fetched ahead

struct Float32 {
    using Number = float;
    using Sums = Floats;
    static constexpr size_t PER_UNIT = 1;
    static constexpr bool AMX = false;
    static Integers take(Integers units) { return units; }
    static Sums dot(Sums sums, Integers unit, Integers weights) { return add_product(sums, unit, weights); }
};

struct Bfloat16 {
    using Number = bfloat16;
    using Sums = Floats;
    static constexpr size_t PER_UNIT = 2;
    static constexpr bool AMX = false;
    static Pairs take(Integers units) { return pairs(units); }
    static Sums dot(Sums sums, Pairs unit, Pairs weights) { return add_pairs(sums, unit, weights); }
};

struct Int8 {  // weights: signed; rows: with 128 for zero where the processor takes them so (SHIFTED)
    using Number = uint8_t;
    using Sums = Integers;
    static constexpr size_t PER_UNIT = 4;
    static constexpr bool AMX = false;
    static Integers take(Integers units) { return units; }
    static Sums dot(Sums sums, Integers unit, Integers weights) { return add_bytes(sums, unit, weights); }
};

// The same numbers, multiplied by the matrix unit.
struct Bfloat16Amx : Bfloat16 {
    static constexpr bool AMX = true, NARROW = false;  // narrow: weights have fewer bits, and are widened first
    template <int SUMS, int A, int B>
    static void tile_dot() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(A), "i"(B));
    }
};

struct Int8Amx : Int8 {
    static constexpr bool AMX = true, NARROW = false;
    template <int SUMS, int A, int B>
    static void tile_dot() {
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(A), "i"(B));
    }
};

// sums[r][c] += Σ_step a[r][step] · b[step][c], for R rows and C vectors of sixteen columns. A's units lie `a_row` apart
// from row to row and `a_step` from step to step: 1 for rows as they are, more for a matrix that is read transposed.
// Always inline: called as a function it would keep the sums in memory, and store them at every step.
template <class Dtype, int R, int C>
[[gnu::always_inline]] inline void add_dots(const uint32_t* a, size_t a_row, size_t a_step, const uint32_t* b,
                                            size_t b_stride, size_t steps, typename Dtype::Sums (&sums)[R][C]) {
    for (size_t step = 0; step < steps; ++step, b += b_stride) {
        decltype(Dtype::take(load_units(b))) weights[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            weights[c] = Dtype::take(load_units(b + c * WIDTH));
            _mm_prefetch(reinterpret_cast<const char*>(b + AHEAD * b_stride + c * WIDTH), _MM_HINT_T0);
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const auto unit = Dtype::take(splat_units(a[r * a_row + step * a_step]));
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) sums[r][c] = Dtype::dot(sums[r][c], unit, weights[c]);
        }
    }
}

template <int N>
using Constant = std::integral_constant<int, N>;

// Call f with n as a constant of the compiler, 1 ≤ n ≤ MOST: loops over it are unrolled into registers.
template <int MOST, class F>
inline void with_constant(int n, const F& f) {
    if constexpr (MOST == 1) f(Constant<1>{});
    else if (n == MOST) f(Constant<MOST>{});
    else with_constant<MOST - 1>(n, f);
}

// f(column, C) for the columns of a panel from the first on, C vectors of them at a time: as many as R rows of sums allow.
template <int R, class F>
[[gnu::always_inline]] inline void with_columns(size_t width, const F& f) {
    for (size_t column = 0; column < width; column += VECTORS<R> * WIDTH) {
        const size_t vectors = (width - column + WIDTH - 1) / WIDTH;
        with_constant<VECTORS<R>>(int(std::min(size_t(VECTORS<R>), vectors)), [&](auto count) { f(column, count); });
    }
}

// f(r, c) for R rows and C vectors of sums, unrolled: they stay in registers.
template <int R, int C, class F>
[[gnu::always_inline]] inline void each_sum(const F& f) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) f(r, c);
    }
}

// f(dtype) for the dtypes that training knows, by the numbers that Python gives them (native/__init__.py).
template <class F>
inline void with_trained(int64_t number, const F& f) {
    switch (number) {
        case 0: return f(Float32{});
        case 1: return f(Bfloat16{});
#ifdef __AVX512F__
        case 5: return f(Bfloat16Amx{});
#endif
    }
}
