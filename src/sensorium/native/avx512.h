// Sixteen numbers in one register of AVX-512, with its bfloat16 and 8-bit products. What is here means the same in avx2.h.
#pragma once

using Floats = __m512;
typedef uint32_t Integers __attribute__((vector_size(64)));
using Lanes = __mmask16;
using Mask = __mmask16;

constexpr int ROWS = 6;  // rows times 64 columns are 24 registers of sums; 4 of weights and 1 unit fit beside them
template <int R>
constexpr int VECTORS = 4;  // of columns that R rows are multiplied with together

inline Floats floats(Integers bits) { return (Floats)bits; }
inline Integers bits(Floats x) { return (Integers)x; }

// --- lanes and masks ---
constexpr Lanes ALL = 0xffff, NONE = 0;
inline Lanes first_lanes(size_t count) { return count >= WIDTH ? ALL : Lanes((1u << count) - 1); }
inline unsigned which(Mask mask) { return mask; }  // a bit for each
inline Mask more(Floats x, Floats than) { return _mm512_cmp_ps_mask(x, than, _CMP_GT_OQ); }
inline Mask at_least(Integers x, uint32_t least) {
    return _mm512_cmpge_epu32_mask((__m512i)x, _mm512_set1_epi32(int(least)));
}
inline Floats only(Mask mask, Floats x) { return _mm512_maskz_mov_ps(mask, x); }  // zeros elsewhere
inline Floats choose(Mask mask, Floats x, Floats otherwise) { return _mm512_mask_blend_ps(mask, otherwise, x); }
inline Integers choose(Mask mask, Integers x, Integers otherwise) {
    return (Integers)_mm512_mask_mov_epi32((__m512i)otherwise, mask, (__m512i)x);
}

// --- memory ---
inline Floats splat(float x) { return _mm512_set1_ps(x); }
inline Integers splat_units(uint32_t x) { return (Integers)_mm512_set1_epi32(int(x)); }
inline Integers counting() { return (Integers)_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

inline Floats load(const float* from, Lanes lanes = ALL) { return _mm512_maskz_loadu_ps(lanes, from); }
inline Integers load_units(const void* from) { return (Integers)_mm512_loadu_si512(from); }
inline Integers load_units(const uint32_t* from, Lanes lanes) { return (Integers)_mm512_maskz_loadu_epi32(lanes, from); }
inline Integers load_halves(const bfloat16* from, Lanes lanes = ALL) {  // 16 bits each, in the lower halves
    return (Integers)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
}
inline Floats load(const bfloat16* from, Lanes lanes = ALL) { return floats(load_halves(from, lanes) << 16); }

inline Integers rounded_halves(Floats x) {  // to bfloat16, to nearest even, in the lower halves
    return (Integers)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
}
inline void store(float* to, Floats x, Lanes lanes = ALL) { _mm512_mask_storeu_ps(to, lanes, x); }
inline void store(bfloat16* to, Floats x, Lanes lanes = ALL) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(x));
}
inline void store_units(void* to, Integers x) { _mm512_storeu_si512(to, (__m512i)x); }

// --- arithmetic ---
// A product as it is rounded: not fused with a sum that follows, which the compiler does in one place and not in another.
inline Floats rounded(Floats x) {
    asm("" : "+v"(x));
    return x;
}
inline Floats fused(Floats x, Floats y, Floats z) { return _mm512_fmadd_ps(x, y, z); }       // x·y + z, rounded once
inline Floats fused_less(Floats x, Floats y, Floats z) { return _mm512_fmsub_ps(x, y, z); }  // x·y - z
inline Floats smaller(Floats x, Floats y) { return _mm512_min_ps(x, y); }
inline Floats larger(Floats x, Floats y) { return _mm512_max_ps(x, y); }
inline Integers larger_halves(Integers x, Integers y) { return (Integers)_mm512_max_epu16((__m512i)x, (__m512i)y); }
inline Floats absolute(Floats x) { return _mm512_abs_ps(x); }
inline Floats square_root(Floats x) { return _mm512_sqrt_ps(x); }
inline Floats nearest(Floats x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// What 2^x takes: less is 0 and more is infinite anyway. And x · 2^whole.
inline Floats in_reach(Floats x) { return x; }
inline Floats times_power(Floats x, Floats whole) { return _mm512_scalef_ps(x, whole); }
inline Floats to_floats(Integers x) { return _mm512_cvtepi32_ps((__m512i)x); }            // signed ones
inline Integers to_integers(Floats x) { return (Integers)_mm512_cvtps_epi32(x); }         // to nearest even
inline float sum(Floats x) { return _mm512_reduce_add_ps(x); }
inline float maximum(Floats x) { return _mm512_reduce_max_ps(x); }

// --- 8-bit numbers ---
// Signed whole numbers below 128 as bytes, 128 for zero.
inline void store_bytes(uint8_t* to, Integers x, Lanes lanes) {
    _mm_mask_storeu_epi8(to, lanes, _mm512_cvtepi32_epi8((__m512i)(x + 128)));
}
inline void store_bytes(uint8_t* to, Integers a, Integers b, Integers c, Integers d) {
    const __m512i low = _mm512_packs_epi32((__m512i)a, (__m512i)b), high = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    // Packing works within quarters of a vector: four numbers of each of the four come together.
    const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_permutexvar_epi32(places, _mm512_packs_epi16(low, high));
    _mm512_storeu_si512(to, _mm512_xor_si512(bytes, _mm512_set1_epi8(char(0x80))));
}

// --- products ---
// sums + x·y, a line of assembly each: as intrinsics g++ 12 copies the sums from register to register.
inline Floats add_product(Floats sums, Integers x, Integers y) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sums) : "v"((__m512i)x), "v"((__m512i)y));
    return sums;
}

using Pairs = Integers;
inline Pairs pairs(Integers units) { return units; }
inline Floats add_pairs(Floats sums, Pairs x, Pairs y) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"((__m512i)x), "v"((__m512i)y));
    return sums;
}

constexpr bool SHIFTED = true;  // 8-bit products take rows as they lie, shifted by 128
inline Integers add_bytes(Integers sums, Integers x, Integers y) {  // x: unsigned; y: signed
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"((__m512i)x), "v"((__m512i)y));
    return sums;
}

// Sixteen pairs of signed bytes.
inline Pairs byte_pairs(const void* from) {
    const auto* place = static_cast<const __m128i*>(from);
    const Floats low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(place)));
    const Floats high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(place + 1)));
    return (Pairs)_mm512_cvtne2ps_pbh(high, low);
}

// Of units with four pairs of 4-bit numbers n, the pair at `place`, as n - 8, looked up in bfloat16. The table is there
// twice: the fifth bit, the next number's, does not matter.
constexpr float NIBBLES_ABOVE = 0.0f;  // n - 8, which is meant
inline Pairs nibble_pairs(Integers packed, int place) {
    const Floats numbers = to_floats(counting()) - splat(8.0f);
    const auto table = (__m512i)_mm512_cvtne2ps_pbh(numbers, numbers);
    return (Pairs)_mm512_permutexvar_epi16(_mm512_srli_epi16((__m512i)packed, 4 * place), table);
}

// --- what `transpose` is made of: within each quarter of a vector, and quarters ---
inline Integers low_units(Integers x, Integers y) { return (Integers)_mm512_unpacklo_epi32((__m512i)x, (__m512i)y); }
inline Integers high_units(Integers x, Integers y) { return (Integers)_mm512_unpackhi_epi32((__m512i)x, (__m512i)y); }
inline Integers low_halves(Integers x, Integers y) { return (Integers)_mm512_unpacklo_epi64((__m512i)x, (__m512i)y); }
inline Integers high_halves(Integers x, Integers y) { return (Integers)_mm512_unpackhi_epi64((__m512i)x, (__m512i)y); }
inline Integers even_quarters(Integers x, Integers y) {
    return (Integers)_mm512_shuffle_i32x4((__m512i)x, (__m512i)y, 0x88);
}
inline Integers odd_quarters(Integers x, Integers y) {
    return (Integers)_mm512_shuffle_i32x4((__m512i)x, (__m512i)y, 0xdd);
}
