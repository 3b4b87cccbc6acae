#include "kernels/merge/merge.h"

#include <gtest/gtest.h>

#include "kernels/merge/merge_cases.h"
#include "kernels/norm/residual_norm.h"

namespace invar {
namespace {

using namespace test_rows;
using namespace merge_cases;

std::vector<Bf16> merged(const Device* device, const std::vector<TreeNode>& nodes, const std::vector<std::vector<float>>& values,
                         int64_t rows, int64_t outputs, int64_t begin, int64_t end, const std::vector<Bf16>& bias, bool listed) {
  std::vector<Bf16> y(rows * outputs, Bf16{0xabcd});
  MergeNodes problem{.outputs = outputs,
                     .begin = begin,
                     .end = end,
                     .nodes = nodes,
                     .listed_order = listed,
                     .bias = bias.empty() ? nullptr : bias.data(),
                     .y = y.data()};
  for (size_t i = 0; i < nodes.size(); ++i) problem.values[i] = values[i].data() + begin;
  if (device)
    merge_nodes(*device, problem);
  else
    merge_nodes_reference(problem);
  return y;
}

TEST(MergeNodes, EveryNodeSet_GivesTheReferenceBits) {
  constexpr int64_t kRows = 3, kOutputs = 1000;
  const std::vector<Bf16> bias = bf16_data(kOutputs, Kind::kSpread, 3);
  for (const auto& nodes : node_sets())
    for (const Kind kind : {Kind::kSpread, Kind::kCancelling, Kind::kSubnormal, Kind::kNonFinite}) {
      const auto values = node_values(nodes.size(), kRows * kOutputs, kind);
      for (const bool listed : {false, true})
        for (const bool biased : {false, true})
          for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, kRows * kOutputs}, {64, 2500}, {1999, 2001}, {7, 7}})
            for (const DeviceOptions& options : {DeviceOptions{}, DeviceOptions{.threads = 3}}) {
              const Device device(options);
              const std::vector<Bf16> b = biased ? bias : std::vector<Bf16>{};
              ASSERT_TRUE(same_bits(merged(&device, nodes, values, kRows, kOutputs, begin, end, b, listed),
                                    merged(nullptr, nodes, values, kRows, kOutputs, begin, end, b, listed)))
                  << nodes.size() << " nodes, kind " << static_cast<int>(kind) << ", listed " << listed;
            }
    }
}

// Control arm: the left fold differs from the tree, or nothing above depends on the order.
TEST(MergeNodes, TheListedOrder_Differs) {
  const std::vector<TreeNode> nodes = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}, {0, 7}};
  const auto values = node_values(8, 8000, Kind::kCancelling);
  const Device device({});
  EXPECT_FALSE(same_bits(merged(&device, nodes, values, 8, 1000, 0, 8000, {}, true),
                         merged(&device, nodes, values, 8, 1000, 0, 8000, {}, false)));
}

TEST(MergeNodes, AddListed_IsALeftFold) {
  const std::vector<float> big = {0x1p30f, 1.0f}, one = {1.0f, 0x1p-24f}, minus = {-0x1p30f, 0x1p-24f};
  const std::vector<const float*> values = {big.data(), one.data(), minus.data()};
  std::vector<float> sum(2, 7.0f);
  add_listed(Device({}), values, 2, sum.data());
  EXPECT_EQ(sum, (std::vector<float>{0.0f, 1.0f}));
  add_listed(Device({}), {}, 2, sum.data());
  EXPECT_EQ(numerics::float_bits(sum[0]), 0u);
}

TEST(MergeResidualNorm, IsTheThreeOperations) {
  constexpr int64_t kRows = 4, kWidth = 576;
  const std::vector<TreeNode> nodes = {{1, 0}, {1, 1}, {2, 1}};
  const auto values = node_values(3, kRows * kWidth, Kind::kSpread);
  const std::vector<Bf16> start = bf16_data(kRows * kWidth, Kind::kSpread, 4), weight = bf16_data(kWidth, Kind::kOrdinary, 5);
  const Device device({.threads = 2});
  std::vector<Bf16> y = merged(&device, nodes, values, kRows, kWidth, 0, kRows * kWidth, {}, false), x = start,
                    want(kRows * kWidth);
  residual_rms_norm(device, {.rows = kRows,
                             .width = kWidth,
                             .x = x.data(),
                             .y = y.data(),
                             .weight = weight.data(),
                             .epsilon = 1e-5f,
                             .normed = want.data()});
  for (const bool keeps : {true, false}) {
    std::vector<Bf16> fused_y(kRows * kWidth), fused_x = start, normed(kRows * kWidth);
    MergeResidualNorm problem{
        .merge = {.outputs = kWidth, .end = kRows * kWidth, .nodes = nodes, .y = keeps ? fused_y.data() : nullptr},
        .x = fused_x.data(),
        .weight = weight.data(),
        .epsilon = 1e-5f,
        .normed = normed.data()};
    for (size_t i = 0; i < nodes.size(); ++i) problem.merge.values[i] = values[i].data();
    merge_residual_norm(device, problem);
    EXPECT_TRUE(same_bits(normed, want));
    EXPECT_TRUE(same_bits(fused_x, x));
    if (keeps) {
      EXPECT_TRUE(same_bits(fused_y, y));
    }
  }
}

}  // namespace
}  // namespace invar
