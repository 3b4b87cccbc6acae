#include "kernels/moe/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

struct Choice {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

struct Setting {
  int64_t rows, experts, top_k;
  RouterScore score;
  bool renormalise;
};

Choice run(const Setting& s, const std::vector<float>& logits, const DeviceOptions* options) {
  Choice c{std::vector<int32_t>(s.rows * s.top_k, -1), std::vector<float>(s.rows * s.top_k, -1)};
  const Router problem{.rows = s.rows,
                       .experts = s.experts,
                       .top_k = s.top_k,
                       .score = s.score,
                       .renormalise = s.renormalise,
                       .logits = logits.data(),
                       .ids = c.ids.data(),
                       .weights = c.weights.data()};
  if (options)
    route(Device(*options), problem);
  else
    route_reference(problem);
  return c;
}

TEST(Router, EverySchedule_GivesTheReferenceBits) {
  uint64_t seed = 0;
  for (const auto& [experts, top_k] : {std::pair<int64_t, int64_t>{1, 1},
                                       {2, 1},
                                       {7, 3},
                                       {8, 2},
                                       {9, 9},
                                       {16, 4},
                                       {17, 2},
                                       {60, 4},
                                       {64, 6},
                                       {100, 10},
                                       {128, 8},
                                       {256, 8},
                                       {257, 257},
                                       {511, 5},
                                       {1000, 8},
                                       {1024, 1024}})
    for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid})
      for (const bool renormalise : {true, false})
        for (const Kind kind : kAllKinds) {
          const Setting s{static_cast<int64_t>(1 + ++seed % 4), experts, top_k, score, renormalise};
          const std::vector<float> logits = float_data(s.rows * experts, kind, seed);
          const Choice want = run(s, logits, nullptr);
          for (const DeviceOptions& options : devices()) {
            const Choice got = run(s, logits, &options);
            ASSERT_TRUE(same_bits(got.ids, want.ids))
                << describe(options) << ", " << experts << " experts, kind " << static_cast<int>(kind);
            ASSERT_TRUE(same_bits(got.weights, want.weights))
                << describe(options) << ", " << experts << " experts, top " << top_k << ", kind " << static_cast<int>(kind);
          }
        }
}

TEST(Router, SigmoidScores_GiveTheReferenceBitsOverAllMagnitudes) {
  // top_k = experts and no renormalisation: the weights are the scores themselves.
  const Setting s{4096, 1024, 1024, RouterScore::kSigmoid, false};
  std::vector<float> logits(s.rows * s.experts);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = numerics::bits_float(static_cast<uint32_t>(i * 1021));
  Choice scalar{{}, std::vector<float>(logits.size())};
  for (size_t i = 0; i < logits.size(); ++i)
    scalar.weights[i] =
        numerics::bits_float(numerics::canonical_bits(logits[i] != logits[i] ? logits[i] : numerics::sigmoid(logits[i])));
  for (const DeviceOptions& options : devices()) {
    if (options.threads != 1 || options.isa == Isa::kScalar) continue;
    EXPECT_TRUE(same_bits(run(s, logits, &options).weights, scalar.weights)) << describe(options);
  }
}

TEST(Router, Ties_GoToTheLowestId) {
  // Each row: all equal; equal pairs; -0 beside +0 (equal scores, though unequal keys of logits).
  const std::vector<float> logits = {1, 1, 1, 1, 1,          1, 1,     1, /**/ 0, 2,  3,  2,
                                     3, 2, 3, 0, /**/ -0.0f, 0, -0.0f, 0, -9,     -9, -9, -9};
  const Setting s{3, 8, 2, RouterScore::kSoftmax, true};
  for (const DeviceOptions& options : devices()) {
    const Choice c = run(s, logits, &options);
    EXPECT_EQ(c.ids, (std::vector<int32_t>{0, 1, 2, 4, 0, 1})) << describe(options);
    EXPECT_EQ(c.weights, std::vector<float>(6, 0.5f));
  }
  for (const DeviceOptions& options : devices(ControlArm::kReversedTies))
    EXPECT_EQ(run(s, logits, &options).ids, (std::vector<int32_t>{6, 7, 4, 6, 2, 3})) << describe(options);
}

TEST(Router, ReversedTies_AreAnotherAnswerOnlyWhereThereAreTies) {
  const Setting s{64, 32, 4, RouterScore::kSigmoid, true};
  const DeviceOptions plain{}, reversed{.control_arm = ControlArm::kReversedTies};
  const std::vector<float> tied = float_data(64 * 32, Kind::kTies, 4), distinct = float_data(64 * 32, Kind::kOrdinary, 4);
  EXPECT_FALSE(same_bits(run(s, tied, &reversed).ids, run(s, tied, &plain).ids));
  EXPECT_TRUE(same_bits(run(s, distinct, &reversed).ids, run(s, distinct, &plain).ids));
}

TEST(Router, SaturatedScores_AreTies) {
  // Sigmoids of 40 and 90 both round to 1: the lower id wins though its logit is smaller.
  const std::vector<float> logits = {0, 40, 90, 40};
  EXPECT_EQ(run({1, 4, 2, RouterScore::kSigmoid, true}, logits, nullptr).ids, (std::vector<int32_t>{1, 2}));
}

TEST(Router, ChosenIds_AscendAndAreTheLargest) {
  const Setting s{200, 60, 6, RouterScore::kSoftmax, false};
  const std::vector<float> logits = float_data(s.rows * s.experts, Kind::kOrdinary, 77);
  const DeviceOptions options{};
  const Choice c = run(s, logits, &options);
  for (int64_t r = 0; r < s.rows; ++r) {
    std::vector<int32_t> order(s.experts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[r * 60 + a] > logits[r * 60 + b]; });
    std::sort(order.begin(), order.begin() + 6);
    EXPECT_TRUE(std::equal(order.begin(), order.begin() + 6, c.ids.begin() + r * 6)) << "row " << r;
  }
}

TEST(Router, IsCloseToDoublePrecision) {
  const Setting s{20, 128, 8, RouterScore::kSoftmax, true};
  const std::vector<float> logits = float_data(s.rows * s.experts, Kind::kOrdinary, 5);
  const DeviceOptions options{};
  const Choice c = run(s, logits, &options);
  for (int64_t r = 0; r < s.rows; ++r) {
    double total = 0;
    for (int64_t i = 0; i < 8; ++i) total += std::exp(double{logits[r * 128 + c.ids[r * 8 + i]]});
    for (int64_t i = 0; i < 8; ++i) {
      const double want = std::exp(double{logits[r * 128 + c.ids[r * 8 + i]]}) / total;
      EXPECT_NEAR(c.weights[r * 8 + i], want, want * 1e-6);
    }
  }
}

TEST(Router, ARow_HasTheSameAnswerAnywhereInAnyBatch) {
  const Setting s{333, 128, 8, RouterScore::kSoftmax, true};
  const std::vector<float> logits = float_data(s.rows * s.experts, Kind::kOrdinary, 6);
  for (const DeviceOptions& options : devices()) {
    const Choice all = run(s, logits, &options);
    for (const int64_t row : {0, 1, 100, 332}) {
      const Choice alone = run({1, 128, 8, s.score, true},
                               std::vector<float>(logits.begin() + row * 128, logits.begin() + row * 128 + 128), &options);
      EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + row * 8));
      EXPECT_EQ(std::memcmp(alone.weights.data(), all.weights.data() + row * 8, 32), 0);
    }
  }
}

TEST(Router, NonFiniteLogits_GiveNanWeightsAndValidIds) {
  const float nan = numerics::bits_float(0xffc01234u), inf = numerics::bits_float(0x7f800000u);
  for (const DeviceOptions& options : devices()) {
    for (const std::vector<float>& logits :
         {std::vector<float>{1, nan, 2, 3}, std::vector<float>{1, inf, 2, 3}, std::vector<float>{-inf, -inf, -inf, -inf}}) {
      const Choice c = run({1, 4, 2, RouterScore::kSoftmax, true}, logits, &options);
      EXPECT_EQ(c.ids, (std::vector<int32_t>{0, 1}));  // all scores are the same NaN: a tie
      for (const float w : c.weights) EXPECT_EQ(numerics::float_bits(w), 0x7fffffffu);
    }
    // A single -inf is only an expert that is never wanted.
    EXPECT_EQ(run({1, 4, 2, RouterScore::kSoftmax, true}, {-inf, 5, -inf, 5}, &options).weights, std::vector<float>(2, 0.5f));
    // Under the sigmoid a NaN is its own expert's trouble: chosen first, so that it shows.
    const Choice c = run({1, 4, 2, RouterScore::kSigmoid, false}, {1, 2, nan, inf}, &options);
    EXPECT_EQ(c.ids, (std::vector<int32_t>{2, 3}));
    EXPECT_EQ(numerics::float_bits(c.weights[0]), 0x7fffffffu);
    EXPECT_EQ(c.weights[1], 1.0f);
  }
}

TEST(Router, ImpossibleCounts_Throw) {
  const DeviceOptions options{};
  EXPECT_THROW(run({1, 4, 5, RouterScore::kSoftmax, true}, std::vector<float>(4), &options), std::invalid_argument);
  EXPECT_THROW(run({1, 4, 0, RouterScore::kSoftmax, true}, std::vector<float>(4), &options), std::invalid_argument);
  EXPECT_THROW(run({1, 1025, 2, RouterScore::kSoftmax, true}, std::vector<float>(1025), &options), std::invalid_argument);
}

struct CombineCase {
  int64_t rows, width, top_k;
  bool shared, holes;
  Kind kind;
};

std::vector<Bf16> run(const CombineCase& c, const DeviceOptions* options) {
  const int64_t expert_rows = c.rows * c.top_k;
  const std::vector<Bf16> x = bf16_data(expert_rows * c.width, c.kind, 31), shared = bf16_data(c.rows * c.width, c.kind, 32);
  std::vector<float> weights = float_data(expert_rows, Kind::kSpread, 33);
  std::vector<int64_t> row_of(expert_rows);
  for (int64_t i = 0; i < expert_rows; ++i) row_of[i] = c.holes && i % 3 == 0 ? -1 : (i * 7 + 3) % expert_rows;
  std::vector<Bf16> y(c.rows * c.width);
  const Combine problem{.rows = c.rows,
                        .width = c.width,
                        .top_k = c.top_k,
                        .expert_rows = x.data(),
                        .row_of = row_of.data(),
                        .weights = weights.data(),
                        .shared = c.shared ? shared.data() : nullptr,
                        .y = y.data()};
  if (options)
    combine(Device(*options), problem);
  else
    combine_reference(problem);
  return y;
}

TEST(Combine, EverySchedule_GivesTheReferenceBits) {
  std::vector<CombineCase> cases = {{70, 576, 8, true, false, Kind::kOrdinary}};  // enough work for several threads
  for (const int64_t width : {1, 8, 15, 16, 17, 100})
    for (const int64_t top_k : {1, 2, 8})
      for (const bool shared : {false, true})
        for (const bool holes : {false, true})
          for (const Kind kind : kAllKinds) cases.push_back({5, width, top_k, shared, holes, kind});
  for (const CombineCase& c : cases) {
    const std::vector<Bf16> want = run(c, nullptr);
    for (const DeviceOptions& options : devices())
      ASSERT_TRUE(same_bits(run(c, &options), want)) << describe(options) << ", width " << c.width << ", top " << c.top_k;
  }
}

TEST(Combine, AddsInAscendingOrderWithTheSharedExpertLast) {
  // 2^30 - 2^30 + 1 in this order only; and the shared 2^-9 is added to the 1, not lost in the big ones.
  const std::vector<Bf16> x = {numerics::bf(0x1p30f), numerics::bf(-0x1p30f), numerics::bf(1.0f)};
  const std::vector<Bf16> shared = {numerics::bf(0x1p-7f)};
  const std::vector<float> weights = {1, 1, 1};
  for (const DeviceOptions& options : devices()) {
    std::vector<Bf16> y(1);
    const auto sum = [&](std::vector<int64_t> row_of) {
      combine(Device(options), {.rows = 1,
                                .width = 1,
                                .top_k = 3,
                                .expert_rows = x.data(),
                                .row_of = row_of.data(),
                                .weights = weights.data(),
                                .shared = shared.data(),
                                .y = y.data()});
      return numerics::widen(y[0]);
    };
    EXPECT_EQ(sum({0, 1, 2}), 1.0f + 0x1p-7f);
    EXPECT_EQ(sum({0, 2, 1}), 0x1p-7f);  // control: another order, another sum
    EXPECT_EQ(sum({-1, -1, -1}), 0x1p-7f);
  }
}

}  // namespace
}  // namespace invar
