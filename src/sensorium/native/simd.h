// Sixteen 32-bit numbers at a time, and what a Transformer needs of them: what is the same whatever the processor has. The
// rest, by the same names, is in avx512.h (one register) and in avx2.h (two); the compiler's flags choose between them.
//
//     Floats, Integers    sixteen float32; sixteen unsigned 32-bit whole numbers, or 64 bytes of anything
//     Lanes, Mask         the first so many of sixteen; those of sixteen for which something holds
//     Pairs               bfloat16 pairs, sixteen to the left of a product or to its right
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

constexpr size_t WIDTH = 16;

struct bfloat16 {
    uint16_t bits;
};

#ifdef __AVX512F__
#include "avx512.h"
#else
#include "avx2.h"
#endif

// 32-bit units that begin with a line of the cache, so that no vector and no row of a tile lies in two.
template <class T>
struct OnLines {
    using value_type = T;
    OnLines() = default;
    template <class Other>
    OnLines(const OnLines<Other>&) {}
    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t(64)); }
    bool operator==(const OnLines&) const { return true; }
    bool operator!=(const OnLines&) const { return false; }
};
using Units = std::vector<uint32_t, OnLines<uint32_t>>;

// 2^x: the whole part into the exponent, the rest by TERMS of the Taylor series (ln 2)ⁿ / n! · xⁿ. Eight are exact to
// float32 (the next is below 6e-9), five to bfloat16 (4e-5).
template <int TERMS>
inline Floats exp2(Floats from) {
    constexpr float series[] = {1.0f,          6.9314718e-1f, 2.4022651e-1f, 5.5504109e-2f,
                                9.6181291e-3f, 1.3333558e-3f, 1.5403530e-4f, 1.5252734e-5f};
    const Floats x = in_reach(from), whole = nearest(x);
    const Floats rest = x - whole;  // in [-1/2, 1/2]
    Floats value = splat(series[TERMS - 1]);
#pragma GCC unroll 8
    for (int n = TERMS - 2; n >= 0; --n) value = value * rest + splat(series[n]);
    return times_power(value, whole);
}

// Rows become columns: sixteen by sixteen units.
inline void transpose(Integers (&x)[WIDTH]) {
    Integers y[WIDTH];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {  // pairs of rows, unit by unit
        y[i] = low_units(x[i], x[i + 1]);
        y[i + 1] = high_units(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // four rows: x[i + k] has their units 4 n + k
        x[i] = low_halves(y[i], y[i + 2]);
        x[i + 1] = high_halves(y[i], y[i + 2]);
        x[i + 2] = low_halves(y[i + 1], y[i + 3]);
        x[i + 3] = high_halves(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 16; i += 8) {  // eight rows
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            y[i + k] = even_quarters(x[i + k], x[i + k + 4]);     // units k and 8 + k
            y[i + k + 4] = odd_quarters(x[i + k], x[i + k + 4]);  // units 4 + k and 12 + k
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
        x[k] = even_quarters(y[k], y[k + 8]);
        x[k + 8] = odd_quarters(y[k], y[k + 8]);
    }
}
