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
        Integers early, late;
        const Dropout& of;

        // Sixteen numbers from `column` on: some become 0, the others grow by the factor.
        Floats operator()(size_t column, Floats x) const {
            if (of.threshold == 0) return x;
            Integers h = counting() + splat_units(uint32_t(column)) + early;
            h = (h ^ (h >> 16)) * splat_units(0x7feb352d);
            h = ((h ^ (h >> 15)) + late) * splat_units(0x846ca68b);
            return only(at_least(h ^ (h >> 16), of.threshold), x * splat(of.factor));
        }
    };

    Row row(size_t site, size_t row) const {
        uint64_t z = seed + 0x9e3779b97f4a7c15 * (uint64_t(site) << 40 | uint64_t(row));
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        return {splat_units(uint32_t(z)), splat_units(uint32_t(z >> 32)), *this};
    }
};
