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
  // Every tile is some block's, whole, or in parts that each have leaves.
  const int clusters = plan.grid / plan.cluster, units = (plan.row_tiles + plan.cluster - 1) / plan.cluster * plan.column_tiles;
  EXPECT_GE(plan.shared, 0);
  EXPECT_LE(plan.shared, units);
  EXPECT_EQ(plan.shared == 0, plan.parts == 1) << plan.describe();
  if (plan.shared) {
    EXPECT_LT(plan.shared, chip.multiprocessors / plan.cluster);
    EXPECT_EQ((units - plan.shared) % clusters, 0) << plan.describe();
    EXPECT_LE(clusters, std::max(units, plan.shared * plan.parts));
    EXPECT_LE(plan.parts, kMostParts);
    EXPECT_EQ(shape.leaves(), plan.parts);
  }
  if (plan.merge == PrefillMerge::kChain) {
    EXPECT_EQ(shape.leaves(), 1);
  }
  if (plan.merge == PrefillMerge::kFold && shape.by_segments) {
    EXPECT_LE(shape.leaves(), 2);
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

TEST(PrefillPlan, ALastRoundOfFewTilesIsShared) {
  // 12 of 1728 tiles would leave most blocks idle.
  const auto few = prefill_plan(*linear_shape(4096, 10240, 8192), {});
  EXPECT_GT(few->shared, 0) << few->describe();
  EXPECT_EQ(few->parts, 4) << few->describe();
  EXPECT_EQ(few->grid, 132) << few->describe();
  // One leaf cannot be shared, nor a round that is full.
  EXPECT_EQ(prefill_plan(*linear_shape(1024, 1280, 2048), {})->shared, 0);
  EXPECT_EQ(prefill_plan(*linear_shape(1024, 33 * 4 * 192, 4096), {})->shared, 0);
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
