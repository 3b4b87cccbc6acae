// A checker that cannot notice is worth nothing: each way of breaking the contract must change an answer's bits.
#include <gtest/gtest.h>

#include "runtime/receipt/numerics_id.h"
#include "support/arrangement.h"

namespace invar::tests {
namespace {

bool hashes_differ(const Answers& a, const Answers& b) {
  for (const auto& [name, answer] : a)
    if (b.at(name).logits_hashes != answer.logits_hashes || b.at(name).tokens != answer.tokens) return true;
  return false;
}

Answers run(ControlArm arm, parallel::Layout layout, int company = 0, int64_t chunk = 0, Profile profile = Profile::kPortable) {
  const Model& m = Model::get("demo-moe");
  return ask(m,
             {.name = "control",
              .layout = layout,
              .profile = profile,
              .arm = arm,
              .long_prefill_token_threshold = chunk,
              .company = company,
              .order = company ? 3u : 0u},
             mixed_requests(m.loaded().config.vocab_size, 150))
      .answers;
}

TEST(ControlArms, HonestRunsAreEqual) {
  EXPECT_FALSE(hashes_differ(run(ControlArm::kNone, {}), run(ControlArm::kNone, {.tp = 3}, 5, 17)));
}

TEST(ControlArms, RankOrderAllReduceDependsOnTheRankCount) {
  const Answers one = run(ControlArm::kRankOrderAllReduce, {});
  EXPECT_TRUE(hashes_differ(one, run(ControlArm::kRankOrderAllReduce, {.tp = 3})));
  EXPECT_TRUE(hashes_differ(one, run(ControlArm::kRankOrderAllReduce, {.tp = 4})));
  EXPECT_TRUE(hashes_differ(run(ControlArm::kNone, {.tp = 4}), run(ControlArm::kRankOrderAllReduce, {.tp = 4})));
}

TEST(ControlArms, FixedSplitCountDependsOnTheBatch) {
  EXPECT_TRUE(hashes_differ(run(ControlArm::kFixedSplitCount, {}), run(ControlArm::kFixedSplitCount, {}, 24)));
}

TEST(ControlArms, SwappedGroupsDiffer) {
  for (const Profile p : {Profile::kPortable, Profile::kTc})
    EXPECT_TRUE(hashes_differ(run(ControlArm::kNone, {}, 0, 0, p), run(ControlArm::kSwappedGroups, {}, 0, 0, p)));
}

TEST(ControlArms, ExpertCapacityDependsOnTheCompany) {
  const Answers alone = run(ControlArm::kExpertCapacity, {.ep = 2});
  EXPECT_TRUE(hashes_differ(alone, run(ControlArm::kNone, {.ep = 2})));
  EXPECT_TRUE(hashes_differ(alone, run(ControlArm::kExpertCapacity, {.ep = 2}, 24)));
}

TEST(ControlArms, NumericsIdNamesTheArm) {
  EXPECT_NE(numerics_id(Profile::kPortable, ControlArm::kNone), numerics_id(Profile::kPortable, ControlArm::kReversedTies));
}

TEST(ControlArms, DigestsDifferWithTheArm) {
  const Answers honest = run(ControlArm::kNone, {}), broken = run(ControlArm::kSwappedGroups, {});
  EXPECT_NE(honest.at("greedy-long/0").digest, broken.at("greedy-long/0").digest);
}

}  // namespace
}  // namespace invar::tests
