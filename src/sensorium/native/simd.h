// Sixteen float32 at a time, and the few functions of them that a Transformer needs.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

using Floats = __m512;       // 16 float32
constexpr size_t WIDTH = 16;

struct bfloat16 {
    uint16_t bits;
};

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

// The first `count` of sixteen lanes; all of them when there are more.
inline __mmask16 first_lanes(size_t count) { return count >= WIDTH ? 0xffff : __mmask16((1u << count) - 1); }

inline Floats splat(float x) { return _mm512_set1_ps(x); }

inline Floats load(const float* from, __mmask16 lanes = 0xffff) { return _mm512_maskz_loadu_ps(lanes, from); }
inline Floats load(const bfloat16* from, __mmask16 lanes = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}

inline void store(float* to, Floats x, __mmask16 lanes = 0xffff) { _mm512_mask_storeu_ps(to, lanes, x); }
inline void store(bfloat16* to, Floats x, __mmask16 lanes = 0xffff) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(x));  // rounds to nearest even
}

// A product as it is rounded: not fused with a sum that follows, which the compiler does in one place and not in another.
inline Floats rounded(Floats x) {
    asm("" : "+v"(x));
    return x;
}

inline float sum(Floats x) { return _mm512_reduce_add_ps(x); }
inline float maximum(Floats x) { return _mm512_reduce_max_ps(x); }

// 2^x: the whole part into the exponent, the rest by TERMS of the Taylor series (ln 2)ⁿ / n! · xⁿ. Eight are exact to
// float32 (the next is below 6e-9), five to bfloat16 (4e-5).
template <int TERMS>
inline Floats exp2(Floats x) {
    constexpr float series[] = {1.0f,          6.9314718e-1f, 2.4022651e-1f, 5.5504109e-2f,
                                9.6181291e-3f, 1.3333558e-3f, 1.5403530e-4f, 1.5252734e-5f};
    const Floats whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats rest = x - whole;  // in [-1/2, 1/2]
    Floats value = splat(series[TERMS - 1]);
#pragma GCC unroll 8
    for (int n = TERMS - 2; n >= 0; --n) value = value * rest + splat(series[n]);
    return _mm512_scalef_ps(value, whole);
}
