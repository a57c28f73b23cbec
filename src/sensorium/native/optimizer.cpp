// AdamW (Loshchilov & Hutter, 2019) in one pass over memory: masters and moments in float32, gradients and the weights
// that follow in float32 or bfloat16.
#include <cmath>
#include <vector>

#include "simd.h"
#include "threads.h"

namespace {

struct Parameter {
    float* master;
    float* mean;     // moving average of the gradient
    float* square;   // and of its square
    const void* gradient;
    void* weight;    // the master, rounded; may be null
    int64_t gradient_dtype, weight_dtype;  // 0 float32, 1 bfloat16
    int64_t size;
    float rate, decay;        // learning rate; share of the weight that goes at a step
    float correction_mean, correction_square;  // 1 - βᵗ
};

struct Settings {
    float beta_mean, beta_square, epsilon, scale;  // gradients are multiplied by `scale`
};

struct Piece {
    const Parameter* of;
    size_t first, count;
};

constexpr size_t PIECE = 1 << 15;  // numbers that a thread takes at a time

std::vector<Piece> pieces(const Parameter* parameters, int64_t count) {
    std::vector<Piece> found;
    for (int64_t i = 0; i < count; ++i)
        for (size_t first = 0; first < size_t(parameters[i].size); first += PIECE)
            found.push_back({parameters + i, first, std::min(PIECE, size_t(parameters[i].size) - first)});
    return found;
}

// f(read) with read(place, lanes) for the dtype of the gradient.
template <class F>
void with_gradient(const Parameter& p, const F& f) {
    if (p.gradient_dtype == 0)
        f([from = static_cast<const float*>(p.gradient)](size_t i, Lanes lanes) { return load(from + i, lanes); });
    else
        f([from = static_cast<const bfloat16*>(p.gradient)](size_t i, Lanes lanes) { return load(from + i, lanes); });
}

// Σ gradient², in an order that the number of threads does not change.
double squares(const Parameter* parameters, int64_t count, int threads) {
    const auto work = pieces(parameters, count);
    std::vector<double> sums(work.size());
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t n = 0; n < work.size(); ++n) {
        with_gradient(*work[n].of, [&](auto read) {
            Floats total = splat(0.0f);
            for (size_t i = 0; i < work[n].count; i += WIDTH) {
                const Floats g = read(work[n].first + i, first_lanes(work[n].count - i));
                total += g * g;
            }
            sums[n] = double(sum(total));
        });
    }
    double total = 0.0;
    for (double part : sums) total += part;
    return total;
}

void update(const Parameter* parameters, int64_t count, const Settings& s, int threads) {
    const auto work = pieces(parameters, count);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t n = 0; n < work.size(); ++n) {
        const Parameter& p = *work[n].of;
        const Floats keep = splat(1.0f - p.decay), step = splat(p.rate / p.correction_mean);
        const Floats root = splat(1.0f / std::sqrt(p.correction_square)), epsilon = splat(s.epsilon);
        with_gradient(p, [&](auto read) {
            for (size_t i = work[n].first; i < work[n].first + work[n].count; i += WIDTH) {
                const Lanes lanes = first_lanes(work[n].first + work[n].count - i);
                const Floats g = read(i, lanes) * splat(s.scale);
                Floats mean = load(p.mean + i, lanes), square = load(p.square + i, lanes);
                mean += (g - mean) * splat(1.0f - s.beta_mean);
                square = square * splat(s.beta_square) + g * g * splat(1.0f - s.beta_square);
                const Floats master =
                    load(p.master + i, lanes) * keep - step * mean / (square_root(square) * root + epsilon);
                store(p.mean + i, mean, lanes);
                store(p.square + i, square, lanes);
                store(p.master + i, master, lanes);
                if (p.weight == nullptr) continue;
                if (p.weight_dtype == 0) store(static_cast<float*>(p.weight) + i, master, lanes);
                else store(static_cast<bfloat16*>(p.weight) + i, master, lanes);
            }
        });
    }
}

}  // namespace

// Called from Python (native/__init__.py); nothing is checked here.
extern "C" {

double sensorium_squares(const Parameter* parameters, int64_t count, int64_t threads) {
    return squares(parameters, count, int(threads));
}

void sensorium_adamw(const Parameter* parameters, int64_t count, const Settings* settings, int64_t threads) {
    update(parameters, count, *settings, int(threads));
}

}
