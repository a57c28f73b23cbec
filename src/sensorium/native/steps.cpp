// What is done between two steps of decoding: logits become log probabilities, the likeliest tokens are found, and
// sequences that part get pages of their own.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tile.h"

namespace {

float largest_of(const float* row, size_t size) {
    Floats largest = splat(-std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        largest = choose(lanes, larger(largest, load(row + i, lanes)), largest);
    }
    return maximum(largest);
}

// x - log Σ e^x of a row.
void log_softmax(const float* row, size_t size, float* to) {
    constexpr float LOG2E = 1.44269504f;
    const float largest = largest_of(row, size);
    const Floats shift = splat(largest * LOG2E);
    Floats total = splat(0.0f);
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        total += only(lanes, exp2<8>(fused_less(load(row + i, lanes), splat(LOG2E), shift)));
    }
    const Floats away = splat(largest + std::log(sum(total)));
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        store(to + i, load(row + i, lanes) - away, lanes);
    }
}

// The `count` largest of a row, from the largest down; of equal ones, those that stand first.
void most_of(const float* row, size_t size, size_t count, float* values, int64_t* places) {
    std::fill(values, values + count, -std::numeric_limits<float>::infinity());
    std::fill(places, places + count, int64_t(-1));
    size_t found = 0;
    for (size_t i = 0; i < size; i += WIDTH) {
        const Lanes lanes = first_lanes(size - i);
        const Floats x = load(row + i, lanes);
        const float least = values[count - 1];
        unsigned better = which(lanes) & (found < count ? ~0u : which(more(x, splat(least))));
        for (; better; better &= better - 1) {
            const size_t lane = size_t(__builtin_ctz(better));
            const float value = row[i + lane];
            if (found == count && !(value > values[count - 1])) continue;
            size_t place = found < count ? found++ : count - 1;
            for (; place > 0 && value > values[place - 1]; --place)
                values[place] = values[place - 1], places[place] = places[place - 1];
            values[place] = value, places[place] = int64_t(i + lane);
        }
    }
}

// Of a page that another sequence goes on from: where it lies, where its copy goes, and how many tokens are in it.
struct Copy {
    int64_t from, to, tokens;
};

void copy_pages(const Cache& cache, const Copy* copies, int64_t count, int64_t layers, size_t heads, size_t head,
                size_t per_unit, int threads) {
    const size_t row = round_up(head, WIDTH), key_units = head / per_unit * PAGE, value_units = PAGE / per_unit * row;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count * layers; ++i) {
        const Copy& copy = copies[i % count];
        const size_t first = size_t(i / count) * size_t(cache.pages), tokens = round_up(size_t(copy.tokens), 2 * EDGE);
        for (size_t h = 0; h < heads; ++h) {
            const size_t from = (first + size_t(copy.from)) * heads + h, to = (first + size_t(copy.to)) * heads + h;
            for (size_t unit = 0; unit < key_units; unit += PAGE)
                std::memcpy(cache.keys + to * key_units + unit, cache.keys + from * key_units + unit, tokens * 4);
            std::memcpy(cache.values + to * value_units, cache.values + from * value_units, tokens / per_unit * row * 4);
        }
    }
}

}  // namespace

// Called from Python (native/__init__.py); nothing is checked here.
extern "C" {

void sensorium_log_softmax(const float* rows, int64_t count, int64_t size, float* to, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(int(threads))
    for (int64_t row = 0; row < count; ++row) log_softmax(rows + row * size, size_t(size), to + row * size);
}

void sensorium_most(const float* rows, int64_t count, int64_t size, int64_t most, float* values, int64_t* places,
                    int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(int(threads))
    for (int64_t row = 0; row < count; ++row)
        most_of(rows + row * size, size_t(size), size_t(most), values + row * most, places + row * most);
}

void sensorium_copy_pages(const Cache* cache, const Copy* copies, int64_t count, int64_t layers, int64_t heads,
                          int64_t head, int64_t per_unit, int64_t threads) {
    copy_pages(*cache, copies, count, layers, size_t(heads), size_t(head), size_t(per_unit), int(threads));
}

}
