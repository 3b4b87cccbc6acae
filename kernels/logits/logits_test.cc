#include "kernels/logits/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/logits/candidates.h"
#include "kernels/logits/log_softmax.h"
#include "kernels/logits/random_problems.h"
#include "kernels/logits/vocabulary_loops.h"

namespace invar {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Isa> vector_isas() {
  std::vector<Isa> list = {Isa::kAvx2};
  if (detect_isa() == Isa::kAvx512) list.push_back(Isa::kAvx512);
  return list;
}
std::vector<Isa> all_isas() {
  std::vector<Isa> list = vector_isas();
  list.push_back(Isa::kScalar);
  return list;
}
Device device_of(Isa isa, ControlArm arm = ControlArm::kNone) { return Device({.isa = isa, .control_arm = arm}); }

std::vector<float> normal_logits(int64_t count, uint32_t seed, float spread = 3.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> z(count);
  for (float& x : z) x = normal(rng);
  return z;
}

// ---------------------------------------------------------------- hash

TEST(HashLogits, ShardsInAnyOrderAddUpToTheWhole) {
  const std::vector<float> z = normal_logits(4099, 1);
  uint64_t want = 0;
  for (size_t i = 0; i < z.size(); ++i) want += numerics::hash_element(i, numerics::float_bits(z[i]));
  for (const Isa isa : all_isas()) {
    const Device device = device_of(isa);
    EXPECT_EQ(hash_logits(device, z.data(), 4099, 0), want) << name(isa);
    uint64_t sum = 0;
    for (const auto& [first, last] : std::vector<std::pair<int, int>>{{2000, 2001}, {2001, 4099}, {0, 700}, {700, 2000}})
      sum += hash_logits(device, z.data() + first, last - first, first);
    EXPECT_EQ(sum, want) << name(isa);
    EXPECT_NE(hash_logits(device, z.data(), 4099, 1), want) << "the index must count";
  }
}

TEST(HashLogits, SeesEveryBitAndOnlyOneNan) {
  std::vector<float> z = normal_logits(40, 2);
  for (const Isa isa : all_isas()) {
    const Device device = device_of(isa);
    std::set<uint64_t> seen = {hash_logits(device, z.data(), 40, 5)};
    for (int bit = 0; bit < 32; ++bit) {
      std::vector<float> other = z;
      other[17] = numerics::bits_float(numerics::float_bits(z[17]) ^ (1u << bit));
      EXPECT_TRUE(seen.insert(hash_logits(device, other.data(), 40, 5)).second) << "bit " << bit;
    }
    std::vector<float> swapped = z, zero = z, minus_zero = z, nan_a = z, nan_b = z;
    std::swap(swapped[3], swapped[4]);
    zero[0] = 0.0f, minus_zero[0] = -0.0f;
    nan_a[0] = numerics::bits_float(0x7fc00000u), nan_b[0] = numerics::bits_float(0xff800123u);
    EXPECT_TRUE(seen.insert(hash_logits(device, swapped.data(), 40, 5)).second);
    EXPECT_NE(hash_logits(device, zero.data(), 40, 0), hash_logits(device, minus_zero.data(), 40, 0));
    EXPECT_EQ(hash_logits(device, nan_a.data(), 40, 0), hash_logits(device, nan_b.data(), 40, 0));
  }
}

// ---------------------------------------------------------------- the loops against numerics.h

TEST(VocabularyLoops, MassesAreThoseOfTheContract) {
  std::vector<float> z = normal_logits(1000, 3, 20.0f);
  for (int i = 0; i < 200; ++i) z.push_back(-0.5f * static_cast<float>(i));
  for (const float x : {-kInfinity, -1e30f, -87.3365479f, -87.336555f, -87.4f, -0.0f, 0.0f, -1e-30f, -27.7258f, -27.726f})
    z.push_back(x);
  const float max = *std::max_element(z.begin(), z.end());
  for (const float top : {max, max + 30.0f}) {
    for (const Isa isa : vector_isas()) {
      std::vector<uint64_t> got(z.size());
      vocabulary_loops(isa).masses(z.data(), static_cast<int64_t>(z.size()), top, got.data());
      uint64_t sum = 0;
      for (size_t i = 0; i < z.size(); ++i) {
        EXPECT_EQ(got[i], numerics::mass(z[i], top)) << z[i] << " " << name(isa);
        sum += got[i];
      }
      EXPECT_EQ(vocabulary_loops(isa).mass_sum(z.data(), static_cast<int64_t>(z.size()), top), sum);
    }
  }
  EXPECT_EQ(numerics::mass(max, max), uint64_t{1} << numerics::kMassBits);
}

TEST(VocabularyLoops, NoiseIsThatOfTheContract) {
  const std::vector<float> y = normal_logits(3001, 4);
  std::vector<int32_t> ids(3001);
  for (int i = 0; i < 3001; ++i) ids[i] = i * 53;
  for (const Isa isa : vector_isas()) {
    for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef0}, ~uint64_t{0}}) {
      std::vector<float> got(3001);
      vocabulary_loops(isa).perturb(y.data(), ids.data(), 3001, seed, 77, 3, got.data());
      for (int i = 0; i < 3001; ++i) {
        const float want = numerics::add(y[i], numerics::gumbel(seed, 77, static_cast<uint32_t>(ids[i]), 3));
        ASSERT_EQ(numerics::float_bits(got[i]), numerics::float_bits(want)) << i << " " << name(isa);
      }
      for (const int64_t count : {int64_t{3}, int64_t{64}, int64_t{3001}}) {
        vocabulary_loops(isa).perturb_all(y.data(), count, seed, 77, 3, got.data());
        for (int64_t i = 0; i < count; ++i) {
          const float want = numerics::add(y[i], numerics::gumbel(seed, 77, static_cast<uint32_t>(i), 3));
          ASSERT_EQ(numerics::float_bits(got[i]), numerics::float_bits(want)) << i << " " << name(isa);
        }
      }
    }
  }
}

TEST(VocabularyLoops, SearchesAgreeWithPlainOnes) {
  std::vector<float> z = normal_logits(1500, 5);
  for (size_t i = 0; i < z.size(); ++i)
    if (i % 3 == 0) z[i] = std::round(z[i]);
  z[10] = -0.0f, z[20] = 0.0f, z[30] = -kInfinity;
  for (const Isa isa : vector_isas()) {
    const VocabularyLoops& loops = vocabulary_loops(isa);
    for (const int64_t count : {int64_t{1}, int64_t{255}, int64_t{257}, int64_t{1500}}) {
      std::vector<int32_t> keys;
      for (int64_t i = 0; i < count; ++i) keys.push_back(signed_key(z[i]));
      int32_t low, high;
      loops.key_range(z.data(), count, &low, &high);
      EXPECT_EQ(low, *std::min_element(keys.begin(), keys.end()));
      EXPECT_EQ(high, *std::max_element(keys.begin(), keys.end()));
      for (const int32_t key :
           {signed_key(1.0f), signed_key(0.0f), signed_key(-0.0f), signed_key(z[count - 1]), signed_key(77.0f)}) {
        EXPECT_EQ(loops.find_first(z.data(), count, key), std::find(keys.begin(), keys.end(), key) - keys.begin());
        const auto from_back = std::find(keys.rbegin(), keys.rend(), key);
        EXPECT_EQ(loops.find_last(z.data(), count, key), from_back == keys.rend() ? count : keys.rend() - from_back - 1);
        EXPECT_EQ(loops.count_equal(z.data(), count, key), std::count(keys.begin(), keys.end(), key));
        EXPECT_EQ(loops.count_above(z.data(), count, key),
                  std::count_if(keys.begin(), keys.end(), [&](int32_t k) { return k > key; }));
      }
    }
  }
}

TEST(LogSoftmax, LogarithmIsAccurate) {
  std::mt19937_64 rng(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t sum = (rng() >> (rng() % 63)) | 1;
    const double want = std::log(static_cast<double>(sum)) - 40 * std::log(2.0);
    EXPECT_NEAR(log_of_masses(sum), want, 4e-15 * std::max(1.0, std::fabs(want))) << sum;
  }
  EXPECT_EQ(log_of_masses(uint64_t{1} << 40), 0.0);
}

// ---------------------------------------------------------------- sampling against the reference

TEST(Sample, EveryScheduleGivesTheReferenceAnswer) {
  std::mt19937 rng(7);
  const auto pick = [&](auto... options) {
    const std::common_type_t<decltype(options)...> list[] = {options...};
    return list[rng() % sizeof...(options)];
  };
  for (int trial = 0; trial < 1000; ++trial) {
    const int64_t vocabulary = pick(1, 2, 5, 17, 300, 1000, 4099, 20000);
    std::vector<float> z = normal_logits(vocabulary, rng(), pick(0.0f, 0.01f, 1.0f, 5.0f, 40.0f));
    if (rng() % 2)  // ties
      for (float& x : z) x = std::round(x * 4) / 4;
    if (rng() % 4 == 0)
      for (float& x : z)
        if (rng() % 3 == 0) x = -kInfinity;
    if (rng() % 4 == 0)
      for (float& x : z)
        if (rng() % 5 == 0) x = pick(0.0f, -0.0f, 1e-40f, -1e-40f);
    std::vector<int32_t> prompt(rng() % 40), output(rng() % 40);
    for (auto* tokens : {&prompt, &output})
      for (int32_t& t : *tokens) t = static_cast<int32_t>(rng() % (vocabulary + 2)) - 1;  // also ids that do not exist
    const std::vector<uint8_t> mask = random_problems::random_mask(vocabulary, pick(1, 30, 250), rng());
    const std::vector<LogitBias> bias = {{3, 1.5f}, {static_cast<int32_t>(vocabulary), 9.0f}, {0, pick(-100.0f, 0.0f, 100.0f)}};
    SampleProblem problem{.logits = z,
                          .controls = {.temperature = pick(0.0f, 0.3f, 0.7f, 1.0f, 1.0f, 2.0f, 1e-39f),
                                       .top_k = static_cast<int32_t>(pick(0, 0, -1, 1, 2, 20, 150, 100000)),
                                       .top_p = pick(1.0f, 1.0f, 0.9f, 0.5f, 1e-6f, 0.999999f),
                                       .min_p = pick(0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-11f),
                                       .repetition_penalty = pick(1.0f, 1.0f, 1.3f, 0.5f),
                                       .presence_penalty = pick(0.0f, 0.0f, 0.5f, -0.0f),
                                       .frequency_penalty = pick(0.0f, 0.0f, 0.25f, -0.5f, -0.0f),
                                       .seed = rng(),
                                       .choice = static_cast<uint32_t>(rng() % 3)},
                          .prompt = prompt,
                          .output = output,
                          .allowed = rng() % 3 ? std::span<const uint8_t>() : mask,
                          .bias = rng() % 3 ? std::span<const LogitBias>() : bias,
                          .position = static_cast<int32_t>(rng() % 5000),
                          .top_logprobs = static_cast<int32_t>(pick(-1, 0, 1, 5, 20)),
                          .force = static_cast<int32_t>(rng() % 2 ? -1 : rng() % vocabulary)};
    const SampleResult want = sample_reference(problem);
    for (const Isa isa : vector_isas()) {
      const SampleResult got = sample(device_of(isa), problem);
      ASSERT_EQ(random_problems::difference(want, got), "") << name(isa) << " trial " << trial << " vocabulary " << vocabulary;
    }
  }
}

SampleResult draw(const std::vector<float>& z, const SamplingControls& controls, int32_t position = 0) {
  static const Device device = device_of(detect_isa());
  const SampleProblem problem{.logits = z, .controls = controls, .position = position};
  return sample(device, problem);
}

TEST(Sample, GreedyTakesTheLargestThenTheLowestId) {
  EXPECT_EQ(draw({1, 5, 5, 2}, {.temperature = 0}).token, 1);
  EXPECT_EQ(draw({-0.0f, 0.0f}, {.temperature = 0}).token, 1) << "-0 is below +0";
  EXPECT_EQ(draw({-kInfinity, -3}, {.temperature = 0}).token, 1);
  for (const Isa isa : all_isas()) {
    const std::vector<float> ties = {1, 5, 5, 2}, none = {1, 5, 4, 2};
    const SampleProblem tied{.logits = ties, .controls = {.temperature = 0}},
        clear{.logits = none, .controls = {.temperature = 0}};
    EXPECT_EQ(sample(device_of(isa), tied).token, 1);
    EXPECT_EQ(sample(device_of(isa, ControlArm::kReversedTies), tied).token, 2) << "the control arm must differ";
    EXPECT_EQ(sample(device_of(isa, ControlArm::kReversedTies), clear).token, 1);
  }
}

TEST(Sample, NonFiniteLogitsAreReported) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Isa isa : all_isas()) {
    for (const std::vector<float>& z :
         std::vector<std::vector<float>>{{1, nan, 2}, {1, -nan, 2}, {kInfinity, 1, 2}, {-kInfinity, -kInfinity}, {}}) {
      const SampleProblem problem{.logits = z, .top_logprobs = 2};
      EXPECT_FALSE(sample(device_of(isa), problem).finite);
    }
    const std::vector<float> masked = {-kInfinity, 1, -kInfinity};
    const SampleResult result = sample(device_of(isa), {.logits = masked, .top_logprobs = 3});
    EXPECT_TRUE(result.finite);
    EXPECT_EQ(result.token, 1);
    EXPECT_EQ(result.chosen.logprob, 0.0f);
    EXPECT_EQ(result.top[1].logprob, -kInfinity);
  }
}

// Frequencies over 20000 positions against the softmax, for each filter's remaining tokens.
void expect_frequencies(const std::vector<float>& z, const SamplingControls& controls, const std::set<int>& kept) {
  constexpr int kDraws = 20000;
  std::vector<int> count(z.size());
  for (int i = 0; i < kDraws; ++i) ++count[draw(z, controls, i).token];
  double total = 0;
  for (const int i : kept) total += std::exp(z[i] / controls.temperature);
  for (size_t i = 0; i < z.size(); ++i) {
    const double p = kept.contains(static_cast<int>(i)) ? std::exp(z[i] / controls.temperature) / total : 0;
    EXPECT_NEAR(count[i], kDraws * p, 4.5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << "token " << i;
  }
}

TEST(Sample, FrequenciesFollowTheSoftmax) {
  const std::vector<float> z = {0.0f, 1.0f, 2.0f, -1.0f, 0.5f, 1.5f, -3.0f, 2.0f};
  // softmax: .038 .103 .281 .014 .063 .171 .002 .281 (rounded); in order: 2 7 5 1 4 0 3 6
  expect_frequencies(z, {.seed = 1}, {0, 1, 2, 3, 4, 5, 6, 7});
  expect_frequencies(z, {.temperature = 0.5f, .seed = 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  expect_frequencies(z, {.top_k = 3, .seed = 3}, {2, 7, 5});
  expect_frequencies(z, {.top_p = 0.6f, .seed = 4}, {2, 7, 5});  // .562 before token 5
  expect_frequencies(z, {.top_p = 0.55f, .seed = 5}, {2, 7});
  expect_frequencies(z, {.min_p = 0.3f, .seed = 6}, {2, 7, 5, 1});           // e^-1 = .37 stays, e^-1.5 = .22 goes
  expect_frequencies(z, {.top_k = 4, .top_p = 0.7f, .seed = 7}, {2, 7, 5});  // top-p counts what top-k left
}

TEST(Sample, FilterEdges) {
  const std::vector<float> z = {1, 3, 2, 3};
  for (int position = 0; position < 200; ++position) {
    EXPECT_EQ(draw(z, {.top_k = 1}, position).token, 1) << "ties at the cut: the lowest id stays";
    EXPECT_EQ(draw(z, {.top_p = 1e-9f}, position).token, 1) << "the first of the order always stays";
    EXPECT_EQ(draw(z, {.temperature = 1e-40f}, position).token, 1) << "overflowing quotients are greedy";
    EXPECT_EQ(draw(z, {.min_p = 1.0f}, position).token % 2, 1);
    EXPECT_EQ(draw(z, {.top_k = 4}, position).token, draw(z, {}, position).token);
  }
  std::set<int32_t> min_p_one;
  for (int position = 0; position < 200; ++position) min_p_one.insert(draw(z, {.min_p = 1.0f}, position).token);
  EXPECT_EQ(min_p_one, (std::set<int32_t>{1, 3}));
}

TEST(Sample, NucleusBorderIsExact) {
  // Four equal masses: an entry stays while the mass before it is below top_p of the total.
  const uint64_t m = uint64_t{1} << 40;
  EXPECT_TRUE(inside_nucleus(0, fixed_top_p(1e-30f), 4 * m));
  EXPECT_FALSE(inside_nucleus(m, fixed_top_p(0.25f), 4 * m));
  EXPECT_TRUE(inside_nucleus(m, fixed_top_p(std::nextafter(0.25f, 1.0f)), 4 * m));
  EXPECT_TRUE(inside_nucleus(m - 1, fixed_top_p(0.25f), 4 * m));
  EXPECT_FALSE(inside_nucleus(3 * m, fixed_top_p(0.75f), 4 * m));
  EXPECT_TRUE(inside_nucleus((uint64_t{1} << 60) - 1, fixed_top_p(0.5f), uint64_t{1} << 61)) << "128 bits are needed here";
  const std::vector<float> equal(4, 1.0f);
  std::set<int32_t> half;
  for (int position = 0; position < 300; ++position) half.insert(draw(equal, {.top_p = 0.5f}, position).token);
  EXPECT_EQ(half, (std::set<int32_t>{0, 1}));
}

TEST(Sample, SeedChoiceAndPositionEachChangeTheDraws) {
  const std::vector<float> z(1000, 0.0f);
  const auto draws = [&](uint64_t seed, uint32_t choice, int32_t first) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 16; ++i) tokens.push_back(draw(z, {.seed = seed, .choice = choice}, first + i).token);
    return tokens;
  };
  EXPECT_EQ(draws(1, 0, 0), draws(1, 0, 0));
  EXPECT_NE(draws(1, 0, 0), draws(2, 0, 0));
  EXPECT_NE(draws(1, 0, 0), draws(1ull << 40 | 1, 0, 0));
  EXPECT_NE(draws(1, 0, 0), draws(1, 1, 0));
  EXPECT_NE(draws(1, 0, 0), draws(1, 0, 100));
}

TEST(Sample, PenaltiesMoveTheRightTokens) {
  const std::vector<float> z = {2.0f, -2.0f, 1.9f, 1.0f};
  const std::vector<int32_t> prompt = {0}, output = {2, 2, 3};
  const auto greedy = [&](SamplingControls controls) {
    controls.temperature = 0;
    return sample(device_of(detect_isa()), {.logits = z, .controls = controls, .prompt = prompt, .output = output}).token;
  };
  EXPECT_EQ(greedy({}), 0);
  EXPECT_EQ(greedy({.repetition_penalty = 1.5f}), 0);                            // 1.33, -2, 1.27, .67
  EXPECT_EQ(greedy({.repetition_penalty = 0.5f}), 0);                            // 4, -2 (not seen), 3.8, 2
  EXPECT_EQ(greedy({.presence_penalty = -0.2f}), 2);                             // only the output counts: 2, 2.1, 1.2
  EXPECT_EQ(greedy({.frequency_penalty = -0.6f}), 2);                            // 2, 3.1, 1.6
  EXPECT_EQ(greedy({.presence_penalty = 3.0f, .frequency_penalty = -2.0f}), 2);  // 2, 1.9 - 3 + 4 = 2.9, 1 - 3 + 2 = 0
  const std::vector<float> negative = {-1.0f, -1.1f};
  const SampleProblem problem{.logits = negative, .controls = {.temperature = 0, .repetition_penalty = 1.2f}, .prompt = prompt};
  EXPECT_EQ(sample(device_of(detect_isa()), problem).token, 1) << "a negative logit is multiplied: -1.2";
}

TEST(Sample, MaskLeavesOnlyAllowedTokens) {
  std::vector<float> z = normal_logits(3000, 21);
  const std::vector<uint8_t> mask = random_problems::random_mask(3000, 20, 4), none(375, 0), only = {0x10};
  for (const Isa isa : all_isas()) {
    std::set<int32_t> drawn;
    for (int32_t position = 0; position < 300; ++position)
      for (const SamplingControls& controls : {SamplingControls{.temperature = 0}, SamplingControls{.temperature = 3},
                                               SamplingControls{.top_k = 50, .top_p = 0.9f}}) {
        const SampleResult r = sample(device_of(isa), {.logits = z, .controls = controls, .allowed = mask, .position = position});
        ASSERT_TRUE(token_allowed(mask, r.token)) << r.token;
        drawn.insert(r.token);
      }
    EXPECT_GT(drawn.size(), 10u);
    EXPECT_EQ(sample(device_of(isa), {.logits = z, .allowed = only}).token, 4);
    EXPECT_FALSE(sample(device_of(isa), {.logits = z, .allowed = none}).finite) << "nothing can be drawn";
    // The hash and the log-probabilities are of the raw logits: those of the free draw and of the bound one agree.
    const SampleProblem bound{.logits = z, .allowed = only, .top_logprobs = 5, .force = 17},
        free{.logits = z, .top_logprobs = 5, .force = 17};
    const SampleResult a = sample(device_of(isa), bound), b = sample(device_of(isa), free);
    EXPECT_EQ(a.top[0].token, b.top[0].token);
    EXPECT_EQ(numerics::float_bits(a.forced.logprob), numerics::float_bits(b.forced.logprob));
    EXPECT_EQ(a.chosen.token, 4);
    EXPECT_EQ(a.chosen.logprob, sample(device_of(isa), {.logits = z, .top_logprobs = 0, .force = 4}).forced.logprob);
  }
}

TEST(Sample, BiasMovesTheDraw) {
  const std::vector<float> z = {1.0f, 3.0f, 2.0f, -0.0f};
  const auto greedy = [&](std::vector<LogitBias> bias, std::vector<uint8_t> mask = {}) {
    return sample(device_of(detect_isa()), {.logits = z, .controls = {.temperature = 0}, .allowed = mask, .bias = bias}).token;
  };
  EXPECT_EQ(greedy({{2, 0.5f}}), 1);
  EXPECT_EQ(greedy({{2, 1.5f}}), 2);
  EXPECT_EQ(greedy({{1, -100.0f}}), 2);
  EXPECT_EQ(greedy({{0, 100.0f}}, {0b0110}), 1) << "a bias does not open what the mask closes";
  EXPECT_EQ(greedy({{99, 100.0f}, {-1, 100.0f}}), 1) << "ids outside the vocabulary are passed over";
}

TEST(Sample, LogprobsAreThoseOfTheRawLogits) {
  std::vector<float> z = normal_logits(5000, 11);
  z[40] = z[41];
  const std::vector<int32_t> prompt = {1, 2, 3};
  const SampleProblem problem{.logits = z,
                              .controls = {.temperature = 0.2f, .top_k = 3, .repetition_penalty = 2.0f},
                              .prompt = prompt,
                              .top_logprobs = 20,
                              .force = 41};
  const SampleResult result = sample(device_of(detect_isa()), problem);
  double sum = 0;
  const double max = *std::max_element(z.begin(), z.end());
  for (const float x : z) sum += std::exp(x - max);
  for (const TokenLogprob& t : result.top) EXPECT_NEAR(t.logprob, z[t.token] - max - std::log(sum), 2e-6);
  EXPECT_NEAR(result.forced.logprob, z[41] - max - std::log(sum), 2e-6);
  std::vector<int32_t> order(z.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
  ASSERT_EQ(result.top.size(), 20u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(result.top[i].token, order[i]);
    EXPECT_EQ(result.top[i].rank, i + 1);
  }
  EXPECT_EQ(order[result.forced.rank - 1], 41);
  EXPECT_EQ(order[result.forced.rank - 2], 40) << "equal logits rank by id";
  EXPECT_EQ(order[result.chosen.rank - 1], result.token);
  EXPECT_TRUE(draw(z, {}).top.empty());
  EXPECT_EQ(draw(z, {}).chosen.rank, 0) << "no log-probabilities were asked for";
}

}  // namespace
}  // namespace invar
