// Sequences with queries, keys and values for the tests of attention, on either backend.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/device/device_array.h"

namespace invar {
namespace attention_testing {

using numerics::bf;
using numerics::widen;

// What the numbers look like. Every schedule must give the reference's bits on each.
enum class Values { kNormal, kWide, kEqualScores, kZeros, kSubnormal, kHugeScores, kWanderingScores };
constexpr Values kAllValues[] = {Values::kNormal,    Values::kWide,       Values::kEqualScores,    Values::kZeros,
                                 Values::kSubnormal, Values::kHugeScores, Values::kWanderingScores};

inline Bf16 draw(std::mt19937& rng, Values values) {
  std::normal_distribution<float> normal;
  switch (values) {
    case Values::kNormal:
      return bf(normal(rng));
    case Values::kWide:
      return bf(std::ldexp(normal(rng), static_cast<int>(rng() % 41) - 30));
    case Values::kEqualScores:
      return bf(1.0f);
    case Values::kZeros:
      return rng() % 3 ? Bf16{static_cast<uint16_t>(rng() % 2 ? 0x8000 : 0)} : bf(normal(rng));
    case Values::kSubnormal:
      return Bf16{static_cast<uint16_t>((rng() & 0x8000) | (rng() % 4 ? rng() & 0xff : rng() % 0x4000))};
    case Values::kHugeScores:
      return bf(normal(rng) * 3000.0f);
    case Values::kWanderingScores:  // before World::wander
      return bf(normal(rng));
  }
  return Bf16{0};
}

struct Shape {
  int64_t query_heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 64;
  int64_t page_size = 16;
  int64_t window = 0;
};

struct Token {
  int32_t sequence;
  int32_t position;
  bool operator<(const Token& o) const { return std::pair(sequence, position) < std::pair(o.sequence, o.position); }
};

// Sequences with their queries, keys and values, and pages that hold garbage wherever nothing was written.
class World {
 public:
  World(const Shape& shape, std::vector<int64_t> lengths, Values values = Values::kNormal, uint32_t seed = 1)
      : shape_(shape), lengths_(std::move(lengths)) {
    std::mt19937 rng(seed);
    for (const int64_t length : lengths_) {
      q_.push_back(fill(rng, length * shape.query_heads * shape.head_dim, values));
      k_.push_back(fill(rng, length * shape.kv_heads * shape.head_dim, values));
      v_.push_back(fill(rng, length * shape.kv_heads * shape.head_dim, values == Values::kHugeScores ? Values::kNormal : values));
    }
    for (int64_t h = 0; h < shape.query_heads; ++h)
      kv_head_of_.push_back(static_cast<int32_t>(h * shape.kv_heads / shape.query_heads));
    if (values != Values::kWanderingScores) return;
    for (int32_t s = 0; s < static_cast<int32_t>(lengths_.size()); ++s)
      for (int64_t head = 0; head < shape.kv_heads; ++head) wander(rng, s, head, s % 4 == 3);
  }

  std::vector<Bf16>& q(int sequence) { return q_[sequence]; }
  std::vector<Bf16>& k(int sequence) { return k_[sequence]; }
  std::vector<Bf16>& v(int sequence) { return v_[sequence]; }
  std::vector<int32_t>& kv_head_of() { return kv_head_of_; }
  int64_t length(int sequence) const { return lengths_[sequence]; }
  const Shape& shape() const { return shape_; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Of every 32 keys the latter 16 repeat the former with the opposite values, which are of many sizes: sums cancel, and what is
  // left shows the order of adding. (Not key by key: neighbours would leave an exact zero, and so would a group of 16 of the
  // tensor-core rule.)
  void cancel() {
    const int64_t width = shape_.kv_heads * shape_.head_dim;
    for (size_t s = 0; s < lengths_.size(); ++s) {
      for (int64_t i = 0; i < lengths_[s]; ++i) {
        Bf16 *k = &k_[s][i * width], *v = &v_[s][i * width];
        for (int64_t d = 0; d < width; ++d) {
          if (i % 32 < 16) {
            v[d] = bf(std::ldexp(widen(v[d]), static_cast<int>(i * 11 % 16) - 8));
          } else {
            k[d] = k[d - 16 * width];
            v[d] = Bf16{static_cast<uint16_t>(v[d - 16 * width].bits ^ 0x8000)};
          }
        }
      }
    }
  }
  // The token's values become NaN and infinities, in every head; with `keys` its keys NaN.
  void spoil(const Token& token, bool keys = false) {
    constexpr uint16_t kNoNumbers[] = {0x7fc0, 0x7f80, 0xff80};
    const int64_t width = shape_.kv_heads * shape_.head_dim, first = token.position * width;
    for (int64_t d = 0; d < width; ++d) {
      v_[token.sequence][first + d] = Bf16{kNoNumbers[d % 3]};
      if (keys) k_[token.sequence][first + d] = Bf16{0x7fc0};
    }
  }
  // Queries (1, 1, 1, 0 ..): the raw score of each with a key is the sum of the key's first three elements.
  void level_queries(int32_t sequence) {
    std::vector<Bf16>& q = q_[sequence];
    for (size_t i = 0; i < q.size(); ++i) q[i] = bf(static_cast<int64_t>(i) % shape_.head_dim < 3 ? 1.0f : 0.0f);
  }
  // For sequences with such queries: the raw score of this key is `score`, exactly and in both profiles.
  void set_score(const Token& key, int64_t kv_head, float score) {
    const int64_t hd = shape_.head_dim;
    Bf16* k = &k_[key.sequence][(key.position * shape_.kv_heads + kv_head) * hd];
    std::fill(k, k + hd, Bf16{0});
    for (int piece = 0; piece < 3; ++piece) {
      k[piece] = Bf16{static_cast<uint16_t>(numerics::float_bits(score) >> 16)};
      if (!std::isfinite(score)) break;
      score -= widen(k[piece]);
    }
  }
  // Two keys with large weights, and all others' so small beside them that a chain of tensor-core steps cuts each to nothing,
  // where lanes of their own add them up.
  void small_weights(int32_t sequence) {
    const float c = scale() * numerics::kLog2e;
    level_queries(sequence);
    for (int32_t j = 0; j < lengths_[sequence]; ++j)
      for (int64_t head = 0; head < shape_.kv_heads; ++head)
        set_score({sequence, j}, head, (j < 2 ? -0.1f * static_cast<float>((j * 5 + head) % 8) : -25.3f) / c);
  }
  AttentionHeads& planned_heads() { return heads_; }

  // Fresh pages in an order of `seed`, every slot garbage, NaN and infinities too.
  void allocate(const Device& device, uint32_t seed) {
    device_ = &device;
    std::mt19937 rng(seed);
    int64_t count = 3;
    for (const int64_t length : lengths_) count += (length + shape_.page_size - 1) / shape_.page_size;
    pages_ = KvPages(device, count, shape_.page_size, shape_.kv_heads, shape_.head_dim);
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng);
    tables_.clear();
    size_t next = 0;
    for (const int64_t length : lengths_) {
      tables_.emplace_back();
      for (int64_t i = 0; i < length; i += shape_.page_size) tables_.back().push_back(order[next++]);
    }
    const int64_t width = shape_.kv_heads * shape_.head_dim, slots = count * shape_.page_size;
    std::vector<Bf16> garbage(slots * width);
    for (Bf16& g : garbage) g.bits = static_cast<uint16_t>(rng());
    std::vector<int64_t> all(slots);
    std::iota(all.begin(), all.end(), int64_t{0});
    const DeviceArray<Bf16> source(device, garbage);
    const DeviceArray<int64_t> slot_array(device, all);
    pages_.write(device, slots, source.data(), source.data(), width, slot_array.data());
  }

  void write(const Device& device, const std::vector<Token>& tokens) {
    const int64_t width = shape_.kv_heads * shape_.head_dim, stride = width + 8;
    std::vector<Bf16> k(tokens.size() * stride), v(tokens.size() * stride);
    std::vector<int64_t> slots;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto [sequence, position] = tokens[i];
      std::copy_n(&k_[sequence][position * width], width, &k[i * stride]);
      std::copy_n(&v_[sequence][position * width], width, &v[i * stride]);
      slots.push_back(tables_[sequence][position / shape_.page_size] * shape_.page_size + position % shape_.page_size);
    }
    const DeviceArray<Bf16> keys(device, k), values(device, v);
    const DeviceArray<int64_t> slot_array(device, slots);
    pages_.write(device, static_cast<int64_t>(tokens.size()), keys.data(), values.data(), stride, slot_array.data());
  }

  std::vector<Token> all_tokens() const {
    std::vector<Token> tokens;
    for (size_t s = 0; s < lengths_.size(); ++s)
      for (int64_t i = 0; i < lengths_[s]; ++i) tokens.push_back({static_cast<int32_t>(s), static_cast<int32_t>(i)});
    return tokens;
  }

  template <class Run>
  void run(const std::vector<Token>& rows, const Run& run, std::map<Token, std::vector<Bf16>>& out) const {
    const int64_t width = shape_.query_heads * shape_.head_dim, stride = width + 24;
    std::vector<Bf16> q(rows.size() * stride), blank(rows.size() * stride, Bf16{0xdead});
    std::vector<int32_t> positions, sequences;
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(&q_[rows[i].sequence][rows[i].position * width], width, &q[i * stride]);
      positions.push_back(rows[i].position);
      sequences.push_back(rows[i].sequence);
    }
    std::vector<std::span<const int32_t>> tables(tables_.begin(), tables_.end());
    AttentionStep step;
    step.reset(*device_, positions, sequences, tables, shape_.page_size, heads_);
    const DeviceArray<Bf16> queries(*device_, q), outputs(*device_, blank);
    Attention problem{.query_heads = shape_.query_heads,
                      .head_dim = shape_.head_dim,
                      .q = queries.data(),
                      .q_stride = stride,
                      .step = &step,
                      .kv_head_of = kv_head_of_,
                      .pages = &pages_,
                      .window = shape_.window,
                      .scale = scale(),
                      .y = outputs.data(),
                      .y_stride = stride};
    run(problem);
    const std::vector<Bf16> y = outputs.to_host(*device_);
    for (size_t i = 0; i < rows.size(); ++i) {
      out[rows[i]].assign(&y[i * stride], &y[i * stride] + width);
      for (int64_t d = width; d < stride; ++d) ASSERT_EQ(y[i * stride + d].bits, 0xdead) << "wrote behind row " << i;
    }
  }

  const Bf16* key(const Token& t, int64_t head) const {
    return &k_[t.sequence][(t.position * shape_.kv_heads + head) * shape_.head_dim];
  }
  const Bf16* value(const Token& t, int64_t head) const {
    return &v_[t.sequence][(t.position * shape_.kv_heads + head) * shape_.head_dim];
  }
  const Bf16* query(const Token& t, int64_t head) const {
    return &q_[t.sequence][(t.position * shape_.query_heads + head) * shape_.head_dim];
  }

 private:
  // Scores whose level, in powers of two, walks up and down by much more than a split's reference follows and its weights reach,
  // with single keys at the edges of what a weight can be, and values that make up for small weights, so that these show.
  // `huge`: some beyond what an exponent can say to a fraction.
  void wander(std::mt19937& rng, int32_t sequence, int64_t kv_head, bool huge) {
    constexpr float kSteps[] = {-70, -20, -3, 0, 3, 10, 40};
    constexpr float kHuge[] = {4.19e6f, 4.2e6f, -4.3e6f, 9e6f, -2e7f, 1e9f, -1e9f, 1e30f, -1e30f};
    std::normal_distribution<float> normal;
    const float c = scale() * numerics::kLog2e;
    float level = 0, highest = 0;
    level_queries(sequence);
    for (int32_t j = 0; j < lengths_[sequence]; ++j) {
      if (j % 512 == 0) level = highest = 0;
      if (rng() % 48 == 0) level += kSteps[rng() % std::size(kSteps)];
      float x = level + 2 * normal(rng);
      if (rng() % 16 == 0) x = std::nearbyint(highest) + (rng() % 2 ? -120.5f : 7.5f) + std::ldexp(normal(rng), -4);
      if (huge && rng() % 8 == 0) x = kHuge[rng() % std::size(kHuge)] * (1 + std::ldexp(normal(rng), -22));
      highest = std::max(highest, x);
      Bf16* v = &v_[sequence][(j * shape_.kv_heads + kv_head) * shape_.head_dim];
      for (int64_t d = 0; d < shape_.head_dim; d += 2)
        v[d] = bf(std::ldexp(normal(rng), std::clamp(static_cast<int>(std::min(highest - x, 1e3f)), 0, 122)));
      if (j > 0 && rng() % 64 == 0) x = -std::numeric_limits<float>::infinity();
      set_score({sequence, j}, kv_head, x / c);
    }
  }

  static std::vector<Bf16> fill(std::mt19937& rng, int64_t count, Values values) {
    std::vector<Bf16> x(count);
    for (Bf16& e : x) e = draw(rng, values);
    return x;
  }

  Shape shape_;
  AttentionHeads heads_{shape_.kv_heads, shape_.query_heads / shape_.kv_heads};
  const Device* device_ = nullptr;  // where the pages are
  std::vector<int64_t> lengths_;
  std::vector<std::vector<Bf16>> q_, k_, v_;
  std::vector<int32_t> kv_head_of_;
  KvPages pages_;
  std::vector<std::vector<int32_t>> tables_;
};

using Outputs = std::map<Token, std::vector<Bf16>>;

// First coordinate in which two outputs differ, or nothing.
inline std::string difference(const Outputs& a, const Outputs& b, int64_t head_dim) {
  if (a.size() != b.size()) return "row counts differ";
  for (const auto& [token, row] : a) {
    const auto& other = b.at(token);
    for (size_t i = 0; i < row.size(); ++i)
      if (row[i].bits != other[i].bits)
        return "sequence " + std::to_string(token.sequence) + " position " + std::to_string(token.position) + " head " +
               std::to_string(i / head_dim) + " d " + std::to_string(i % head_dim) + ": " + std::to_string(widen(row[i])) +
               " and " + std::to_string(widen(other[i]));
  }
  return "";
}

inline bool all_finite(const std::vector<Bf16>& row) {
  return std::all_of(row.begin(), row.end(), [](Bf16 x) { return (x.bits & 0x7f80) != 0x7f80; });
}

inline auto schedule(const Device& device) {
  return [&device](const Attention& p) { attention(device, p); };
}
inline auto reference(Profile profile) {
  return [profile](const Attention& p) { attention_reference(profile, p); };
}

}  // namespace attention_testing
}  // namespace invar
