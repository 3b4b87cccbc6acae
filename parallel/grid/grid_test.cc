#include "parallel/grid/grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace invar::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Grid, RankOrderIsDpPpEpTp) {
  const Layout layout{.tp = 3, .pp = 2, .ep = 4, .dp = 2};
  EXPECT_EQ(layout.world(), 48);
  EXPECT_EQ(coordinates_of(layout, 1), (Coordinates{.tp = 1}));
  EXPECT_EQ(coordinates_of(layout, 3), (Coordinates{.ep = 1}));
  EXPECT_EQ(coordinates_of(layout, 12), (Coordinates{.pp = 1}));
  EXPECT_EQ(coordinates_of(layout, 24), (Coordinates{.dp = 1}));
  for (int rank = 0; rank < layout.world(); ++rank) EXPECT_EQ(rank_of(layout, coordinates_of(layout, rank)), rank);
}

TEST(Grid, MembersShareAllOtherCoordinates) {
  const Layout layout{.tp = 2, .pp = 2, .ep = 3, .dp = 2};
  const Coordinates at = coordinates_of(layout, 12 + 6 + 2 + 1);
  EXPECT_EQ(at, (Coordinates{.dp = 1, .pp = 1, .ep = 1, .tp = 1}));
  EXPECT_THAT(tp_members(layout, at), ElementsAre(20, 21));
  EXPECT_THAT(ep_members(layout, at), ElementsAre(19, 21, 23));
  EXPECT_THAT(pp_members(layout, at), ElementsAre(15, 21));
  EXPECT_THAT(replica_members(layout, at), ElementsAre(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23));
}

TEST(Grid, ShardsCoverOnceAndOwnerInverts) {
  for (int64_t n : {0, 1, 2, 3, 7, 8, 9, 64, 127})
    for (int64_t parts = 1; parts <= 12; ++parts) {
      int64_t at = 0;
      for (int64_t i = 0; i < parts; ++i) {
        const Range range = shard(n, parts, i);
        EXPECT_EQ(range.begin, at);
        EXPECT_GE(range.size(), n / parts);
        EXPECT_LE(range.size(), (n + parts - 1) / parts);
        for (int64_t thing = range.begin; thing < range.end; ++thing)
          EXPECT_EQ(shard_owner(n, parts, thing), i) << n << "/" << parts;
        at = range.end;
      }
      EXPECT_EQ(at, n);
    }
}

TEST(Grid, SegmentsOfThreeRanks) {
  EXPECT_EQ(segments_of(3, 0), (Range{0, 2}));
  EXPECT_EQ(segments_of(3, 1), (Range{2, 5}));
  EXPECT_EQ(segments_of(3, 2), (Range{5, 8}));
}

TEST(Grid, ExpertOwners) { EXPECT_THAT(expert_owners(5, 3), ElementsAre(0, 1, 1, 2, 2)); }

TEST(Grid, GroupsTouchedOverlapBetweenNeighbours) {
  // 8 query heads in groups of 4, cut over 3 ranks: both KV heads are held by the rank in the middle.
  EXPECT_EQ(groups_touched({0, 2}, 4), (Range{0, 1}));
  EXPECT_EQ(groups_touched({2, 5}, 4), (Range{0, 2}));
  EXPECT_EQ(groups_touched({5, 8}, 4), (Range{1, 2}));
  EXPECT_TRUE(groups_touched({3, 3}, 4).empty());
}

TEST(Grid, ValidateAcceptsEveryTpAndUnevenCounts) {
  for (int tp = 1; tp <= 8; ++tp) EXPECT_TRUE(validate({.tp = tp}, {.layers = 1}).ok());
  EXPECT_TRUE(validate({.tp = 3, .pp = 5, .ep = 7, .dp = 2}, {.layers = 5, .experts = 7}).ok());
}

TEST(Grid, ValidateNamesFieldAndValue) {
  const auto message = [](Layout layout, ModelFacts model) {
    const absl::Status status = validate(layout, model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const ModelFacts moe{.layers = 4, .experts = 8};
  EXPECT_THAT(message({.tp = 0}, moe), HasSubstr("tp = 0"));
  EXPECT_THAT(message({.tp = 9}, moe), HasSubstr("tp = 9"));
  EXPECT_THAT(message({.pp = 5}, moe), HasSubstr("pp = 5: the model has only 4 layers"));
  EXPECT_THAT(message({.pp = -1}, moe), HasSubstr("pp = -1"));
  EXPECT_THAT(message({.ep = 9}, moe), HasSubstr("ep = 9: the model has only 8 experts"));
  EXPECT_THAT(message({.ep = 2}, {.layers = 4}), HasSubstr("ep = 2: the model is dense"));
  EXPECT_THAT(message({.ep = 0}, moe), HasSubstr("ep = 0"));
  EXPECT_THAT(message({.dp = 0}, moe), HasSubstr("dp = 0"));
  EXPECT_THAT(message({.tp = 8, .pp = 4, .ep = 8, .dp = 1 << 30}, moe), HasSubstr("dp1073741824"));
}

}  // namespace
}  // namespace invar::parallel
