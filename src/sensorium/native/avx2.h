// Sixteen numbers in two registers of AVX2. What is here means the same in avx512.h.
#pragma once

#include <cstring>

struct Floats {
    __m256 low, high;
};
struct Integers {
    __m256i low, high;
};

constexpr int ROWS = 4;  // rows times sixteen columns are 8 registers of sums; bfloat16 needs 6 more
template <int R>
constexpr int VECTORS = R == 1 ? 4 : R == 2 ? 2 : 1;  // of columns that R rows are multiplied with together

inline Floats operator+(Floats x, Floats y) { return {x.low + y.low, x.high + y.high}; }
inline Floats operator-(Floats x, Floats y) { return {x.low - y.low, x.high - y.high}; }
inline Floats operator*(Floats x, Floats y) { return {x.low * y.low, x.high * y.high}; }
inline Floats operator/(Floats x, Floats y) { return {x.low / y.low, x.high / y.high}; }
inline Floats& operator+=(Floats& x, Floats y) { return x = x + y; }
inline Integers operator+(Integers x, Integers y) {
    return {_mm256_add_epi32(x.low, y.low), _mm256_add_epi32(x.high, y.high)};
}
inline Integers operator-(Integers x, Integers y) {
    return {_mm256_sub_epi32(x.low, y.low), _mm256_sub_epi32(x.high, y.high)};
}
inline Integers operator*(Integers x, Integers y) {
    return {_mm256_mullo_epi32(x.low, y.low), _mm256_mullo_epi32(x.high, y.high)};
}
inline Integers operator&(Integers x, Integers y) { return {x.low & y.low, x.high & y.high}; }
inline Integers operator|(Integers x, Integers y) { return {x.low | y.low, x.high | y.high}; }
inline Integers operator^(Integers x, Integers y) { return {x.low ^ y.low, x.high ^ y.high}; }
inline Integers operator<<(Integers x, int by) { return {_mm256_slli_epi32(x.low, by), _mm256_slli_epi32(x.high, by)}; }
inline Integers operator>>(Integers x, int by) { return {_mm256_srli_epi32(x.low, by), _mm256_srli_epi32(x.high, by)}; }

inline Floats floats(Integers bits) { return {_mm256_castsi256_ps(bits.low), _mm256_castsi256_ps(bits.high)}; }
inline Integers bits(Floats x) { return {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)}; }

// --- lanes and masks ---
struct Lanes {
    uint32_t count;
};
struct Mask {
    __m256 low, high;
};
constexpr Lanes ALL = {WIDTH}, NONE = {0};
inline Lanes first_lanes(size_t count) { return {uint32_t(count >= WIDTH ? WIDTH : count)}; }
inline Mask mask_of(Lanes lanes) {
    alignas(64) static constexpr int32_t table[2 * WIDTH] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                             -1, -1, -1, -1, -1, -1, -1, -1};  // then zeros
    const auto* place = reinterpret_cast<const float*>(table + WIDTH - lanes.count);
    return {_mm256_loadu_ps(place), _mm256_loadu_ps(place + 8)};
}
inline unsigned which(Lanes lanes) { return (1u << lanes.count) - 1; }  // a bit for each
inline unsigned which(Mask mask) {
    return unsigned(_mm256_movemask_ps(mask.low)) | unsigned(_mm256_movemask_ps(mask.high)) << 8;
}
inline Mask more(Floats x, Floats than) {
    return {_mm256_cmp_ps(x.low, than.low, _CMP_GT_OQ), _mm256_cmp_ps(x.high, than.high, _CMP_GT_OQ)};
}
inline Mask at_least(Integers x, uint32_t least) {
    const __m256i y = _mm256_set1_epi32(int(least));
    const auto holds = [y](__m256i part) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(part, y), part)); };
    return {holds(x.low), holds(x.high)};
}
inline Floats only(Mask mask, Floats x) { return {_mm256_and_ps(mask.low, x.low), _mm256_and_ps(mask.high, x.high)}; }
inline Floats only(Lanes lanes, Floats x) { return lanes.count == WIDTH ? x : only(mask_of(lanes), x); }
inline Floats choose(Mask mask, Floats x, Floats otherwise) {
    return {_mm256_blendv_ps(otherwise.low, x.low, mask.low), _mm256_blendv_ps(otherwise.high, x.high, mask.high)};
}
inline Floats choose(Lanes lanes, Floats x, Floats otherwise) {
    return lanes.count == WIDTH ? x : choose(mask_of(lanes), x, otherwise);
}
inline Integers choose(Mask mask, Integers x, Integers otherwise) {
    return bits(choose(mask, floats(x), floats(otherwise)));
}

// --- memory ---
inline Floats splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Integers splat_units(uint32_t x) { return {_mm256_set1_epi32(int(x)), _mm256_set1_epi32(int(x))}; }
inline Integers counting() {
    return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}

inline Floats load(const float* from, Lanes lanes = ALL) {
    if (lanes.count == WIDTH) return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
    const Mask mask = mask_of(lanes);
    return {_mm256_maskload_ps(from, _mm256_castps_si256(mask.low)),
            _mm256_maskload_ps(from + 8, _mm256_castps_si256(mask.high))};
}
inline Integers load_units(const void* from) {
    const auto* place = static_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(place), _mm256_loadu_si256(place + 1)};
}
inline Integers load_units(const uint32_t* from, Lanes lanes) {
    return bits(load(reinterpret_cast<const float*>(from), lanes));
}
inline Integers load_halves(const bfloat16* from, Lanes lanes = ALL) {  // 16 bits each, in the lower halves
    bfloat16 some[WIDTH] = {};
    if (lanes.count < WIDTH) from = static_cast<const bfloat16*>(std::memcpy(some, from, lanes.count * sizeof(bfloat16)));
    const auto* place = reinterpret_cast<const __m128i*>(from);
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128(place)), _mm256_cvtepu16_epi32(_mm_loadu_si128(place + 1))};
}
inline Floats load(const bfloat16* from, Lanes lanes = ALL) { return floats(load_halves(from, lanes) << 16); }

// To bfloat16, to nearest even, in the lower halves. What arithmetic gives for "no number" stays that.
inline Integers rounded_halves(Floats x) {
    const Integers odd = (bits(x) >> 16) & splat_units(1);
    return (bits(x) + odd + splat_units(0x7fff)) >> 16;
}
inline void store(float* to, Floats x, Lanes lanes = ALL) {
    if (lanes.count == WIDTH) {
        _mm256_storeu_ps(to, x.low), _mm256_storeu_ps(to + 8, x.high);
    } else {  // a masked store is slow on some processors
        std::memcpy(to, &x, lanes.count * sizeof(float));
    }
}
inline void store(bfloat16* to, Floats x, Lanes lanes = ALL) {
    const Integers halves = rounded_halves(x);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves.low, halves.high), 0xd8);
    if (lanes.count == WIDTH) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
    else std::memcpy(static_cast<void*>(to), &packed, lanes.count * sizeof(bfloat16));
}
inline void store_units(void* to, Integers x) {
    auto* place = static_cast<__m256i*>(to);
    _mm256_storeu_si256(place, x.low), _mm256_storeu_si256(place + 1, x.high);
}

// --- arithmetic ---
// A product as it is rounded: not fused with a sum that follows, which the compiler does in one place and not in another.
inline Floats rounded(Floats x) {
    asm("" : "+x"(x.low), "+x"(x.high));
    return x;
}
inline Floats fused(Floats x, Floats y, Floats z) {  // x·y + z, rounded once
    return {_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}
inline Floats fused_less(Floats x, Floats y, Floats z) {  // x·y - z
    return {_mm256_fmsub_ps(x.low, y.low, z.low), _mm256_fmsub_ps(x.high, y.high, z.high)};
}
inline Floats smaller(Floats x, Floats y) { return {_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high)}; }
inline Floats larger(Floats x, Floats y) { return {_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)}; }
inline Integers larger_halves(Integers x, Integers y) {
    return {_mm256_max_epu16(x.low, y.low), _mm256_max_epu16(x.high, y.high)};
}
inline Floats absolute(Floats x) { return floats(bits(x) & splat_units(0x7fffffff)); }
inline Floats square_root(Floats x) { return {_mm256_sqrt_ps(x.low), _mm256_sqrt_ps(x.high)}; }
inline Floats nearest(Floats x) {
    constexpr int HOW = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.low, HOW), _mm256_round_ps(x.high, HOW)};
}
inline Floats to_floats(Integers x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }    // signed ones
inline Integers to_integers(Floats x) { return {_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)}; }  // nearest even
// What 2^x takes: less is 0 and more is infinite anyway. And x · 2^whole.
inline Floats in_reach(Floats x) { return smaller(splat(128.0f), larger(splat(-127.0f), x)); }
inline Floats times_power(Floats x, Floats whole) { return x * floats((to_integers(whole) + splat_units(127)) << 23); }
inline float sum(Floats x) {
    const __m256 eight = x.low + x.high;
    const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
    const __m128 two = four + _mm_movehl_ps(four, four);
    return two[0] + two[1];
}
inline float maximum(Floats x) {
    const __m256 eight = _mm256_max_ps(x.low, x.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return two[0] > two[1] ? two[0] : two[1];
}

// --- 8-bit numbers ---
// Signed whole numbers below 128 as bytes.
inline void store_bytes(uint8_t* to, Integers x, Lanes lanes = ALL) {
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.low, x.high), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    if (lanes.count == WIDTH) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    else std::memcpy(to, &bytes, lanes.count);
}
inline void store_bytes(uint8_t* to, Integers a, Integers b, Integers c, Integers d) {
    store_bytes(to, a), store_bytes(to + WIDTH, b), store_bytes(to + 2 * WIDTH, c), store_bytes(to + 3 * WIDTH, d);
}

// --- products ---
// sums + x·y
inline Floats add_product(Floats sums, Integers x, Integers y) { return fused(floats(x), floats(y), sums); }

struct Pairs {
    Floats even, odd;
};
inline Pairs pairs(Integers units) { return {floats(units << 16), floats(units & splat_units(0xffff0000))}; }
inline Floats add_pairs(Floats sums, Pairs x, Pairs y) { return fused(x.odd, y.odd, fused(x.even, y.even, sums)); }

constexpr bool SHIFTED = false;  // 8-bit products take signed rows
inline Integers add_bytes(Integers sums, Integers x, Integers y) {
    const __m256i ones = _mm256_set1_epi16(1);
    // The first factor must be unsigned: x · y = |y| · (x with the sign of y). Two products of 127 fit into 16 bits.
    const auto add = [ones](__m256i sum, __m256i a, __m256i b) {
        const __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(a, b));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(two, ones));
    };
    return {add(sums.low, x.low, y.low), add(sums.high, x.high, y.high)};
}

// Sixteen pairs of signed bytes.
inline Pairs byte_pairs(const void* from) {
    const auto* place = static_cast<const __m128i*>(from);
    const __m256i low = _mm256_cvtepi16_epi32(_mm_loadu_si128(place)), high = _mm256_cvtepi16_epi32(_mm_loadu_si128(place + 1));
    const auto even = [](__m256i x) { return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24), 24)); };
    const auto odd = [](__m256i x) { return _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 8)); };
    return {{even(low), even(high)}, {odd(low), odd(high)}};
}

// Of units with four pairs of 4-bit numbers n, the pair at `place`, as 16 + n: n are the first bits behind the point.
constexpr float NIBBLES_ABOVE = 24.0f;  // n - 8, which is meant
inline Pairs nibble_pairs(Integers packed, int place) {
    const Integers first_bits = splat_units(0xf << 19), sixteen = splat_units(0x41800000);
    const Integers even = packed << (19 - 4 * place), odd = 4 * place >= 3 ? packed >> (4 * place - 3) : packed << 3;
    return {floats((even & first_bits) | sixteen), floats((odd & first_bits) | sixteen)};
}

// --- what `transpose` is made of: within each quarter of a vector, and quarters ---
inline Integers low_units(Integers x, Integers y) {
    return {_mm256_unpacklo_epi32(x.low, y.low), _mm256_unpacklo_epi32(x.high, y.high)};
}
inline Integers high_units(Integers x, Integers y) {
    return {_mm256_unpackhi_epi32(x.low, y.low), _mm256_unpackhi_epi32(x.high, y.high)};
}
inline Integers low_halves(Integers x, Integers y) {
    return {_mm256_unpacklo_epi64(x.low, y.low), _mm256_unpacklo_epi64(x.high, y.high)};
}
inline Integers high_halves(Integers x, Integers y) {
    return {_mm256_unpackhi_epi64(x.low, y.low), _mm256_unpackhi_epi64(x.high, y.high)};
}
inline Integers even_quarters(Integers x, Integers y) {
    return {_mm256_permute2x128_si256(x.low, x.high, 0x20), _mm256_permute2x128_si256(y.low, y.high, 0x20)};
}
inline Integers odd_quarters(Integers x, Integers y) {
    return {_mm256_permute2x128_si256(x.low, x.high, 0x31), _mm256_permute2x128_si256(y.low, y.high, 0x31)};
}
