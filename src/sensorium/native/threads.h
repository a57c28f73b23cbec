// Threads that share one piece of work and meet at barriers. They are OpenMP's, which torch computes with too: one pool
// for both, so that neither waits for cores that the other keeps busy.
#pragma once

#include <omp.h>

#include <cstddef>

struct Team {
    int size, rank;  // a team of one never waits

    // Wait until every thread of the team is here.
    void meet() const {
        if (size > 1) {
#pragma omp barrier
        }
    }

    // This thread's share of `count` things: [begin, end).
    void share(size_t count, size_t* begin, size_t* end) const {
        *begin = count * size_t(rank) / size_t(size);
        *end = count * size_t(rank + 1) / size_t(size);
    }
};
