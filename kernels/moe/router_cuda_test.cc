#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/moe/router.h"

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

Choice reference(const Setting& s, const std::vector<float>& logits) {
  Choice c{std::vector<int32_t>(s.rows * s.top_k, -1), std::vector<float>(s.rows * s.top_k, -1)};
  route_reference({s.rows, s.experts, s.top_k, s.score, s.renormalise, logits.data(), c.ids.data(), c.weights.data()});
  return c;
}

Choice run(const Device& device, const Setting& s, const std::vector<float>& logits) {
  const DeviceArray<float> there(device, logits), weights(device, s.rows * s.top_k + 1);
  const DeviceArray<int32_t> ids(device, s.rows * s.top_k + 1);
  route(device, {s.rows, s.experts, s.top_k, s.score, s.renormalise, there.data(), ids.data(), weights.data()});
  Choice c{ids.to_host(device), weights.to_host(device)};
  EXPECT_EQ(c.ids.back(), 0);  // nothing behind the last row
  EXPECT_EQ(c.weights.back(), 0);
  c.ids.pop_back();
  c.weights.pop_back();
  return c;
}

class RouterCuda : public CudaTest {};

TEST_F(RouterCuda, GivesTheReferenceBits) {
  uint64_t seed = 0;
  for (const auto& [experts, top_k] : {std::pair<int64_t, int64_t>{1, 1},
                                       {2, 1},
                                       {7, 3},
                                       {8, 2},
                                       {9, 9},
                                       {17, 2},
                                       {33, 33},
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
          const Setting s{static_cast<int64_t>(1 + ++seed % 9), experts, top_k, score, renormalise};
          const std::vector<float> logits = float_data(s.rows * experts, kind, seed);
          const Choice want = reference(s, logits), got = run(device(), s, logits);
          ASSERT_TRUE(same_bits(got.ids, want.ids))
              << experts << " experts, top " << top_k << ", kind " << static_cast<int>(kind);
          ASSERT_TRUE(same_bits(got.weights, want.weights))
              << experts << " experts, top " << top_k << ", kind " << static_cast<int>(kind);
        }
}

TEST_F(RouterCuda, SigmoidGivesTheReferenceBitsOverAllMagnitudes) {
  // top_k = experts and no renormalisation: the weights are the scores themselves.
  const Setting s{4096, 1024, 1024, RouterScore::kSigmoid, false};
  std::vector<float> logits(s.rows * s.experts), want(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = numerics::bits_float(static_cast<uint32_t>(i * 1021));
    want[i] = numerics::bits_float(numerics::canonical_bits(logits[i] != logits[i] ? logits[i] : numerics::sigmoid(logits[i])));
  }
  EXPECT_TRUE(same_bits(run(device(), s, logits).weights, want));
}

// A row's answer is its own: alone, moved, among others.
TEST_F(RouterCuda, ARowHasTheSameBitsWhereverItLies) {
  const Setting many{50, 128, 8, RouterScore::kSoftmax, true}, one{1, 128, 8, RouterScore::kSoftmax, true};
  const std::vector<float> logits = float_data(many.rows * many.experts, Kind::kSpread, 3);
  const Choice all = run(device(), many, logits);
  for (const int64_t r : {0, 1, 3, 17, 49}) {
    const Choice alone = run(device(), one, std::vector<float>(logits.begin() + r * 128, logits.begin() + (r + 1) * 128));
    EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + r * 8));
    EXPECT_TRUE(same_bits(alone.weights, std::vector<float>(all.weights.begin() + r * 8, all.weights.begin() + (r + 1) * 8)));
  }
}

TEST_F(RouterCuda, TiesGoToTheLowestIdUnlessReversed) {
  const std::vector<float> logits = {1, 1, 1, 1, 1,          1, 1,     1, /**/ 0, 2,  3,  2,
                                     3, 2, 3, 0, /**/ -0.0f, 0, -0.0f, 0, -9,     -9, -9, -9};
  const Setting s{3, 8, 2, RouterScore::kSoftmax, true};
  EXPECT_EQ(run(device(), s, logits).ids, (std::vector<int32_t>{0, 1, 2, 4, 0, 1}));
  const auto reversed = open(Profile::kPortable, ControlArm::kReversedTies);
  EXPECT_EQ(run(*reversed, s, logits).ids, (std::vector<int32_t>{6, 7, 4, 6, 2, 3}));
  const Setting wide{2, 96, 3, RouterScore::kSigmoid, true};  // ties between registers of a lane and between lanes
  EXPECT_EQ(run(device(), wide, std::vector<float>(192, 1.0f)).ids, (std::vector<int32_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(run(*reversed, wide, std::vector<float>(192, 1.0f)).ids, (std::vector<int32_t>{93, 94, 95, 93, 94, 95}));
}

TEST_F(RouterCuda, ImpossibleCountsThrow) {
  EXPECT_THROW(run(device(), {1, 4, 5, RouterScore::kSoftmax, true}, std::vector<float>(4)), std::invalid_argument);
  EXPECT_THROW(run(device(), {1, 1025, 2, RouterScore::kSoftmax, true}, std::vector<float>(1025)), std::invalid_argument);
}

class CombineCuda : public CudaTest {
 protected:
  struct Case {
    int64_t rows, width, top_k;
    bool shared, holes;
    Kind kind;
  };
  // With Backend::kCuda on the device, otherwise the reference.
  static std::vector<Bf16> run(const Case& c, const Device* gpu, int64_t turn = 0) {
    const int64_t expert_rows = c.rows * c.top_k;
    const std::vector<Bf16> x = bf16_data(expert_rows * c.width, c.kind, 31), shared = bf16_data(c.rows * c.width, c.kind, 32);
    const std::vector<float> weights = float_data(expert_rows, Kind::kSpread, 33);
    std::vector<int64_t> row_of(expert_rows);
    for (int64_t i = 0; i < expert_rows; ++i) row_of[i] = c.holes && i % 3 == 0 ? -1 : (i * 7 + 3) % expert_rows;
    // Another order of the same experts, for the control.
    for (int64_t r = 0; r < c.rows; ++r)
      std::rotate(row_of.begin() + r * c.top_k, row_of.begin() + r * c.top_k + turn, row_of.begin() + (r + 1) * c.top_k);
    Combine p{.rows = c.rows, .width = c.width, .top_k = c.top_k};
    std::vector<Bf16> y(c.rows * c.width);
    if (!gpu) {
      p.expert_rows = x.data(), p.row_of = row_of.data(), p.weights = weights.data(), p.y = y.data();
      p.shared = c.shared ? shared.data() : nullptr;
      combine_reference(p);
      return y;
    }
    const DeviceArray<Bf16> x_there(*gpu, x), shared_there(*gpu, shared), y_there(*gpu, y);
    const DeviceArray<float> weights_there(*gpu, weights);
    const DeviceArray<int64_t> row_of_there(*gpu, row_of);
    p.expert_rows = x_there.data(), p.row_of = row_of_there.data(), p.weights = weights_there.data(), p.y = y_there.data();
    p.shared = c.shared ? shared_there.data() : nullptr;
    combine(*gpu, p);
    return y_there.to_host(*gpu);
  }
};

TEST_F(CombineCuda, GivesTheReferenceBits) {
  std::vector<Case> cases = {{70, 576, 8, true, false, Kind::kOrdinary}, {3, 4096, 8, false, false, Kind::kSpread}};
  for (const int64_t width : {1, 8, 15, 16, 100})
    for (const int64_t top_k : {1, 2, 8, 11})
      for (const bool shared : {false, true})
        for (const bool holes : {false, true})
          for (const Kind kind : kAllKinds) cases.push_back({5, width, top_k, shared, holes, kind});
  for (const Case& c : cases)
    ASSERT_TRUE(same_bits(run(c, &device()), run(c, nullptr)))
        << "width " << c.width << ", top " << c.top_k << ", kind " << static_cast<int>(c.kind);
}

TEST_F(CombineCuda, AnotherOrderIsAnotherSum) {
  const Case c{8, 256, 8, false, false, Kind::kSpread};
  EXPECT_FALSE(same_bits(run(c, &device(), 1), run(c, nullptr)));
}

}  // namespace
}  // namespace invar
