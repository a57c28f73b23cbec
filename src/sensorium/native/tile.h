// A tile of packed sequences on its way through all layers, for inference.
#pragma once

#include <cstring>

#include "stack.h"
#include "weights.h"

// Keys and values of earlier tokens, or of another stack's: pages [layers, pages, heads, a page], and which pages a
// sequence has.
struct Cache {
    uint32_t* keys;
    uint32_t* values;
    const int64_t* table;    // [sequences, columns]
    const int64_t* lengths;  // [sequences] tokens before this step
    int64_t pages, columns;
};

struct Batch {
    float* x;                     // [T, hidden], in and out
    const int64_t* offsets;       // [sequences + 1]
    const Cache* cache;           // null: every sequence is whole
    const float *cosines, *sines; // [T, head / 2] of rotary positions; null: none
    const Cache* memory;          // null: none; what another stack made of some sources, a row of pages for each
    const int64_t* readers;       // [sources + 1] the tokens that read each source
    int64_t sources;
    const float* distances;       // [heads, 2 · reach - 1] what is added to scores of keys 1 - reach places away from their
    int64_t reach;                // query to reach - 1 behind it, before they are scaled; null: nothing
};

template <class Dtype>
class Tile {
    using Middle = typename Between<Dtype>::Type;
    using Number = typename Middle::Number;

  public:
    Tile(const Stack& stack, const Batch& batch, size_t first, size_t last, Memory& memory)
        : s_(stack), batch_(batch), first_(first), last_(last), size_(size_t(stack.hidden)), mlp_(size_t(stack.mlp)),
          head_(size_t(stack.head)), heads_(size_t(stack.heads)), kv_heads_(size_t(stack.kv_heads)),
          width_(heads_ * head_), stride_((heads_ + 2 * kv_heads_) * head_), start_(size_t(batch.offsets[first])),
          rows_(size_t(batch.offsets[last]) - start_), step_(block_rows<Dtype>(rows_)), x_(batch.x + start_ * size_) {
        const size_t widest = std::max({size_, mlp_, width_});
        const size_t in_block = mlp_ * sizeof(Number) + 4 * widest + 8;
        memory.reset((rows_ + SPARE) * (stride_ + width_) * sizeof(Number) + (BLOCK<Dtype> + SPARE) * in_block + 4096);
        qkv_ = memory.take<Number>((rows_ + SPARE) * stride_);
        attended_ = memory.take<Number>((rows_ + SPARE) * width_);
        middle_ = memory.take<Number>((BLOCK<Dtype> + SPARE) * mlp_);
        operand_ = memory.take<typename Dtype::Number>((BLOCK<Dtype> + SPARE) * widest);
        scales_ = memory.take<float>(BLOCK<Dtype>);
    }

    // Every thread of the team calls this; `own` is the thread's own memory.
    void run(const Team& team, Memory& own) {
        for (int64_t layer = 0; layer < s_.layers; ++layer) {
            const Layer& l = s_.layer[layer];
            each_block([&](size_t row, size_t count) {
                queries(team, l.attention_norm, row, count, l.qkv, stride_);
            });
            team.meet();
            attention(team, l, size_t(layer), own);
            team.meet();
            if (batch_.memory) {
                each_block([&](size_t row, size_t count) {
                    leave(team, l.output, l.attention_norm, row, count);
                    queries(team, l.memory_norm, row, count, l.query, width_);
                    team.meet();
                });
                memory_attention(team, size_t(layer), own);
                team.meet();
            }
            each_block([&](size_t row, size_t count) {
                if (batch_.memory) leave(team, l.memory_output, l.memory_norm, row, count);
                else leave(team, l.output, l.attention_norm, row, count);
                mlp(team, l, x_ + row * size_, count);
            });
        }
        if (s_.final_norm.weight) each(team, rows_, [&](size_t row) { norm(s_.final_norm, x_ + row * size_); });
    }

  private:
    void norm(const Norm& n, float* row) const {
        if (n.bias) layer_norm(row, size_, n.weight, n.bias, s_.epsilon);
        else rms_norm(row, size_, n.weight, s_.epsilon);
    }

    template <class F>
    void each_block(const F& f) const {
        for (size_t row = 0; row < rows_; row += step_) f(row, std::min(step_, rows_ - row));
    }

    template <class F>
    static void each(const Team& team, size_t count, const F& f) {
        size_t begin, end;
        team.share(count, &begin, &end);
        for (size_t i = begin; i < end; ++i) f(i);
    }

    template <class From>
    void prepare(const From* from, size_t row, const Linear& linear) {
        prepare_row<Dtype>(from, linear, operand_ + row * size_t(linear.inputs), scales_ + row);
    }
    Rows prepared(size_t size) const { return {operand_, size / Dtype::PER_UNIT, scales_}; }

    // Rows that the next product takes: as they are where their dtype is the product's.
    Rows operand(const Team& team, const Number* from, size_t count, const Linear& linear) {
        const size_t size = size_t(linear.inputs);
        if constexpr (Dtype::PER_UNIT != 4) return {from, size / Dtype::PER_UNIT, nullptr};
        each(team, count, [&](size_t row) { prepare(from + row * size, row, linear); });
        team.meet();
        return prepared(size);
    }

    // The residual stream's rows, normalised on the way where the norm stands before.
    Rows normal(const Team& team, const Norm& n, float* x, size_t count, const Linear& linear) {
        each(team, count, [&](size_t row) {
            if (s_.pre_norm) {
                float copy[MOST_HIDDEN];
                std::memcpy(copy, x + row * size_, size_ * sizeof(float));
                norm(n, copy);
                prepare(copy, row, linear);
            } else {
                prepare(x + row * size_, row, linear);
            }
        });
        team.meet();
        return prepared(size_);
    }

    // x = x + rows · weights, then the norm where it stands after.
    void add(const Team& team, const Linear& linear, const Rows& rows, float* x, size_t count, const Norm& n) {
        const size_t size = size_;
        product<Dtype>(team, rows, count, linear, [=](size_t row, size_t column, Lanes lanes, Floats value) {
            float* place = x + row * size + column;
            store(place, load(place, lanes) + value, lanes);
        });
        team.meet();
        if (!s_.pre_norm) each(team, count, [&](size_t row) { norm(n, x + row * size_); });
    }

    // What attention takes: `stride` numbers a row.
    void queries(const Team& team, const Norm& n, size_t row, size_t count, const Linear& linear, size_t stride) {
        team.meet();
        const Rows rows = normal(team, n, x_ + row * size_, count, linear);
        Number* to = qkv_ + row * stride;
        product<Dtype>(team, rows, count, linear, [=](size_t r, size_t column, Lanes lanes, Floats value) {
            store(to + r * stride + column, value, lanes);
        });
    }

    // What attention has found goes back into the stream.
    void leave(const Team& team, const Linear& linear, const Norm& n, size_t row, size_t count) {
        add(team, linear, operand(team, attended_ + row * width_, count, linear), x_ + row * size_, count, n);
    }

    void mlp(const Team& team, const Layer& layer, float* x, size_t count) {
        const Rows rows = normal(team, layer.mlp_norm, x, count, layer.up);
        Number* to = middle_;
        const size_t stride = mlp_;
        with_activation(s_.activation, [&](auto activate) {
            const Linear& activated = layer.gate.panels ? layer.gate : layer.up;
            product<Dtype>(team, rows, count, activated, [=](size_t r, size_t column, Lanes lanes, Floats value) {
                store(to + r * stride + column, activate(value), lanes);
            });
        });
        if (layer.gate.panels) {  // a thread has the same columns of both
            product<Dtype>(team, rows, count, layer.up, [=](size_t r, size_t column, Lanes lanes, Floats value) {
                Number* place = to + r * stride + column;
                store(place, load(place, lanes) * value, lanes);
            });
        }
        team.meet();
        add(team, layer.down, operand(team, middle_, count, layer.down), x, count, layer.mlp_norm);
        team.meet();
    }

    // The queries of a head in this tile, or its keys, normalised and turned to their places.
    void turn(Number* from, size_t row, size_t count, const Norm& n) const {
        if (!n.weight && !batch_.cosines) return;
        for (size_t t = 0; t < count; ++t, from += stride_) {
            float copy[MOST_HIDDEN];
            convert_row(from, head_, copy);
            if (n.weight) rms_norm(copy, head_, n.weight, s_.epsilon);
            if (batch_.cosines) {
                const size_t angles = (start_ + row + t) * (head_ / 2);
                rotate(copy, head_, batch_.cosines + angles, batch_.sines + angles);
            }
            convert_row(copy, head_, from);
        }
    }

    // A sequence: its rows of the tile, and how many tokens stood before them.
    struct Sequence {
        size_t number, row, count, before;
    };
    Sequence sequence(size_t number) const {
        const size_t begin = size_t(batch_.offsets[number]), end = size_t(batch_.offsets[number + 1]);
        return {number, begin - start_, end - begin, batch_.cache ? size_t(batch_.cache->lengths[number]) : 0};
    }
    Number* query(size_t row, size_t head) const { return qkv_ + row * stride_ + head * head_; }
    Number* key(size_t row, size_t head) const { return query(row, heads_ + head); }
    Number* value(size_t row, size_t head) const { return query(row, heads_ + kv_heads_ + head); }

    size_t key_units() const { return head_ / Middle::PER_UNIT * PAGE; }
    size_t value_units() const { return PAGE / Middle::PER_UNIT * round_up(head_, WIDTH); }

    // A thread takes all queries that share keys, so that these are packed once. With a cache they are packed before, and
    // a thread takes one head of a sequence; where each sequence brings one token, all that share keys, as if they were
    // tokens.
    void attention(const Team& team, const Layer& l, size_t layer, Memory& own) {
        const size_t sequences = last_ - first_, shared_by = heads_ / kv_heads_;
        if (!batch_.cache) {
            each(team, sequences * kv_heads_, [&](size_t i) {
                const Sequence q = sequence(first_ + i / kv_heads_);
                const size_t kv = i % kv_heads_;
                const Page* pages = packed(q, kv, l, own);
                for (size_t h = kv * shared_by; h < (kv + 1) * shared_by; ++h) attend_head(q, h, l, pages);
            });
            return;
        }
        each(team, sequences * kv_heads_, [&](size_t i) {
            keep(sequence(first_ + i / kv_heads_), i % kv_heads_, l, layer, own);
        });
        team.meet();
        if (rows_ == sequences && !(batch_.distances && shared_by > 1)) {
            each(team, sequences * kv_heads_, [&](size_t i) {
                const Sequence q = sequence(first_ + i / kv_heads_);
                const size_t kv = i % kv_heads_, h = kv * shared_by, keys = q.before + 1;
                for (size_t k = h; k < h + shared_by; ++k) turn(query(q.row, k), q.row, 1, l.query_norm);
                const Page* pages = kept(*batch_.cache, q.number, kv, kv_heads_, keys, layer, own);
                const Head<Number> head = {query(q.row, h), attended_ + q.row * width_ + h * head_, head_, head_,
                                           shared_by, head_, keys, keys, false, s_.scale, distances(h),
                                           size_t(s_.window), q.before, 0};
                attend<Middle>(head, pages, scratch_);
            });
        } else {
            each(team, sequences * heads_, [&](size_t i) {
                const Sequence q = sequence(first_ + i / heads_);
                const size_t h = i % heads_;
                attend_head(q, h, l, kept(*batch_.cache, q.number, h / shared_by, kv_heads_, q.before + q.count, layer, own));
            });
        }
    }

    // Tokens that read one source stand together and are one run of queries: nothing of it is hidden from any of them.
    void memory_attention(const Team& team, size_t layer, Memory& own) {
        const auto* readers = batch_.readers;
        const int64_t begin = int64_t(start_), end = int64_t(start_ + rows_);
        const auto first = std::upper_bound(readers, readers + batch_.sources, begin) - 1 - readers;
        const auto last = std::lower_bound(readers, readers + batch_.sources, end) - readers;
        each(team, size_t(last - first) * heads_, [&](size_t i) {
            const size_t n = size_t(first) + i / heads_, h = i % heads_, keys = size_t(batch_.memory->lengths[n]);
            const size_t row = size_t(std::max(readers[n], begin) - begin);
            const size_t count = size_t(std::min(readers[n + 1], end) - begin) - row;
            const Page* pages = kept(*batch_.memory, n, h, heads_, keys, layer, own);
            const Head<Number> head = {qkv_ + row * width_ + h * head_, attended_ + row * width_ + h * head_, width_,
                                       width_, count, head_, keys, keys, false, s_.scale};
            attend<Middle>(head, pages, scratch_);
        });
    }

    void attend_head(const Sequence& q, size_t h, const Layer& l, const Page* pages) {
        turn(query(q.row, h), q.row, q.count, l.query_norm);
        const Head<Number> head = {query(q.row, h), attended_ + q.row * width_ + h * head_, stride_, width_, q.count,
                                   head_, q.before + q.count, q.before + 1, s_.causal != 0, s_.scale, distances(h),
                                   size_t(s_.window), q.before};
        attend<Middle>(head, pages, scratch_);
    }

    // What the distance of a key adds to a head's scores, at distance 0.
    const float* distances(size_t h) const {
        const size_t reach = size_t(batch_.reach);
        return batch_.distances ? batch_.distances + h * (2 * reach - 1) + reach - 1 : nullptr;
    }

    // Room of a thread for pages and what `attend` needs; the pages' numbers lie behind them.
    Page* room(size_t keys, bool with_numbers, Memory& own) {
        const size_t pages = (keys + PAGE - 1) / PAGE, numbers = with_numbers ? key_units() + value_units() : 0;
        own.reset(pages * (sizeof(Page) + 4 * numbers) + 4 * attention_scratch<Middle>(keys) + 64 * (2 * pages + 4));
        scratch_ = own.take<float>(attention_scratch<Middle>(keys));
        return own.take<Page>(pages);
    }

    // The keys and values of a whole sequence.
    const Page* packed(const Sequence& q, size_t kv, const Layer& l, Memory& own) {
        Page* page = room(q.count, true, own);
        turn(key(q.row, kv), q.row, q.count, l.key_norm);
        for (size_t p = 0; p * PAGE < q.count; ++p) {
            const size_t tokens = std::min(PAGE, q.count - p * PAGE), row = q.row + p * PAGE;
            page[p] = {own.take<uint32_t>(key_units()), own.take<uint32_t>(value_units()), round_up(tokens, WIDTH)};
            put_keys<Middle>(page[p].keys, page[p].width, tokens, key(row, kv), stride_, head_);
            put_values(page[p].values, tokens, value(row, kv), stride_, head_);
            if (tokens % (2 * EDGE)) clear_values<Middle>(page[p].values, tokens, head_);
        }
        return page;
    }

    // The pages of a cache, for one head of a sequence.
    const Page* kept(const Cache& c, size_t n, size_t head, size_t heads, size_t keys, size_t layer, Memory& own) {
        Page* page = room(keys, false, own);
        for (size_t p = 0; p * PAGE < keys; ++p) {
            const size_t number = size_t(c.table[n * size_t(c.columns) + p]);
            const size_t place = (layer * size_t(c.pages) + number) * heads + head;
            page[p] = {c.keys + place * key_units(), c.values + place * value_units(), PAGE};
        }
        return page;
    }

    // This step's keys and values go into the cache.
    void keep(const Sequence& q, size_t kv, const Layer& l, size_t layer, Memory& own) {
        const Page* page = kept(*batch_.cache, q.number, kv, kv_heads_, q.before + q.count, layer, own);
        turn(key(q.row, kv), q.row, q.count, l.key_norm);
        for (size_t t = 0; t < q.count; ++t) {
            const Page& own_page = page[(q.before + t) / PAGE];
            const size_t place = (q.before + t) % PAGE;
            if (place % (2 * EDGE) == 0) clear_values<Middle>(own_page.values, place, head_);
            put<Middle>(own_page, place, key(q.row + t, kv), value(q.row + t, kv), head_);
        }
    }

    static constexpr size_t MOST_HIDDEN = 1 << 14;

    const Stack& s_;
    const Batch& batch_;
    const size_t first_, last_, size_, mlp_, head_, heads_, kv_heads_;
    const size_t width_, stride_;       // of all heads, and of a row of qkv
    const size_t start_, rows_, step_;  // step: rows of a block
    float* x_;
    Number *qkv_, *attended_, *middle_;
    typename Dtype::Number* operand_;
    float* scales_;
    float* scratch_ = nullptr;  // of the thread
};
