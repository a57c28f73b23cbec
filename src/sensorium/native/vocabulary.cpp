// Cross-entropy over a vocabulary, and its gradients. Logits live transposed, a row for each word of the vocabulary: so the
// vocabulary matrix is read as it lies, the likelihoods of sixteen tokens are summed up side by side, and the gradient
// of a word is a row too. Every thread has a share of the vocabulary.
#include <cstring>
#include <limits>
#include <vector>

#include "backward.h"

namespace {

constexpr size_t WORDS = 256;  // of the vocabulary, taken through both products of the way back together

struct CrossEntropy {
    const void* hidden;      // [tokens, size]
    const void* vocabulary;  // [words, size]
    const float* bias;       // [words] or null
    const int64_t* targets;  // [tokens]
    int64_t tokens, size, words;
    float smoothing;
    float agreement;         // above 0: the second half of the tokens is the first, read again; see `agree`
    int64_t more;            // add to the gradients of vocabulary and bias, instead of writing them
    float* losses;           // [tokens]
    int64_t* likeliest;      // [tokens] the first of the words with the largest logit
    void* logits;            // [words + SPARE, stride] as the products' numbers; stride: tokens up to a multiple of 64
    float* hidden_gradient;      // [tokens, size]; null: no gradients
    float* vocabulary_gradient;  // [words, size]
    float* bias_gradient;        // [words] or null
};

constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

// What a thread knows of sixteen tokens' logits so far; logits are in units of ln 2.
struct Seen {
    Floats largest, likelihood, total;  // likelihood: Σ 2^(logit - largest)
    Integers likeliest;
};

template <class Dtype>
class Loss {
    using Number = typename Dtype::Number;
    static constexpr size_t PER = Dtype::PER_UNIT;
    static constexpr int EXACT = sizeof(Number) == 4 ? 8 : 5;

  public:
    Loss(const CrossEntropy& entropy, int threads)
        : e_(entropy), threads_(size_t(threads)), tokens_(size_t(e_.tokens)), size_(size_t(e_.size)),
          words_(size_t(e_.words)), stride_(round_up(tokens_, PANEL)), hidden_(static_cast<const Number*>(e_.hidden)),
          vocabulary_(static_cast<const Number*>(e_.vocabulary)), logits_(static_cast<Number*>(e_.logits)),
          columns_(stride_ * size_ / PER), rows_(stride_ / PER * round_up(size_, PANEL)),
          seen_(threads_ * stride_ / WIDTH), scale_(stride_ + WIDTH), partial_(threads_ * tokens_ * size_),
          pairs_(e_.agreement > 0.0f ? tokens_ / 2 : 0), apart_(threads_ * stride_), divergence_(stride_ + WIDTH) {}

    void run() {
        for (size_t panel = 0; panel * PANEL < tokens_; ++panel)
            put_keys<Dtype>(columns_.data() + panel * PANEL * (size_ / PER), PANEL,
                            std::min(PANEL, tokens_ - panel * PANEL), hidden_ + panel * PANEL * size_, size_, size_);
        zip_rows<Dtype>(zipped_hidden(), 0, tokens_, size_,
                        [&](size_t row, size_t column, Lanes lanes) {
                            return load(hidden_ + row * size_ + column, lanes);
                        }, nullptr);
#pragma omp parallel num_threads(int(threads_))
        {
            [[maybe_unused]] const MatrixUnit<Dtype> unit;
            const Team team = {omp_get_num_threads(), omp_get_thread_num()};
            size_t begin, end;  // groups of words
            team.share((words_ + WORDS - 1) / WORDS, &begin, &end);
            Seen* seen = seen_.data() + size_t(team.rank) * stride_ / WIDTH;
            for (size_t i = 0; i < stride_ / WIDTH; ++i)
                seen[i] = {splat(-std::numeric_limits<float>::infinity()), splat(0.0f), splat(0.0f), splat_units(0)};
            for (size_t group = begin; group < end; ++group) score(group * WORDS, seen);
            team.meet();
            if (team.rank == 0) sum_up(size_t(team.size));
            team.meet();
            if (pairs_) agree(team, begin * WORDS, std::min(end * WORDS, words_));
            if (e_.hidden_gradient) {
                float* hidden_gradient = partial_.data() + size_t(team.rank) * tokens_ * size_;
                Units zipped(WORDS / PER * stride_), words(WORDS / PER * round_up(size_, PANEL));
                for (size_t group = begin; group < end; ++group)
                    gradients(group * WORDS, zipped.data(), words.data(), hidden_gradient, group > begin);
                team.meet();
                size_t first, last;
                team.share(tokens_ * size_, &first, &last);
                for (size_t i = first; i < last; ++i) {
                    float sum = 0.0f;
                    for (size_t thread = 0; thread < size_t(team.size); ++thread) sum += partial_[thread * tokens_ * size_ + i];
                    e_.hidden_gradient[i] = sum;
                }
            }
        }
    }

  private:
    Zipped zipped_hidden() { return {rows_.data(), steps(tokens_)}; }
    // Whole tiles of steps where products are by tiles.
    static size_t steps(size_t rows) { return round_up((rows + PER - 1) / PER, Dtype::AMX ? EDGE : 1); }

    // The logits of a group of words for all tokens, and what they add to `seen`.
    void score(size_t first, Seen* seen) {
        const size_t count = std::min(WORDS, words_ - first), units = size_ / PER;
        const auto* vocabulary = reinterpret_cast<const uint32_t*>(vocabulary_ + first * size_);
        const size_t by_tiles = Dtype::AMX ? count / (2 * EDGE) * (2 * EDGE) : 0;  // the vocabulary ends with the last row
        if constexpr (Dtype::AMX) score_by_tiles(first, by_tiles, seen);
        for (size_t token = 0; token < tokens_; token += PANEL) {
            const uint32_t* columns = columns_.data() + token * units;
            for (size_t word = by_tiles; word < count; word += ROWS) {
                with_constant<ROWS>(int(std::min(size_t(ROWS), count - word)), [&](auto block) {
                    constexpr int R = decltype(block)::value;
                    with_columns<R>(std::min(PANEL, tokens_ - token), [&](size_t column, auto vectors) {
                        constexpr int C = decltype(vectors)::value;
                        Floats sums[R][C] = {};
                        add_dots<Dtype, R, C>(vocabulary + word * units, units, 1, columns + column, PANEL, units, sums);
                        for (int c = 0; c < C; ++c) {
                            const size_t place = token + column + c * WIDTH;
                            Floats logits[R];
                            for (int r = 0; r < R; ++r) logits[r] = keep_logits(first + word + r, place, sums[r][c]);
                            look_at<R>(logits, first + word, seen[place / WIDTH]);
                        }
                    });
                });
            }
        }
    }

    void score_by_tiles(size_t first, size_t count, Seen* seen) {
        using Sums = amx::Sums<Dtype, 2, 2>;
        constexpr size_t SIDE = 2 * EDGE;
        constexpr int TOGETHER = 8;  // words that are looked at together
        const size_t units = size_ / PER;
        const auto* vocabulary = reinterpret_cast<const uint32_t*>(vocabulary_ + first * size_);
        alignas(64) float sums[2][SIDE][SIDE];
        size_t turn = 0, word_before = 0, token_before = 0;
        bool waits = false;
        const auto finish = [&](size_t from, size_t to) {  // rows of the block before, in eights
            for (size_t r = from; waits && r < std::min(to, SIDE); r += TOGETHER) {
                for (size_t c = 0; c < SIDE; c += WIDTH) {
                    Floats logits[TOGETHER];
#pragma GCC unroll 8
                    for (int i = 0; i < TOGETHER; ++i)
                        logits[i] = keep_logits(first + word_before + r + i, token_before + c, load(sums[1 - turn][r + i] + c));
                    look_at<TOGETHER>(logits, first + word_before + r, seen[(token_before + c) / WIDTH]);
                }
            }
        };
        const size_t at_once = round_up((SIDE * EDGE + units - 1) / units, TOGETHER);
        for (size_t token = 0; token < tokens_; token += SIDE) {
            const uint32_t* columns = columns_.data() + token / PANEL * PANEL * units + token % PANEL;
            for (size_t word = 0; word < count; word += SIDE) {
                size_t done = 0;
                Sums::clear();
                Sums::add(vocabulary + word * units, units, columns, PANEL, units, [&] {
                    finish(done, done + at_once);
                    done += at_once;
                });
                Sums::keep(sums[turn], SIDE);
                turn = 1 - turn;
                word_before = word, token_before = token, waits = true;
            }
        }
        finish(0, SIDE);
    }

    // A word's logits of sixteen tokens: stored, and as rounded by that, in units of ln 2.
    Floats keep_logits(size_t word, size_t token, Floats sums) {
        Number* place = logits_ + word * stride_ + token;
        store(place, sums + splat(e_.bias ? e_.bias[word] : 0.0f));
        return load(place) * splat(LOG2E);
    }

    template <int R>
    static void look_at(const Floats (&logits)[R], size_t word, Seen& seen) {
        Floats largest = seen.largest;
        for (int r = 0; r < R; ++r) {
            seen.likeliest = choose(more(logits[r], largest), splat_units(uint32_t(word + r)), seen.likeliest);
            largest = larger(largest, logits[r]);
        }
        Floats likelihood = seen.likelihood * exp2<EXACT>(seen.largest - largest);
        for (int r = 0; r < R; ++r) {
            likelihood += exp2<EXACT>(logits[r] - largest);
            seen.total += logits[r];
        }
        seen.likelihood = likelihood;
        seen.largest = largest;
    }

    // Loss and likeliest word of every token, and the log of the sum of its likelihoods.
    void sum_up(size_t threads) {
        const auto number = [](const auto& vector, size_t lane) { return reinterpret_cast<const float*>(&vector)[lane]; };
        for (size_t token = 0; token < tokens_; ++token) {
            const size_t lane = token % WIDTH;
            double largest = -std::numeric_limits<double>::infinity(), likelihood = 0.0, total = 0.0;
            for (size_t thread = 0; thread < threads; ++thread) {
                const Seen& seen = seen_[(thread * stride_ + token) / WIDTH];
                if (number(seen.largest, lane) > largest) {
                    largest = number(seen.largest, lane);
                    e_.likeliest[token] = reinterpret_cast<const int32_t*>(&seen.likeliest)[lane];
                }
            }
            for (size_t thread = 0; thread < threads; ++thread) {
                const Seen& seen = seen_[(thread * stride_ + token) / WIDTH];
                if (number(seen.likelihood, lane) > 0.0f)
                    likelihood += number(seen.likelihood, lane) * std::exp2(number(seen.largest, lane) - largest);
                total += number(seen.total, lane);
            }
            const double scale = largest + std::log2(likelihood);
            Floats target = load(logits_ + size_t(e_.targets[token]) * stride_ + token, first_lanes(1)) * splat(LOG2E);
            const double wanted = (1.0 - e_.smoothing) * number(target, 0) + e_.smoothing * total / double(words_);
            scale_[token] = float(scale);
            e_.losses[token] = float((scale - wanted) * LN2);
        }
    }

    // The two readings p and q of a token are to agree (Liang et al., 2021, "R-Drop"): the loss has
    // `agreement` · (KL(p‖q) + KL(q‖p)) / 2 = `agreement` / 2 · Σ (p - q) · (log p - log q). A divergence is summed up by all
    // threads, each over its words.
    void agree(const Team& team, size_t first, size_t last) {
        float *from_p = apart_.data() + size_t(team.rank) * stride_, *from_q = from_p + pairs_;
        for (size_t word = first; word < last; ++word) {
            for (size_t token = 0; token < pairs_; token += WIDTH) {
                const Lanes lanes = first_lanes(pairs_ - token);
                const auto [p, q, ratio] = readings(word, token);
                store(from_p + token, load(from_p + token, lanes) + p * ratio, lanes);
                store(from_q + token, load(from_q + token, lanes) - q * ratio, lanes);
            }
        }
        team.meet();
        if (team.rank == 0) {
            for (size_t token = 0; token < 2 * pairs_; ++token) {
                float sum = 0.0f;
                for (size_t thread = 0; thread < size_t(team.size); ++thread) sum += apart_[thread * stride_ + token];
                divergence_[token] = sum;
                e_.losses[token] += 0.5f * e_.agreement * sum;
            }
        }
        team.meet();
    }

    // Likelihoods of a word at sixteen tokens, in both readings, and log p - log q.
    struct Readings {
        Floats p, q, ratio;
    };
    Readings readings(size_t word, size_t token) const {
        const Number* row = logits_ + word * stride_;
        const Floats p = load(row + token) * splat(LOG2E) - load(scale_.data() + token);
        const Floats q = load(row + pairs_ + token) * splat(LOG2E) - load(scale_.data() + pairs_ + token);
        return {exp2<EXACT>(p), exp2<EXACT>(q), (p - q) * splat(LN2)};
    }

    // What agreement adds to the gradients of a word's logits, those of p and those of q.
    struct Pull {
        Floats p, q;
    };
    Pull disagreement(size_t word, size_t token) const {
        const auto [p, q, ratio] = readings(word, token);
        const Floats half = splat(0.5f * e_.agreement);
        return {half * (p * (ratio - load(divergence_.data() + token)) + p - q),
                half * (q * (splat(0.0f) - ratio - load(divergence_.data() + pairs_ + token)) + q - p)};
    }

    // The gradients of a group of words, as rows and zipped; then both products with them.
    void gradients(size_t first, uint32_t* zipped, uint32_t* words, float* hidden_gradient, bool more) {
        const size_t count = std::min(WORDS, words_ - first);
        for (size_t word = 0; word < count; word += PER) softmax(first + word, word + 1 < count, zipped + word / PER * stride_);
        for (size_t token = 0; token < tokens_; ++token)
            if (size_t(e_.targets[token]) - first < count) subtract_target(first, token, zipped);
        add_words(first, count);
        const Zipped vocabulary = {words, steps(count)};
        zip_rows<Dtype>(vocabulary, 0, count, size_,
                        [&](size_t row, size_t column, Lanes lanes) {
                            return load(vocabulary_ + (first + row) * size_ + column, lanes);
                        }, nullptr);
        const size_t pairs = (count + PER - 1) / PER;  // the steps behind them add nothing
        std::memset(zipped + pairs * stride_, 0, (vocabulary.steps - pairs) * stride_ * sizeof(uint32_t));
        add_hidden(zipped, vocabulary, hidden_gradient, more);
    }

    Floats likelihood(size_t word, size_t token) const {
        const Floats logits = load(logits_ + word * stride_ + token) * splat(LOG2E);
        return exp2<EXACT>(logits - load(scale_.data() + token)) - splat(e_.smoothing / float(words_));
    }

    // Likelihoods of a word, or of two (`pair`), in place of their logits.
    void softmax(size_t word, bool pair, uint32_t* zipped) {
        const size_t count = pair && PER == 2 ? 2 : 1;
        for (size_t i = 0; i < count; ++i) {
            if (pairs_) softmax_of_readings(word + i);
            else softmax_of_word(word + i);
        }
        for (size_t token = 0; token < stride_; token += WIDTH) {
            const Number* place = logits_ + word * stride_ + token;
            store_units(zipped + token, zip<Dtype>(load(place), count == 2 ? load(place + stride_) : splat(0.0f)));
        }
    }

    void softmax_of_word(size_t word) {
        Floats total = splat(0.0f);
        for (size_t token = 0; token < stride_; token += WIDTH) {
            const Lanes lanes = token < tokens_ ? first_lanes(tokens_ - token) : NONE;
            const Floats value = only(lanes, likelihood(word, token));
            store(logits_ + word * stride_ + token, value);
            total += value;
        }
        add_to_bias(word, total);
    }

    // The same where a token's two readings are to agree: both logits must be read before either is written over.
    void softmax_of_readings(size_t word) {
        Floats total = splat(0.0f);
        Number* row = logits_ + word * stride_;
        std::fill(row + tokens_, row + stride_, Number());
        for (size_t token = 0; token < pairs_; token += WIDTH) {
            const Lanes lanes = first_lanes(pairs_ - token);
            const auto [p, q] = disagreement(word, token);
            const Floats first = only(lanes, likelihood(word, token) + p);
            const Floats second = only(lanes, likelihood(word, pairs_ + token) + q);
            store(row + token, first, lanes);
            store(row + pairs_ + token, second, lanes);
            total += first + second;
        }
        add_to_bias(word, total);
    }

    void add_to_bias(size_t word, Floats total) {
        if (e_.bias_gradient) e_.bias_gradient[word] = sum(total) + (e_.more ? e_.bias_gradient[word] : 0.0f);
    }

    void subtract_target(size_t first, size_t token, uint32_t* zipped) {
        const size_t word = size_t(e_.targets[token]) - first;
        Number* place = logits_ + (first + word) * stride_ + token;
        const float wanted = 1.0f - e_.smoothing;
        store(place, load(place, first_lanes(1)) - splat(wanted), first_lanes(1));
        reinterpret_cast<Number*>(zipped + word / PER * stride_ + token)[word % PER] = *place;
        if (e_.bias_gradient) e_.bias_gradient[first + word] -= wanted;
    }

    // vocabulary_gradient[word] (+)= Σ_token gradient[word][token] · hidden[token]
    void add_words(size_t first, size_t count) {
        const Zipped hidden = zipped_hidden();
        const auto* gradients = reinterpret_cast<const uint32_t*>(logits_ + first * stride_);
        if constexpr (Dtype::AMX)
            return products_by_tiles<Dtype>(gradients, stride_ / PER, count, hidden, 0, hidden.steps, size_,
                                            e_.vocabulary_gradient + first * size_, e_.more);
        products<Dtype>(gradients, stride_ / PER, 1, count, hidden, 0, hidden.steps, size_,
                        e_.vocabulary_gradient + first * size_, e_.more);
    }

    // hidden_gradient[token] (+)= Σ_word gradient[word][token] · vocabulary[word]
    void add_hidden(const uint32_t* zipped, const Zipped& vocabulary, float* hidden_gradient, bool more) {
        if constexpr (Dtype::AMX) {
            static thread_local Units rows;  // [tokens, pairs of words]
            rows.resize((stride_ + SPARE) * WORDS / PER);
            transpose(zipped, stride_, vocabulary.steps, tokens_, rows.data(), WORDS / PER);
            return products_by_tiles<Dtype>(rows.data(), WORDS / PER, tokens_, vocabulary, 0, vocabulary.steps, size_,
                                            hidden_gradient, more);
        }
        products<Dtype>(zipped, 1, stride_, tokens_, vocabulary, 0, vocabulary.steps, size_, hidden_gradient, more);
    }

    const CrossEntropy& e_;
    const size_t threads_, tokens_, size_, words_, stride_;
    const Number *hidden_, *vocabulary_;
    Number* logits_;
    Units columns_, rows_;                   // hidden, packed for both products
    std::vector<Seen> seen_;                // [threads, stride / 16]
    std::vector<float> scale_;              // [stride + 16] log₂ Σ 2^logit
    std::vector<float> partial_;            // [threads, tokens, size] the hidden gradient of each thread's words
    const size_t pairs_;                    // of readings of a token
    std::vector<float> apart_;              // [threads, stride] what a thread's words add to the divergences
    std::vector<float> divergence_;         // [stride + 16] KL(p‖q) of each token, then KL(q‖p)
};

}  // namespace

// Called from Python (native/__init__.py); nothing is checked here. dtype: 0 float32, 1 bfloat16, 5 bfloat16 by tiles.
extern "C" void sensorium_cross_entropy(int64_t dtype, const CrossEntropy* entropy, int64_t threads) {
    with_trained(dtype, [&](auto d) { Loss<decltype(d)>(*entropy, int(threads)).run(); });
}
