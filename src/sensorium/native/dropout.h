// Dropout that keeps no mask: whether a number stays is a function of (seed, site, row, column), worked out again where
// it is needed. The mixing is that of splitmix64 (Steele et al., 2014) for a row and a 32-bit multiply-xorshift within it.
#pragma once

#include "simd.h"

struct Dropout {
    uint64_t seed;
    uint32_t threshold;  // of 2³²: below it a number goes; 0: all stay
    float factor;        // 1 / (1 - share)

    // The chance of one row: `site` tells apart the places of a model, `row` the rows there.
    struct Row {
        __m512i early, late;
        const Dropout& of;

        // Sixteen numbers from `column` on: some become 0, the others grow by the factor.
        Floats operator()(size_t column, Floats x) const {
            if (of.threshold == 0) return x;
            const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            __m512i h = _mm512_add_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(int(column))), early);
            h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
            h = _mm512_mullo_epi32(h, _mm512_set1_epi32(0x7feb352d));
            h = _mm512_add_epi32(_mm512_xor_si512(h, _mm512_srli_epi32(h, 15)), late);
            h = _mm512_mullo_epi32(h, _mm512_set1_epi32(int(0x846ca68b)));
            h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
            const __mmask16 stays = _mm512_cmpge_epu32_mask(h, _mm512_set1_epi32(int(of.threshold)));
            return _mm512_maskz_mul_ps(stays, x, splat(of.factor));
        }
    };

    Row row(size_t site, size_t row) const {
        uint64_t z = seed + 0x9e3779b97f4a7c15 * (uint64_t(site) << 40 | uint64_t(row));
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        return {_mm512_set1_epi32(int(z)), _mm512_set1_epi32(int(z >> 32)), *this};
    }
};
