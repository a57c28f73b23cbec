// What a tower of blocks is, and how a packed batch is cut for it: shared by inference and training.
#pragma once

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "attention.h"

// Rows that go through one product after the other at most; a thread takes as many tokens, or one sequence that has more.
// A whole number of ROWS on every processor. The matrix unit is so fast that weights must be used for more rows before the
// next ones come.
template <class Dtype>
constexpr size_t BLOCK = Dtype::AMX ? 30 * EDGE : 144;

// Rows of each block of so many: the blocks are even, since a small one would read all weights for little.
template <class Dtype>
inline size_t block_rows(size_t rows) {
    const size_t count = (rows + BLOCK<Dtype> - 1) / BLOCK<Dtype>;
    return round_up((rows + count - 1) / count, Dtype::AMX ? 2 * EDGE : size_t(ROWS));
}

// LayerNorm, or RMSNorm, which has no bias. Both null: there is none.
struct Norm {
    const float* weight;
    const float* bias;
};

// What a block has not has no panels, and norms without weights.
struct Layer {
    Linear qkv, output, gate, up, down;         // gate: of a gated MLP
    Linear query, key_value, memory_output;     // attention to another stack's vectors
    Norm attention_norm, mlp_norm, memory_norm;
    Norm query_norm, key_norm;                  // RMSNorms of each head
};

struct Stack {
    int64_t hidden, heads, kv_heads, head, mlp, layers, pre_norm, causal;
    int64_t window;  // tokens that a causal stack's queries see, their own the last; 0: all before them
    float scale, epsilon;
    Activation activation;
    const Layer* layer;
    Norm final_norm;
};

// What lies between products: 8-bit numbers are made only where a product takes them.
template <class Dtype>
struct Between {
    using Type = Dtype;
};
template <>
struct Between<Int8> {
    using Type = Bfloat16;
};
template <>
struct Between<Int8Amx> {
    using Type = Bfloat16Amx;
};

// Memory that grows and is kept, aligned for vectors.
class Memory {
  public:
    ~Memory() { std::free(start_); }
    void reset(size_t bytes) {
        used_ = 0;
        if (bytes <= size_) return;
        std::free(start_);
        size_ = round_up(bytes, 4096);
        start_ = static_cast<char*>(std::aligned_alloc(4096, size_));
        std::memset(start_, 0, size_);
    }
    template <class T>
    T* take(size_t count) {
        T* taken = reinterpret_cast<T*>(start_ + used_);
        used_ += round_up(count * sizeof(T), 64);
        return taken;
    }

  private:
    char* start_ = nullptr;
    size_t size_ = 0, used_ = 0;
};

// Whole sequences end to end, `most` tokens a tile, or one longer sequence.
inline std::vector<std::pair<size_t, size_t>> tiles(const int64_t* offsets, size_t sequences, int64_t most) {
    std::vector<std::pair<size_t, size_t>> found;
    for (size_t n = 0; n < sequences; ++n) {
        if (!found.empty() && offsets[n + 1] - offsets[found.back().first] <= most) found.back().second = n + 1;
        else found.emplace_back(n, n + 1);
    }
    return found;
}

// The same for inference, where a tile's bounds change no result: about as many tokens in each, and as many tiles for
// each thread, so that none waits long for the others.
inline std::vector<std::pair<size_t, size_t>> even_tiles(const int64_t* offsets, size_t sequences, int64_t most,
                                                         int64_t threads) {
    const int64_t tokens = offsets[sequences], rounds = (tokens + most * threads - 1) / (most * threads);
    const int64_t count = std::max<int64_t>(rounds * threads, 1);
    std::vector<std::pair<size_t, size_t>> found;
    for (size_t n = 0; n < sequences; ++n) {
        const int64_t middle = (offsets[n] + offsets[n + 1]) / 2, share = int64_t(found.size()) * tokens / count;
        if (found.empty() || middle >= share) found.emplace_back(n, n + 1);
        else found.back().second = n + 1;
    }
    return found;
}
