// What is done to one row at a time: LayerNorm, making a row ready for the next product, activations.
#pragma once

#include <cmath>

#include "product.h"

// LayerNorm of a row, in place (Ba et al., 2016): two passes, in float32.
inline void layer_norm(float* row, size_t size, const float* weight, const float* bias, float epsilon) {
    Floats total = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) total += load(row + i, first_lanes(size - i));
    const float mean = sum(total) / float(size);
    Floats squares = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats away = only(lanes, load(row + i, lanes) - splat(mean));
        squares += away * away;
    }
    const float factor = 1.0f / std::sqrt(sum(squares) / float(size) + epsilon);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats normal = (load(row + i, lanes) - splat(mean)) * splat(factor);
        store(row + i, normal * load(weight + i, lanes) + load(bias + i, lanes), lanes);
    }
}

// RMSNorm of a row, in place (Zhang & Sennrich, 2019).
inline void rms_norm(float* row, size_t size, const float* weight, float epsilon) {
    Floats squares = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Floats x = load(row + i, first_lanes(size - i));
        squares += x * x;
    }
    const Floats factor = splat(1.0f / std::sqrt(sum(squares) / float(size) + epsilon));
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        store(row + i, load(row + i, lanes) * factor * load(weight + i, lanes), lanes);
    }
}

// Channels i and i + size/2 of a head are a point of the plane, turned by its angle (Su et al., 2021).
inline void rotate(float* head, size_t size, const float* cosines, const float* sines) {
    const size_t half = size / 2;
    for (size_t i = 0; i < half; i += WIDTH) {
        const Lanes lanes = first_lanes(half - i);
        const Floats x = load(head + i, lanes), y = load(head + half + i, lanes);
        const Floats cosine = load(cosines + i, lanes), sine = load(sines + i, lanes);
        store(head + i, x * cosine - y * sine, lanes);
        store(head + half + i, y * cosine + x * sine, lanes);
    }
}

template <class To, class From>
inline void convert_row(const From* row, size_t size, To* to) {
    for (size_t i = 0; i < size; i += WIDTH) store(to + i, load(row + i, first_lanes(size - i)), first_lanes(size - i));
}

// The largest absolute value of a row, times the factors where there are some.
template <class From>
inline float largest_of(const From* row, size_t size, const float* factors) {
    Floats largest = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats x = load(row + i, lanes);
        largest = larger(largest, absolute(factors ? x * load(factors + i, lanes) : x));
    }
    return maximum(largest);
}

// The same of bfloat16: without their sign, they are ordered as whole numbers are.
inline float largest_of(const bfloat16* row, size_t size) {
    Integers most = splat_units(0);
    size_t i = 0;
    for (; i + 2 * WIDTH <= size; i += 2 * WIDTH) most = larger_halves(most, load_units(row + i) & splat_units(0x7fff7fff));
    for (; i < size; i += WIDTH)
        most = larger_halves(most, load_halves(row + i, first_lanes(size - i)) & splat_units(0x7fff));
    return maximum(larger(floats(most << 16), floats(most & splat_units(0xffff0000))));
}

// A row, times the factors where there are some, as 8-bit numbers, and the scale that makes them
// float32 again (one scale a row, from its largest number).
template <class From>
inline float quantise_row(const From* row, size_t size, const float* factors, uint8_t* to) {
    float most;
    if constexpr (std::is_same_v<From, bfloat16>) most = factors ? largest_of(row, size, factors) : largest_of(row, size);
    else most = largest_of(row, size, factors);
    const Floats inverse = splat(most > 0.0f ? 127.0f / most : 0.0f);
    const auto whole = [&](size_t i, Lanes lanes) {  // rounds to nearest even
        const Floats x = load(row + i, lanes);
        return to_integers((factors ? x * load(factors + i, lanes) : x) * inverse);
    };
    size_t i = 0;
    for (; i + 4 * WIDTH <= size; i += 4 * WIDTH)
        store_bytes(to + i, whole(i, ALL), whole(i + WIDTH, ALL), whole(i + 2 * WIDTH, ALL), whole(i + 3 * WIDTH, ALL));
    for (; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        store_bytes(to + i, whole(i, lanes), lanes);
    }
    return most / 127.0f;
}

// A row as the products of a dtype take it.
template <class Dtype, class From>
inline void prepare_row(const From* row, const Linear& linear, typename Dtype::Number* to, float* scale) {
    const size_t size = size_t(linear.inputs);
    if constexpr (Dtype::PER_UNIT == 4) *scale = quantise_row(row, size, linear.factors, to);
    else convert_row(row, size, to);
}

// Activations of the form x · (½ + odd(x)): GELU and its tanh form. odd(x) = x · P(x²), P a polynomial fitted in
// activations.py over |x| ≤ limit, beyond which ½ + odd(x) is 0 or 1 for float32. Their slopes are ½ + odd(x) themselves.
struct Activation {
    enum Kind : int64_t { POLYNOMIAL, RELU, SILU, TANH } kind;
    float limit, slope;  // P takes x² · slope - 1, in [-1, 1]; SILU is x · σ(slope · x)
    int64_t count;           // 8 or 16
    float coefficients[16];  // from the highest power down

    template <int COUNT>
    Floats gate(Floats x) const {  // ½ + odd(x)
        const Floats inside = larger(smaller(x, splat(limit)), splat(-limit));
        return inside * polynomial<COUNT>(coefficients, inside * inside * splat(slope) - splat(1.0f)) + splat(0.5f);
    }

  private:
    // By halves (Estrin, 1960): no long chain of sums that wait for each other.
    template <int COUNT>
    static Floats polynomial(const float* highest, Floats x) {
        if constexpr (COUNT == 1) {
            return splat(highest[0]);
        } else {
            Floats power = x;  // to the power of COUNT / 2
#pragma GCC unroll 4
            for (int n = 2; n < COUNT; n *= 2) power = power * power;
            return polynomial<COUNT / 2>(highest, x) * power + polynomial<COUNT / 2>(highest + COUNT / 2, x);
        }
    }
};

inline Floats sigmoid(Floats x) {  // 1 / (1 + e^-x)
    const Floats small = exp2<8>(absolute(x) * splat(-1.44269504f));
    const Floats upper = splat(1.0f) / (splat(1.0f) + small);
    return choose(more(splat(0.0f), x), splat(1.0f) - upper, upper);
}

// f(activation of sixteen numbers) with the activation chosen once, outside the loops.
template <class F>
inline void with_activation(const Activation& a, const F& f) {
    switch (a.kind) {
        case Activation::POLYNOMIAL:
            if (a.count == 8) return f([a](Floats x) { return x * a.gate<8>(x); });
            return f([a](Floats x) { return x * a.gate<16>(x); });
        case Activation::RELU: return f([](Floats x) { return larger(x, splat(0.0f)); });
        case Activation::SILU: return f([a](Floats x) { return x * sigmoid(x * splat(a.slope)); });
        case Activation::TANH: return f([](Floats x) { return splat(2.0f) * sigmoid(x + x) - splat(1.0f); });
    }
}

// The same for its slope; a polynomial's is another polynomial, of sixteen coefficients.
template <class F>
inline void with_slope(const Activation& a, const F& f) {
    switch (a.kind) {
        case Activation::POLYNOMIAL: return f([a](Floats x) { return a.gate<16>(x); });
        case Activation::RELU:
            return f([](Floats x) {
                return only(more(x, splat(0.0f)), splat(1.0f));
            });
        case Activation::SILU:
            return f([a](Floats x) {
                const Floats steep = x * splat(a.slope), s = sigmoid(steep);
                return s * (splat(1.0f) + steep * (splat(1.0f) - s));
            });
        case Activation::TANH:
            return f([](Floats x) {
                const Floats t = splat(2.0f) * sigmoid(x + x) - splat(1.0f);
                return splat(1.0f) - t * t;
            });
    }
}
