// Plans of the prefill schedule without a GPU.
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace invar::cuda::tc {
namespace {

void expect_covers(const LinearShape& shape, const PrefillPlan& plan, const Chip& chip) {
  EXPECT_GE(plan.row_tiles * kPrefillTileRows, shape.rows);
  EXPECT_LT((plan.row_tiles - 1) * kPrefillTileRows, shape.rows);
  EXPECT_GE(plan.column_tiles * plan.columns, shape.outputs);
  EXPECT_LT((plan.column_tiles - 1) * plan.columns, shape.outputs);
  EXPECT_GE(plan.grid, plan.cluster);
  EXPECT_LE(plan.grid, chip.multiprocessors);
  EXPECT_EQ(plan.grid % plan.cluster, 0);
  EXPECT_EQ(plan.band % plan.cluster, 0);
  // No block is without a tile.
  const int clusters = plan.grid / plan.cluster, units = (plan.row_tiles + plan.cluster - 1) / plan.cluster * plan.column_tiles;
  EXPECT_LE(clusters, units) << plan.describe();
  if (plan.merge == PrefillMerge::kChain || plan.merge == PrefillMerge::kTurns) {
    EXPECT_EQ(shape.leaves(), 1);
  }
  if (plan.merge == PrefillMerge::kFold) {
    EXPECT_EQ(shape.leaves(), 2);
  }
  if (plan.merge == PrefillMerge::kTree) {
    EXPECT_TRUE(shape.leaves() == 4 || shape.leaves() == 8);
  }
}

TEST(PrefillPlan, EveryColumnHasPlansThatCoverIt) {
  for (const Chip& chip : {Chip{}, Chip{.multiprocessors = 113}})
    for (int64_t rows : {65, 128, 129, 256, 1000, 4096, 100000})
      for (int64_t outputs : {1, 64, 768, 6144, 24576, 151936})
        for (int64_t inputs : {64, 512, 576, 4096, 8192, 8256, 28672}) {
          const auto shape = linear_shape(rows, outputs, inputs);
          ASSERT_TRUE(shape.has_value());
          SCOPED_TRACE(testing::Message() << rows << " rows, " << outputs << " outputs, " << inputs << " inputs");
          ASSERT_TRUE(prefill_plan(*shape, chip).has_value());
          for (const PrefillPlan& plan : prefill_plans(*shape, chip)) expect_covers(*shape, plan, chip);
        }
}

// Where a chain is short and tiles are many, columns have tiles that cannot gate.
TEST(PrefillPlan, GatedLinearsHaveTilesThatGate) {
  int others = 0;
  for (const Chip& chip : {Chip{}, Chip{.multiprocessors = 113}})
    for (int64_t rows : {65, 129, 700, 1199, 2048, 8192})
      for (int64_t width : {8, 96, 768, 1536, 3072, 4096, 8960, 28672})
        for (int64_t inputs : {64, 512, 576, 896, 1024, 1536, 2048, 4096, 8192}) {
          const auto shape = linear_shape(rows, 2 * width, inputs);
          ASSERT_TRUE(shape.has_value());
          const auto plan = prefill_plan(*shape, chip, true), apart = prefill_plan(*shape, chip);
          ASSERT_TRUE(plan.has_value() && apart.has_value());
          EXPECT_TRUE(prefill_gates(plan->merge, plan->columns))
              << rows << " rows, width " << width << ", " << inputs << " inputs: " << plan->describe();
          expect_covers(*shape, *plan, chip);
          others += !prefill_gates(apart->merge, apart->columns);
        }
  EXPECT_GT(others, 0) << "no shape here tells the two apart";
}

TEST(PrefillPlan, TilesAreAsWideAsFillsTheChip) {
  const auto columns = [](int64_t rows, int64_t outputs, int64_t inputs) {
    return prefill_plan(*linear_shape(rows, outputs, inputs), {})->columns;
  };
  EXPECT_EQ(columns(8192, 24576, 4096), 256);
  EXPECT_EQ(columns(1024, 6144, 4096), 192);  // 192 tiles of 256 are two rounds, 256 of 192 too
  EXPECT_LT(columns(1024, 1280, 8192), 128);  // one round either way
}

TEST(PrefillPlan, NodesOfTheTreeHavePlansAndOthersDoNot) {
  PackedWeights weights(Device(DeviceOptions{}), 4096, 0);
  for (auto [k, unit] : {std::pair<int64_t, int64_t>{4096, 512}, {12288, 64}, {28672, 64}}) {
    RowLinear problem{.rows = 1024, .weights = &weights, .segments = RowSegments::cut(k, unit)};
    for (int level = 0; level <= 3; ++level)
      for (int index = 0; index < 8 >> level; ++index) {
        const auto shape = linear_shape(1024, 4096, problem.segments, 0, {level, index});
        ASSERT_TRUE(shape.has_value());
        EXPECT_EQ(shape->leaves(), 1 << level);
        EXPECT_EQ(shape->leaf_begin.front() * 64, problem.segments.begin[index << level]);
        const auto plan = prefill_plan(*shape, {});
        ASSERT_TRUE(plan.has_value());
        expect_covers(*shape, *plan, {});
      }
    problem.first = 1;
    problem.last = 4;
    EXPECT_FALSE(prefill_plan(*linear_shape(problem), {}).has_value());
  }
  // Empty segments are for the generic schedule.
  RowLinear problem{.rows = 1024, .weights = &weights, .segments = RowSegments::cut(256, 64)};
  EXPECT_FALSE(linear_shape(1024, 4096, problem.segments, 0, {3, 0}).has_value());
  problem.segments = RowSegments::cut(768, 64);
  EXPECT_TRUE(prefill_plan(*linear_shape(1024, 4096, problem.segments, 0, {3, 0}), {}).has_value());
}

}  // namespace
}  // namespace invar::cuda::tc
