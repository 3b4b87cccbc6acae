// Plans of the decode schedule without a GPU: whatever the shape, there is one, it fits the chip and leaves no output or k out.
#include "kernels/linear/cuda/tensor_core_decode_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace invar::cuda::tc {
namespace {

std::vector<LinearShape> shapes() {
  std::vector<LinearShape> all;
  for (int64_t rows : {1, 8, 9, 16, 17, 32, 33, 64}) {
    for (auto [outputs, inputs] : {std::pair<int64_t, int64_t>{768, 4096},
                                   {6144, 4096},
                                   {24576, 4096},
                                   {151936, 4096},
                                   {57344, 8192},
                                   {1280, 8192},
                                   {128, 2048},
                                   {1, 64},
                                   {70, 576},
                                   {8, 28672}})
      all.push_back(*linear_shape(rows, outputs, inputs));
    for (auto [outputs, k, unit] : {std::tuple<int64_t, int64_t, int64_t>{4096, 4096, 512},
                                    {4096, 12288, 64},
                                    {4096, 16384, 512},
                                    {8192, 28672, 64},
                                    {2048, 768, 64},
                                    {64, 512, 64},
                                    {64, 64, 64}})
      for (int first = 0; first < numerics::kSegments; ++first)
        for (int last = first + 1; last <= numerics::kSegments; ++last) {
          PackedWeights weights(Device(DeviceOptions{}), outputs, 0);
          RowLinear problem{
              .rows = rows, .weights = &weights, .segments = RowSegments::cut(k, unit), .first = first, .last = last};
          if (const auto shape = linear_shape(problem)) all.push_back(*shape);
        }
  }
  return all;
}

void expect_fits(const LinearShape& shape, const DecodePlan& plan, const Chip& chip) {
  const int slices = plan.choice.k_groups * plan.choice.cluster;
  const int output_tiles = plan.tiles / plan.choice.row_tiles;
  EXPECT_EQ(output_tiles * plan.choice.row_tiles, plan.tiles);
  EXPECT_GE(plan.tokens * plan.choice.row_tiles, shape.rows);
  EXPECT_LT(plan.tokens * (plan.choice.row_tiles - 1), shape.rows);
  EXPECT_GE(output_tiles * plan.choice.tile_outputs, shape.outputs);
  EXPECT_LT((output_tiles - 1) * plan.choice.tile_outputs, shape.outputs);
  EXPECT_LE(slices, shape.leaves());
  EXPECT_LE(plan.shared, chip.block_shared);
  EXPECT_LE((plan.shared + 1024) * plan.choice.resident, chip.shared);
  EXPECT_LE(plan.threads, most_decode_threads(plan.tokens, shape.by_segments));
  EXPECT_GE(plan.stages, plan.choice.producers);
  EXPECT_LE(16 + plan.stages * plan.choice.k_groups * 16, 1024);
  EXPECT_GT(plan.grid, 0);
  EXPECT_EQ(plan.grid % plan.choice.cluster, 0);
  EXPECT_GE(plan.share * plan.choice.cluster * 4, plan.choice.tile_outputs * plan.tokens);
  EXPECT_EQ(plan.choice.tile_outputs % 8, 0);
  // Each leaf is whole stages, and all rings are there.
  for (int begin : shape.leaf_begin) EXPECT_EQ(begin % plan.choice.depth, 0);
  EXPECT_GE(plan.shared, plan.stages * plan.choice.k_groups * plan.choice.depth * 128 * (plan.choice.tile_outputs + plan.tokens));
  EXPECT_LE(plan.tokens, most_decode_tokens(plan.choice.depth));
  EXPECT_TRUE(plan.next_at >= -1 && plan.next_at <= plan.stages);
  // Blocks of a cluster leave after one tile.
  if (plan.choice.cluster > 1) {
    EXPECT_EQ(plan.grid, plan.tiles * plan.choice.cluster);
  }
  // Who does not send keeps the output to himself.
  if (plan.slots == 0) {
    EXPECT_TRUE(shape.leaves() == 1 || (slices == 1 && plan.subtrees));
  }
}

TEST(DecodePlan, EveryShapeHasAPlanThatFits) {
  for (const Chip& chip : {Chip{}, Chip{.multiprocessors = 114}})
    for (const LinearShape& shape : shapes()) {
      const DecodePlan plan = decode_plan(shape, chip);
      SCOPED_TRACE(testing::Message() << shape.rows << " rows, " << shape.outputs << " outputs, " << shape.leaves()
                                      << (shape.by_segments ? " segments: " : " leaves: ") << plan.describe());
      expect_fits(shape, plan, chip);
      // Gate and up lie eight outputs apart.
      const DecodePlan gated = decode_plan(shape, chip, 16);
      expect_fits(shape, gated, chip);
      EXPECT_EQ(gated.choice.tile_outputs % 16, 0) << gated.describe();
      for (const DecodePlan& other : decode_plans(shape, chip)) expect_fits(shape, other, chip);
      if (HasFailure()) return;
    }
}

// What the slowest multiprocessor carries, over what each would carry if all carried the same.
double unevenness(const LinearShape& shape, const DecodePlan& plan, const Chip& chip) {
  const int blocks = plan.tiles * plan.choice.cluster, slots = plan.choice.resident * chip.multiprocessors;
  const int rounds = (blocks + slots - 1) / slots, in_round = (blocks + rounds - 1) / rounds;
  const int of_one = (in_round + chip.multiprocessors - 1) / chip.multiprocessors * rounds;
  return static_cast<double>(of_one) * plan.choice.tile_outputs / plan.choice.cluster * chip.multiprocessors / shape.outputs;
}

TEST(DecodePlan, MultiprocessorsGetEvenSharesOfLargeMatrices) {
  for (const Chip& chip : {Chip{}, Chip{.multiprocessors = 114}})
    for (int64_t rows : {1, 16})
      for (int64_t outputs : {6144, 7168, 10240, 14336, 24576, 28672, 57344, 128256, 151936}) {
        const LinearShape shape = *linear_shape(rows, outputs, 4096);
        const DecodePlan plan = decode_plan(shape, chip);
        EXPECT_LT(unevenness(shape, plan, chip), 1.17) << outputs << " outputs, " << rows << " rows: " << plan.describe();
      }
  // The yardstick: tiles of one size leave most multiprocessors waiting for a few.
  const LinearShape shape = *linear_shape(1, 10240, 4096);
  EXPECT_GT(unevenness(shape, *decode_plan(shape, DecodeChoice{}, Chip{}), Chip{}), 1.5);
}

// A thin matrix's chains have deep stages, most of which are there before x, and there is as much room again for the next call's
// blocks.
TEST(DecodePlan, ThinMatricesLieInRingsNearlyWhole) {
  for (int64_t rows : {1, 8, 9, 16})
    for (int64_t inputs : {1024, 2048, 4096})
      for (int unit : {8, 16}) {
        const DecodePlan plan = decode_plan(*linear_shape(rows, 768, inputs), Chip{}, unit);
        EXPECT_EQ(plan.choice.depth, 4) << plan.describe();
        EXPECT_EQ(plan.tokens, 8) << plan.describe();  // the fewest: the steps of the chain are short
        EXPECT_GE(plan.stages * plan.choice.depth * 64, std::min<int64_t>(inputs, 2048)) << plan.describe();
        EXPECT_LE(2 * plan.grid, Chip{}.multiprocessors) << plan.describe();
        EXPECT_TRUE(plan.next_at < 0 || plan.ahead > 0) << plan.describe();
      }
  // 2112 inputs end in the midst of any deep stage, 2176 in the midst of a deeper one.
  EXPECT_EQ(decode_plan(*linear_shape(1, 768, 2048 + 64), Chip{}).choice.depth, 1);
  EXPECT_EQ(decode_plan(*linear_shape(1, 768, 2048 + 128), Chip{}).choice.depth, 2);
  // Larger tiles, still on half of the multiprocessors; then all of them.
  const DecodePlan half = decode_plan(*linear_shape(1, 3072, 4096), Chip{}),
                   all = decode_plan(*linear_shape(1, 6144, 4096), Chip{});
  EXPECT_LE(2 * half.grid, Chip{}.multiprocessors) << half.describe();
  EXPECT_GT(2 * all.grid, Chip{}.multiprocessors) << all.describe();
  // A share of a row-parallel matrix.
  const RowSegments segments = RowSegments::cut(12288, 64);
  const LinearShape share = *linear_shape(16, 4096, segments, 2, 3, maximal_subtrees(segments, 2, 3));
  const DecodePlan plan = decode_plan(share, Chip{});
  EXPECT_EQ(plan.stages * plan.choice.depth, 24) << plan.describe();
  // Two segments whose sum leaves, one behind the other.
  const RowSegments pairs = RowSegments::cut(4096, 512);
  const DecodePlan both = decode_plan(*linear_shape(16, 4096, pairs, 2, 4, maximal_subtrees(pairs, 2, 4)), Chip{});
  EXPECT_EQ(both.stages * both.choice.depth, 16) << both.describe();
  EXPECT_EQ(both.slots, 0) << both.describe();
}

// Many rows of a thin matrix: a block takes in few of either, and there is one for every second multiprocessor.
TEST(DecodePlan, ThinMatricesOfManyRowsAreCutInRows) {
  const LinearShape shape = *linear_shape(64, 768, 4096);
  for (int unit : {8, 16}) {
    const DecodePlan plan = decode_plan(shape, Chip{}, unit);
    EXPECT_GT(plan.choice.row_tiles, 1) << plan.describe();
    EXPECT_LE(plan.choice.tile_outputs + plan.tokens, 80) << plan.describe();
    EXPECT_GT(plan.grid, 55) << plan.describe();
    EXPECT_LE(plan.grid, 66) << plan.describe();
  }
  EXPECT_EQ(decode_plan(*linear_shape(32, 768, 4096), Chip{}).tokens, 8);
  // Few rows have nothing to cut, and a wide matrix would fetch its weights twice.
  EXPECT_EQ(decode_plan(*linear_shape(8, 768, 4096), Chip{}).choice.row_tiles, 1);
  EXPECT_EQ(decode_plan(*linear_shape(64, 24576, 4096), Chip{}).choice.row_tiles, 1);
  // The fourth tile would have no row.
  EXPECT_FALSE(decode_plan(*linear_shape(40, 768, 4096), DecodeChoice{.row_tiles = 4}, Chip{}).has_value());
  EXPECT_EQ(decode_plan(*linear_shape(40, 768, 4096), Chip{}).choice.row_tiles, 2);
}

// A column is one chain: nobody else can have a part of it.
TEST(DecodePlan, ColumnsHaveNoSlices) {
  const LinearShape shape = *linear_shape(8, 1280, 8192);
  EXPECT_FALSE(decode_plan(shape, DecodeChoice{.cluster = 2}, Chip{}).has_value());
  EXPECT_FALSE(decode_plan(shape, DecodeChoice{.k_groups = 2}, Chip{}).has_value());
  for (const DecodePlan& plan : decode_plans(shape, Chip{})) EXPECT_EQ(plan.slots, 0) << plan.describe();
}

TEST(DecodePlan, StagesHoldWholeParts) {
  // 35 times 64 inputs: a deeper stage would reach behind them.
  const LinearShape shape = *linear_shape(8, 128, 2048 + 128 + 64);
  EXPECT_TRUE(decode_plan(shape, DecodeChoice{}, Chip{}).has_value());
  EXPECT_FALSE(decode_plan(shape, DecodeChoice{.depth = 2}, Chip{}).has_value());
  const LinearShape two = *linear_shape(8, 128, 2048 + 128);
  EXPECT_TRUE(decode_plan(two, DecodeChoice{.depth = 2}, Chip{}).has_value());
  EXPECT_FALSE(decode_plan(two, DecodeChoice{.depth = 4}, Chip{}).has_value());
  // Many rows of x would leave no room for several deep stages.
  EXPECT_FALSE(decode_plan(*linear_shape(64, 128, 4096), DecodeChoice{.depth = 4}, Chip{}).has_value());
}

TEST(DecodePlan, SegmentsThatNoBlockDividesAreRefused) {
  PackedWeights weights(Device(DeviceOptions{}), 8, 0);
  RowLinear problem{.rows = 1, .weights = &weights, .segments = RowSegments::cut(576, 8)};
  EXPECT_FALSE(linear_shape(problem).has_value());
  EXPECT_FALSE(linear_shape(1, 8, 100).has_value());
  EXPECT_FALSE(decode_plan(*linear_shape(65, 8, 128), DecodeChoice{}, Chip{}).has_value());
  problem.segments = RowSegments::cut(768, 64);
  const auto shape = linear_shape(problem);
  ASSERT_TRUE(shape.has_value());
  EXPECT_EQ(shape->leaf_begin, (std::vector<int>{0, 1, 3, 4, 6, 7, 9, 10, 12}));
}

}  // namespace
}  // namespace invar::cuda::tc
