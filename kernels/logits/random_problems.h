// Random rows of logits with random controls, hostile ones among them, and the comparison of answers. Test code only.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/logits/logits.h"

namespace invar::random_problems {

// One vocabulary, many rows; problems point into it.
struct Batch {
  int64_t vocabulary = 0;
  std::vector<float> logits;
  std::vector<std::vector<int32_t>> prompts, outputs;
  std::vector<std::vector<uint8_t>> masks;  // rows share some
  std::vector<std::vector<LogitBias>> biases;
  std::vector<SampleProblem> problems;

  SampleProblem with_logits(size_t row) const {
    SampleProblem p = problems[row];
    p.logits = {logits.data() + static_cast<int64_t>(row) * vocabulary, static_cast<size_t>(vocabulary)};
    return p;
  }
};

// About `share` of 256 tokens, at least one, in runs as masks have them; sometimes shorter than the vocabulary.
inline std::vector<uint8_t> random_mask(int64_t vocabulary, int share, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> mask((vocabulary + 7) / 8 - (rng() % 4 == 0 && vocabulary > 8));
  for (uint8_t& byte : mask) {
    const bool mixed = rng() % 4 == 0;
    for (int bit = 0; bit < 8; ++bit)
      if (static_cast<int>(rng() % 256) < share) byte |= static_cast<uint8_t>(mixed ? 1 << bit : 0xff);
  }
  const auto one = static_cast<int64_t>(rng() % std::min<int64_t>(vocabulary, static_cast<int64_t>(mask.size()) * 8));
  mask[one / 8] |= static_cast<uint8_t>(1 << one % 8);
  return mask;
}

inline Batch make_batch(int64_t vocabulary, int64_t rows, uint32_t seed) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937 rng(seed);
  const auto pick = [&](auto... options) {
    const std::common_type_t<decltype(options)...> list[] = {options...};
    return list[rng() % sizeof...(options)];
  };
  Batch b{.vocabulary = vocabulary};
  b.prompts.resize(rows), b.outputs.resize(rows);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> z(vocabulary);
    const float spread = pick(0.0f, 0.01f, 1.0f, 5.0f, 40.0f);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (float& x : z) x = spread * normal(rng);
    if (rng() % 2)  // ties
      for (float& x : z) x = std::round(x * 4) / 4;
    if (rng() % 4 == 0)
      for (float& x : z)
        if (rng() % 3 == 0) x = -kInfinity;
    if (rng() % 4 == 0)
      for (float& x : z)
        if (rng() % 5 == 0) x = pick(0.0f, -0.0f, 1e-40f, -1e-40f);
    if (rng() % 12 == 0) z[rng() % vocabulary] = pick(kInfinity, std::nanf(""), -std::nanf(""));
    if (rng() % 20 == 0) z.assign(vocabulary, -kInfinity);
    b.logits.insert(b.logits.end(), z.begin(), z.end());
    b.prompts[r].resize(rng() % 40), b.outputs[r].resize(rng() % 40);
    for (auto* tokens : {&b.prompts[r], &b.outputs[r]})
      for (int32_t& t : *tokens) t = static_cast<int32_t>(rng() % (vocabulary + 2)) - 1;  // also ids that do not exist
  }
  for (const int share : {0, 1, 2, 8, 255}) b.masks.push_back(random_mask(vocabulary, share, rng()));
  b.biases.resize(rows);
  for (int64_t r = 0; r < rows; ++r) {
    if (rng() % 4) continue;
    for (int64_t i = 0; i < 1 + static_cast<int64_t>(rng() % 30); ++i)
      b.biases[r].push_back({static_cast<int32_t>(i * 7) - 1, pick(0.0f, 100.0f, -100.0f, 0.1f, -2.5f)});
  }
  for (int64_t r = 0; r < rows; ++r)
    b.problems.push_back({.controls = {.temperature = pick(0.0f, 0.3f, 0.7f, 1.0f, 1.0f, 2.0f, 1e-39f),
                                       .top_k = static_cast<int32_t>(pick(0, 0, -1, 1, 2, 20, 150, 100000)),
                                       .top_p = pick(1.0f, 1.0f, 0.9f, 0.5f, 1e-6f, 0.999999f),
                                       .min_p = pick(0.0f, 0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-11f),
                                       .repetition_penalty = pick(1.0f, 1.0f, 1.3f, 0.5f),
                                       .presence_penalty = pick(0.0f, 0.0f, 0.5f, -0.0f),
                                       .frequency_penalty = pick(0.0f, 0.0f, 0.25f, -0.5f, -0.0f),
                                       .seed = (uint64_t{rng()} << 32) | rng(),
                                       .choice = static_cast<uint32_t>(rng() % 3)},
                          .prompt = b.prompts[r],
                          .output = b.outputs[r],
                          .allowed = rng() % 3 ? std::span<const uint8_t>() : b.masks[rng() % b.masks.size()],
                          .bias = b.biases[r],
                          .position = static_cast<int32_t>(rng() % 5000),
                          .top_logprobs = static_cast<int32_t>(pick(-1, 0, 1, 5, 20)),
                          .force = static_cast<int32_t>(rng() % 2 ? -1 : rng() % (vocabulary + 1))});
  return b;
}

inline std::string difference(const SampleResult& a, const SampleResult& b) {
  const auto differ = [](const TokenLogprob& x, const TokenLogprob& y) {
    return x.token != y.token || numerics::float_bits(x.logprob) != numerics::float_bits(y.logprob) || x.rank != y.rank;
  };
  if (a.finite != b.finite) return "finite";
  if (a.token != b.token) return "token " + std::to_string(a.token) + " and " + std::to_string(b.token);
  if (differ(a.chosen, b.chosen)) return "chosen";
  if (differ(a.forced, b.forced)) return "forced";
  if (a.top.size() != b.top.size()) return "size of top";
  for (size_t i = 0; i < a.top.size(); ++i)
    if (differ(a.top[i], b.top[i])) return "top " + std::to_string(i);
  return "";
}

inline std::string describe(const SampleProblem& p) {
  const SamplingControls& c = p.controls;
  return "temperature " + std::to_string(c.temperature) + ", top_k " + std::to_string(c.top_k) + ", top_p " +
         std::to_string(c.top_p) + ", min_p " + std::to_string(c.min_p) + ", penalties " + std::to_string(c.repetition_penalty) +
         " " + std::to_string(c.presence_penalty) + " " + std::to_string(c.frequency_penalty) + ", top_logprobs " +
         std::to_string(p.top_logprobs) + ", force " + std::to_string(p.force) + (p.allowed.empty() ? "" : ", masked") +
         (p.bias.empty() ? "" : ", biased");
}

}  // namespace invar::random_problems
