#include "kernels/attention/attention_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

namespace invar {
namespace {

using testing::ElementsAre;

TEST(AttentionStep, HoldsCopiesOfWhatItWasGiven) {
  const Device device(DeviceOptions{});
  AttentionStep step;
  {
    const std::vector<int32_t> first = {7, 8}, second = {3}, positions = {20, 1, 2}, sequences = {0, 2, 2};
    const std::vector<std::span<const int32_t>> tables = {first, {}, second};
    step.reset(device, positions, sequences, tables, 16);
  }
  EXPECT_EQ(step.rows(), 3);
  EXPECT_EQ(step.sequence_count(), 3);
  EXPECT_THAT(std::vector(step.positions(), step.positions() + 3), ElementsAre(20, 1, 2));
  EXPECT_THAT(std::vector(step.sequences(), step.sequences() + 3), ElementsAre(0, 2, 2));
  EXPECT_THAT(std::vector(step.page_begins(), step.page_begins() + 4), ElementsAre(0, 2, 2, 3));
  EXPECT_THAT(std::vector(step.page_entries(), step.page_entries() + 3), ElementsAre(7, 8, 3));
  EXPECT_THAT(step.page_table(0), ElementsAre(7, 8));
  EXPECT_THAT(step.page_table(1), ElementsAre());
  EXPECT_THAT(step.page_table(2), ElementsAre(3));
}

TEST(AttentionStep, MemoryHoldsStillWhileWhatWasReservedIsEnough) {
  const Device device(DeviceOptions{});
  AttentionStep step;
  step.reserve(device, 64, 640, 100);
  const uint64_t generation = step.generation();
  const int32_t* positions = nullptr;
  for (int32_t rows = 1; rows <= 64; ++rows) {
    std::vector<int32_t> at(rows, 100), sequence(rows), table(10);
    std::iota(sequence.begin(), sequence.end(), 0);
    const std::vector<std::span<const int32_t>> tables(rows, table);
    step.reset(device, at, sequence, tables, 16);
    EXPECT_EQ(step.generation(), generation) << rows;
    if (rows > 1) {
      EXPECT_EQ(step.positions(), positions);
    }
    positions = step.positions();
  }
  const std::vector<int32_t> at(100000, 5), sequence(100000, 0), table(1);
  const std::vector<std::span<const int32_t>> tables = {table};
  step.reset(device, at, sequence, tables, 16);
  EXPECT_NE(step.generation(), generation);
}

// Each row and split must be in one item, a tile's states its own, and each row of a tile with states merged once.
void expect_covered(const cuda::AttentionPlan& plan, const std::vector<int32_t>& positions,
                    const std::vector<int32_t>& sequences) {
  std::set<std::pair<int32_t, int32_t>> done;  // (row, split)
  std::set<int32_t> states, split_rows, merged;
  for (const auto* items : {&plan.decode, &plan.prefill}) {
    for (const cuda::PlanItem& item : *items) {
      ASSERT_LT(item.first_split, item.last_split);
      EXPECT_EQ(item.row, plan.order[item.first].row);
      EXPECT_EQ(item.first_position, positions[item.row]);
      if (items == &plan.decode) {
        EXPECT_EQ(item.rows, 1);
      }
      EXPECT_EQ(item.last_split - item.first_split, item.states < 0 ? (item.end_key + 511) / 512 : 1);
      int32_t last = -1;
      for (int32_t i = 0; i < item.rows; ++i) {
        const int32_t row = plan.order[item.first + i].row;
        EXPECT_EQ(plan.order[item.first + i].position, positions[row]);
        EXPECT_EQ(sequences[row], sequences[item.row]);
        EXPECT_LT(positions[row], item.end_key);
        EXPECT_GE(positions[row], last);
        last = positions[row];
        for (int32_t split = item.first_split; split < item.last_split; ++split) {
          EXPECT_TRUE(done.emplace(row, split).second) << "row " << row << " split " << split << " is done twice";
          if (item.states < 0) continue;
          split_rows.insert(row);
          EXPECT_TRUE(states.insert(item.states + split * item.rows + i).second);
          EXPECT_LT(item.states + split * item.rows + i, plan.states);
        }
      }
    }
  }
  for (int32_t row = 0; row < static_cast<int32_t>(positions.size()); ++row)
    for (int32_t split = 0; split <= positions[row] / 512; ++split)
      EXPECT_TRUE(done.contains({row, split})) << "row " << row << " split " << split << " is missing";
  for (const cuda::PlanMerge& merge : plan.merges) {
    EXPECT_TRUE(merged.insert(merge.row).second);
    EXPECT_TRUE(states.contains(merge.states + merge.tile_row));
    EXPECT_LT(merge.tile_row, merge.rows);
  }
  EXPECT_EQ(merged, split_rows);
}

TEST(AttentionPlan, EveryRowAndSplitIsDoneOnce) {
  std::vector<int32_t> positions, sequences, begins = {0, 10, 20, 30, 40, 50};
  for (int32_t i = 0; i < 300; ++i) positions.push_back(900 + i), sequences.push_back(3);
  for (const int32_t p : {0, 511, 512, 5000}) positions.push_back(p), sequences.push_back(p == 5000 ? 4 : p / 256);
  positions.push_back(7), sequences.push_back(1);
  for (const int64_t group : {1, 4, 5, 7, 8, 16, 200})
    for (const int64_t machine : {1, 132})
      expect_covered(cuda::make_plan({machine, 8, group}, positions, sequences, begins), positions, sequences);
}

TEST(AttentionPlan, LongRowsAreSpreadAndFullTilesAreNot) {
  const std::vector<int32_t> one = {4095}, sequence = {0}, begins = {0, 256};
  const cuda::AttentionPlan decode = cuda::make_plan({132, 8, 4}, one, sequence, begins);
  EXPECT_EQ(decode.decode.size(), 8u);
  EXPECT_TRUE(decode.prefill.empty());
  std::vector<int32_t> positions(4096);
  std::iota(positions.begin(), positions.end(), 0);
  const cuda::AttentionPlan prefill = cuda::make_plan({132, 8, 4}, positions, std::vector<int32_t>(4096), begins);
  EXPECT_EQ(prefill.prefill.size(), 128u);
  EXPECT_EQ(prefill.states, 0);
  EXPECT_EQ(prefill.prefill.front().last_split, 8);  // most work first
  const std::vector<int32_t> chunk(positions.end() - 16, positions.end());
  EXPECT_EQ(cuda::make_plan({132, 8, 4}, chunk, std::vector<int32_t>(16), begins).prefill.size(), 8u);
}

}  // namespace
}  // namespace invar
