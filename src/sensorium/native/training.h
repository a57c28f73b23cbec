// What training takes and gives: the parts of a block that learn, what the forward pass keeps because the way back can't
// cheaply work it out again, and where gradients go.
#pragma once

#include "attention_backward.h"
#include "dropout.h"
#include "stack.h"

// The linear maps of a block that learn; the last three where it attends to another stack's vectors.
enum Map { QKV, OUTPUT, UP, DOWN, QUERY, MEMORY_OUTPUT, KEY_VALUE, MAPS };
constexpr Linear Layer::*MAP[MAPS] = {&Layer::qkv,   &Layer::output,        &Layer::up,       &Layer::down,
                                      &Layer::query, &Layer::memory_output, &Layer::key_value};

enum Place { ATTENTION, MLP, MEMORY, PLACES };  // of a norm, and of the dropout before it
constexpr Norm Layer::*NORM[PLACES] = {&Layer::attention_norm, &Layer::mlp_norm, &Layer::memory_norm};

struct LayerBackward {
    Linear linear[MAPS];   // transposed, without bias
    float* weights[MAPS];  // gradients [outputs, inputs]; null: not wanted
    float* vectors;        // gradients of norms and biases, see `Vectors`
};

// What the forward pass keeps, for all T tokens and S tokens of sources, in the dtype of the products; products by tiles
// read SPARE rows more.
struct Kept {
    void* input;            // [T, hidden]
    void* normals;          // [layers, places, T, hidden] of the norms
    float* inverses;        // [layers, places, T] one over their deviations
    void* qkv;              // [layers, T, 3 · hidden]
    void* attended;         // [layers, T, hidden]
    void* up;               // [layers, T, mlp] before the activation
    void* query;            // [layers, T, hidden]
    void* memory_attended;  // [layers, T, hidden]
    void* key_value;        // [layers, S, 2 · hidden]
};

struct Training {
    Stack stack;
    Activation slope;
    Dropout dropout, attention_dropout;
    const LayerBackward* backward;
    Kept kept;
    int64_t tokens, source_tokens, lowest;  // layers below `lowest` need no gradients
    uint32_t* zipped;         // room for the operands of a layer's products over rows
    float* sums;              // [tiles, vectors]
    const int64_t* sources;   // [sequences + 1] where the source of each sequence begins; null: there are none
    const void* memory;       // [S, memory size] in the dtype of the products: what another stack made of the sources
    float* memory_gradient;   // [S, memory size], which is added to; null: not wanted

    size_t places() const { return sources ? PLACES : MEMORY; }
};

// Where the gradients of a layer's norms and biases stand in one row of numbers.
struct Vectors {
    float *norm_weight[PLACES], *norm_bias[PLACES], *bias[MAPS];
    size_t count = 0;

    Vectors(float* row, const Stack& stack) {
        const auto take = [&](size_t size) { return row + std::exchange(count, count + size); };
        const Layer& layer = stack.layer[0];
        for (int place = 0; place < PLACES; ++place) {
            const size_t size = (layer.*NORM[place]).weight ? size_t(stack.hidden) : 0;
            norm_weight[place] = take(size), norm_bias[place] = take(size);
        }
        for (int map = 0; map < MAPS; ++map) bias[map] = take(size_t((layer.*MAP[map]).outputs));
    }
};

// Both operands of the products over rows of a layer: gradients of what linear maps gave, and what they took.
struct Operands {
    Zipped gradient[MAPS], input[MAPS];

    // Steps of the products over tokens, and of those over the tokens of sources.
    Operands(uint32_t* units, size_t steps, size_t source_steps, const Layer& layer) {
        for (int map = 0; map < MAPS; ++map) {
            const Linear& linear = layer.*MAP[map];
            const auto take = [&, count = map == KEY_VALUE ? source_steps : steps](int64_t columns) {
                return Zipped{std::exchange(units, units + round_up(size_t(columns), PANEL) * count), count};
            };
            gradient[map] = take(linear.outputs), input[map] = take(linear.inputs);
        }
    }

    // Nothing in the steps behind the last row.
    void clear(size_t begin, size_t source_begin, const Layer& layer) const {
        for (int map = 0; map < MAPS; ++map) {
            const Linear& linear = layer.*MAP[map];
            const size_t from = map == KEY_VALUE ? source_begin : begin;
            for (const auto& [zipped, columns] : {std::pair(gradient[map], linear.outputs), std::pair(input[map], linear.inputs)})
                for (size_t panel = 0; panel * PANEL < size_t(columns); ++panel)
                    std::memset(zipped.panel(panel, from), 0, (zipped.steps - from) * PANEL * sizeof(uint32_t));
        }
    }
};
