// Plans of the GPU's `portable` linears: whatever is chosen covers the problem and fits the machine. Needs no GPU.
#include "kernels/linear/cuda/portable_plan.h"

#include <gtest/gtest.h>

#include "kernels/linear/cuda/portable_layout.h"

namespace invar::cuda::portable {
namespace {

constexpr Machine kMachine;

void expect_covers(const LeafOrder& order, const Target& target, const Plan& plan) {
  EXPECT_LE(plan.shared, static_cast<size_t>(kMachine.shared_memory));
  if (plan.schedule == Schedule::kStream) {
    EXPECT_LE(plan.warps, stream_warps(plan.pass_rows));
    EXPECT_GE(2 * plan.warps * plan.cluster, order.leaves());
    EXPECT_GE(int64_t{plan.pass_rows} * plan.passes, target.rows);
    EXPECT_LT(int64_t{plan.pass_rows} * (plan.passes - 1), target.rows);
    EXPECT_GE(plan.clusters, 1);
    EXPECT_LE(plan.clusters, panels(target.outputs));
    EXPECT_GE(plan.stages, kLeastStages);
    EXPECT_LE(plan.stages, kMostStages);
    EXPECT_EQ(plan.shared, stream_shared(plan.pass_rows, plan.warps, plan.stages).bytes);
  }
  if (plan.schedule == Schedule::kTiles) {
    EXPECT_TRUE(plan.tile_rows == 128 || plan.tile_rows == 256);
  }
}

TEST(PortablePlan, CoversEveryShapeOfModels) {
  int64_t stream = 0, tiles = 0;
  for (const int64_t outputs : {1, 64, 70, 576, 768, 4096, 24576, 151936})
    for (const int64_t inputs : {16, 576, 1536, 4096, 12288, 28672, 65536})
      for (const int64_t rows : {1, 2, 3, 8, 9, 16, 17, 64, 100, 300, 5000}) {
        Target target{.rows = rows, .outputs = outputs};
        const LeafOrder column = column_leaves(ControlArm::kNone, rows, inputs);
        const Plan plan = make_plan(kMachine, column, target, true);
        SCOPED_TRACE(testing::Message() << outputs << " x " << inputs << ", rows " << rows);
        ASSERT_NE(plan.schedule, Schedule::kAnyShape);
        expect_covers(column, target, plan);
        stream += plan.schedule == Schedule::kStream;
        tiles += plan.schedule == Schedule::kTiles;
        // Rows that no copy engine can take, and orders that are no whole leaves.
        EXPECT_EQ(make_plan(kMachine, column, target, false).schedule, Schedule::kAnyShape);
        for (const ControlArm arm : {ControlArm::kFixedSplitCount, ControlArm::kSwappedGroups})
          EXPECT_EQ(make_plan(kMachine, column_leaves(arm, rows, inputs), target, true).schedule, Schedule::kAnyShape);

        const RowSegments segments = RowSegments::cut(inputs, numerics::down_unit(inputs));
        for (const auto& [first, last] : {std::pair{0, 8}, {0, 4}, {5, 7}, {1, 6}, {7, 8}}) {
          const LeafOrder row = row_leaves(ControlArm::kNone, rows, segments, first, last);
          Target nodes{.rows = rows, .outputs = outputs, .row_parallel = true};
          for (const TreeNode& node : maximal_subtrees(segments, first, last)) {
            nodes.level[nodes.nodes] = static_cast<int8_t>(node.level);
            nodes.index[nodes.nodes++] = static_cast<int8_t>(node.index);
          }
          const Plan share = make_plan(kMachine, row, nodes, true);
          bool whole = row.leaves() > 0;  // a segment that ends within a step of 16 is for the schedule that takes anything
          for (int s = 0; s <= numerics::kSegments; ++s) whole &= row.begin[s] % kPanelStep == 0;
          EXPECT_EQ(share.schedule != Schedule::kAnyShape, whole);
          expect_covers(row, nodes, share);
        }
      }
  EXPECT_GT(stream, 100);
  EXPECT_GT(tiles, 100);
}

TEST(PortablePlan, FewRowsStreamAndManyTakeTiles) {
  const LeafOrder order = column_leaves(ControlArm::kNone, 1, 4096);
  EXPECT_EQ(make_plan(kMachine, order, {.rows = 1, .outputs = 6144}, true).schedule, Schedule::kStream);
  EXPECT_EQ(make_plan(kMachine, order, {.rows = 4096, .outputs = 6144}, true).schedule, Schedule::kTiles);
}

}  // namespace
}  // namespace invar::cuda::portable
