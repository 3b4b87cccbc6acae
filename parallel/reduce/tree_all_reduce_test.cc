#include "parallel/reduce/tree_all_reduce.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>

#include "parallel/grid/grid.h"

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;
using numerics::TreeNode;

// Values of the 8 segments, [8][rows][outputs]. Hostile: wide exponents, cancellation, subnormals, zeros of both signs, and
// values an ulp or a tie apart; any other order of additions shows at once.
std::vector<float> segment_values(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> values(numerics::kSegments * count);
  for (int64_t k = 0; k < count; ++k)
    for (int s = 0; s < numerics::kSegments; ++s) {
      float& v = values[s * count + k];
      const uint32_t r = static_cast<uint32_t>(random());
      switch (k % 8) {
        case 0:
          v = numerics::bits_float((r & 0x807fffffu) | ((100 + r / 7 % 56) << 23));
          break;  // wide
        case 1:   // the halves of the tree cancel but for their last bits
          v = s < 4 ? numerics::bits_float((r & 0x807fffffu) | (130u << 23))
                    : -numerics::bits_float(numerics::float_bits(values[(s - 4) * count + k]) ^ (r & 3));
          break;
        case 2:
          v = numerics::bits_float(r & 0x800fffffu);
          break;  // subnormal
        case 3:
          v = r & 1 ? 0.0f : -0.0f;
          break;
        case 4:
          v = -0.0f;
          break;
        case 5:
          v = numerics::bits_float(((r & 1) << 31) | (127u << 23)) * (r & 2 ? 0x1p-24f : 1.0f);
          break;  // ties
        default:
          v = numerics::bits_float((r & 0x807fffffu) | ((125 + r / 7 % 4) << 23));
          break;
      }
    }
  return values;
}

// The value of one node, by the definition of the tree.
float node_value(const RowSegments& segments, const float* values, int64_t count, int64_t k, TreeNode node) {
  std::vector<TreeNode> leaves;
  std::vector<float> leaf_values;
  for (int s = node.index << node.level; s < (node.index + 1) << node.level; ++s)
    if (!segments.empty(s, s + 1)) {
      leaves.push_back({0, s});
      leaf_values.push_back(values[s * count + k]);
    }
  return merge_to_root(leaves, leaf_values.data(), 1);
}

// What RowLinear leaves on a rank.
std::vector<float> partials_of(ControlArm arm, const RowSegments& segments, const std::vector<float>& values, int64_t count,
                               int tp, int rank) {
  const Range own = segments_of(tp, rank);
  std::vector<float> partials;
  for (const TreeNode node : shipped_nodes(arm, segments, static_cast<int>(own.begin), static_cast<int>(own.end)))
    for (int64_t k = 0; k < count; ++k) partials.push_back(node_value(segments, values.data(), count, k, node));
  return partials;
}

struct Shape {
  int64_t rows, outputs, k, unit;
};

std::vector<Bf16> bias_of(int64_t outputs) {
  std::vector<Bf16> bias(outputs);
  for (int64_t n = 0; n < outputs; ++n) bias[n] = numerics::bf(0.37f * static_cast<float>(n % 11) - 1.0f);
  return bias;
}

std::vector<uint16_t> bits(const std::vector<Bf16>& y) {
  std::vector<uint16_t> out;
  for (Bf16 v : y) out.push_back(v.bits);
  return out;
}

std::vector<uint16_t> reference(const Shape& shape, const std::vector<float>& values, const std::vector<Bf16>& bias) {
  const RowSegments segments = RowSegments::cut(shape.k, shape.unit);
  const int64_t count = shape.rows * shape.outputs;
  std::vector<Bf16> y(count);
  for (int64_t k = 0; k < count; ++k) {
    const float root = node_value(segments, values.data(), count, k, {3, 0});
    y[k] = numerics::bf(bias.empty() ? root : numerics::add(root, numerics::widen(bias[k % shape.outputs])));
  }
  return bits(y);
}

// y of every rank.
std::vector<std::vector<uint16_t>> all_reduce(int tp, const Shape& shape, const std::vector<float>& values,
                                              const std::vector<Bf16>& bias, ReduceAlgorithm algorithm, ControlArm arm,
                                              int threads = 1, bool slow = true) {
  const RowSegments segments = RowSegments::cut(shape.k, shape.unit);
  const int64_t count = shape.rows * shape.outputs;
  auto transports = start_threads(tp);
  std::vector<std::vector<uint16_t>> out(tp);
  std::vector<std::thread> ranks;
  std::vector<int> members;
  for (int r = 0; r < tp; ++r) members.push_back(r);
  for (int r = 0; r < tp; ++r) {
    if (slow) transports[r] = delayed(std::move(transports[r]), {.seed = static_cast<uint64_t>(count), .most = 100us});
    ranks.emplace_back([&, r] {
      const Device device({.threads = threads, .control_arm = arm});
      TreeAllReduce reduce(device, Group(*transports[r], members), algorithm);
      const auto partials = partials_of(arm, segments, values, count, tp, r);
      std::vector<Bf16> y(count, Bf16{0xabcd});
      const RowReduction problem{.rows = shape.rows,
                                 .outputs = shape.outputs,
                                 .segments = segments,
                                 .partials = partials.data(),
                                 .bias = bias.empty() ? nullptr : bias.data(),
                                 .y = y.data()};
      reduce.run(problem);
      out[r] = bits(y);
      std::fill(y.begin(), y.end(), Bf16{0xabcd});
      reduce.run(problem);  // scratch is used again
      EXPECT_EQ(bits(y), out[r]);
    });
  }
  for (std::thread& t : ranks) t.join();
  return out;
}

const Shape kShapes[] = {
    {1, 1, 64, 8},      // fewer elements than ranks
    {1, 63, 64, 8},     // one slice unit for all
    {7, 51, 512, 64},   // rows cross slices
    {65, 130, 48, 16},  // K/unit = 3: most segments are empty, so are whole ranks
    {3, 4099, 16, 16},  // one segment only
    {1, 9000, 24, 4},   // 6 units in 8 segments; rows longer than a block
};

class TreeAllReduceOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, TreeAllReduceOf, testing::Range(1, 9));

TEST_P(TreeAllReduceOf, BothAlgorithmsGiveTheTreesBitsOnEveryRank) {
  for (const Shape& shape : kShapes)
    for (const bool with_bias : {false, true}) {
      const auto values = segment_values(shape.rows * shape.outputs, shape.k + shape.rows);
      const auto bias = with_bias ? bias_of(shape.outputs) : std::vector<Bf16>{};
      const auto expected = reference(shape, values, bias);
      for (const auto algorithm : {ReduceAlgorithm::kGather, ReduceAlgorithm::kScatter, ReduceAlgorithm::kAuto})
        for (const auto& y : all_reduce(GetParam(), shape, values, bias, algorithm, ControlArm::kNone))
          ASSERT_EQ(y, expected) << "rows " << shape.rows << " outputs " << shape.outputs << " k " << shape.k << " algorithm "
                                 << static_cast<int>(algorithm);
    }
}

TEST_P(TreeAllReduceOf, WorkerThreadsChangeNothing) {
  const Shape shape{65, 257, 512, 64};
  const auto values = segment_values(shape.rows * shape.outputs, 9);
  const auto bias = bias_of(shape.outputs);
  const auto expected = reference(shape, values, bias);
  for (const auto& y : all_reduce(GetParam(), shape, values, bias, ReduceAlgorithm::kScatter, ControlArm::kNone, 3))
    ASSERT_EQ(y, expected);
}

// The twin that must fail: what an ordinary all-reduce does. It is right in its own way (all ranks agree, exact sums come out
// the same), but its bits depend on the rank count.
TEST_P(TreeAllReduceOf, RankOrderDiffersFromTheTree) {
  const Shape shape{7, 51, 512, 64};
  const auto values = segment_values(shape.rows * shape.outputs, 1);
  const auto tree = reference(shape, values, {});
  const auto gathered = all_reduce(GetParam(), shape, values, {}, ReduceAlgorithm::kGather, ControlArm::kRankOrderAllReduce);
  EXPECT_NE(gathered[0], tree);
  for (const auto& y : gathered) EXPECT_EQ(y, gathered[0]);
  EXPECT_EQ(all_reduce(GetParam(), shape, values, {}, ReduceAlgorithm::kScatter, ControlArm::kRankOrderAllReduce)[0],
            gathered[0]);
}

TEST(RankOrder, DependsOnTheRankCount) {
  const Shape shape{7, 51, 512, 64};
  const auto values = segment_values(shape.rows * shape.outputs, 1);
  const auto of = [&](int tp) {
    return all_reduce(tp, shape, values, {}, ReduceAlgorithm::kGather, ControlArm::kRankOrderAllReduce)[0];
  };
  const auto one = of(1);
  for (int tp = 2; tp < 8; ++tp) EXPECT_NE(of(tp), one) << tp;
  EXPECT_EQ(of(8), one);  // 8 ranks of one segment each fold from left to right as one rank does
}

TEST(RankOrder, IsALeftFoldWithinAndAcrossRanks) {
  const Shape shape{1, 6, 512, 64};
  const auto values = segment_values(6, 4);
  const auto y = all_reduce(3, shape, values, {}, ReduceAlgorithm::kGather, ControlArm::kRankOrderAllReduce)[0];
  for (int64_t k = 0; k < 6; ++k) {
    const auto v = [&](int s) { return values[s * 6 + k]; };
    const float sum = ((v(0) + v(1)) + ((v(2) + v(3)) + v(4))) + ((v(5) + v(6)) + v(7));
    EXPECT_EQ(y[k], numerics::bf(sum).bits);
  }
}

// The test's own reference, by hand: a wrong tree there would make the tests above blind.
TEST(Reference, IsTheTreeOfTheContract) {
  const Shape shape{1, 64, 512, 64};
  const auto values = segment_values(64, 2);
  const auto expected = reference(shape, values, {});
  for (int64_t k = 0; k < 64; ++k) {
    const auto v = [&](int s) { return values[s * 64 + k]; };
    const float root = ((v(0) + v(1)) + (v(2) + v(3))) + ((v(4) + v(5)) + (v(6) + v(7)));
    EXPECT_EQ(expected[k], numerics::bf(root).bits);
  }
}

TEST(TreeAllReduce, OneLeafAloneKeepsItsNegativeZero) {
  // A missing operand is skipped, not added as +0, which would turn -0 into +0.
  const Shape shape{1, 5, 16, 16};
  std::vector<float> values(8 * 5, -0.0f);
  for (const auto& y : all_reduce(5, shape, values, {}, ReduceAlgorithm::kScatter, ControlArm::kNone))
    for (uint16_t v : y) EXPECT_EQ(v, 0x8000);
}

TEST(TreeAllReduce, AbsentRankIsNamed) {
  auto transports = start_threads(3, {.timeout = 60ms});
  const Device device(DeviceOptions{});
  TreeAllReduce reduce(device, Group(*transports[1], {0, 1, 2}));
  const RowSegments segments = RowSegments::cut(512, 64);
  const std::vector<float> partials(2 * 10, 1.0f);
  std::vector<Bf16> y(10);
  try {
    reduce.run({.rows = 1, .outputs = 10, .segments = segments, .partials = partials.data(), .y = y.data()});
    FAIL();
  } catch (const PeerFailure& failure) {
    EXPECT_EQ(failure.facts().rank, 1);
    EXPECT_EQ(failure.facts().peer, 2);
    EXPECT_EQ(failure.facts().phase, "tree all-reduce (gather)");
    EXPECT_EQ(failure.facts().expected, 2 * 10 * sizeof(float));
  }
}

}  // namespace
}  // namespace invar::parallel
