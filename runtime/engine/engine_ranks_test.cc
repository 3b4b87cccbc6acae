// Who is behind when a step does not end; how long requests waited; what the engine's thread spends its time on.
#include <thread>

#include "gmock/gmock.h"
#include "runtime/engine/engine_harness.h"

namespace invar::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Clock = RankProgress::Clock;
using namespace std::chrono_literals;

RankProgress rank_at(int rank, uint64_t begun, uint64_t finished, uint64_t collectives, bool waiting) {
  RankProgress r;
  r.rank = rank;
  r.host = rank == 0 ? "a" : "b";
  r.steps_begun = begun;
  r.steps_finished = finished;
  r.collectives_begun = collectives;
  r.collectives_finished = collectives - waiting;
  r.phase = "tree all-reduce (gather)";
  r.collective = collectives - 1;
  r.waiting = waiting;
  r.heard = r.moved = r.step_ended = Clock::now();
  return r;
}

TEST(Stall, NamesWhoDoesNotWait) {
  const std::string text = describe_stall({rank_at(0, 7, 6, 42, true), rank_at(1, 7, 6, 41, false)}, Clock::now());
  EXPECT_EQ(text,
            "rank 1 on host b does not wait for anybody: step 7 under way, 41 collectives, the last tree all-reduce (gather) "
            "(collective 40); rank 0 on host a waits in tree all-reduce (gather) (collective 41)");
  EXPECT_THAT(describe_stall({rank_at(0, 7, 6, 41, false), rank_at(1, 7, 6, 42, true)}, Clock::now()),
              StartsWith("rank 0 on host a does"));
}

TEST(Stall, NamesWhoNeverBeganTheStep) {
  EXPECT_THAT(describe_stall({rank_at(0, 7, 6, 42, true), rank_at(1, 6, 6, 41, false)}, Clock::now()),
              StartsWith("rank 1 on host b does not wait for anybody: step 7 not begun"));
}

TEST(Stall, WhereAllWaitNamesWhoIsBehindInItsGroup) {
  const std::string text = describe_stall({rank_at(0, 7, 6, 42, true), rank_at(1, 7, 6, 41, true)}, Clock::now());
  EXPECT_THAT(text, StartsWith("rank 1 on host b is behind the others of its group: step 7 under way, 41 collectives, in tree"));
  EXPECT_THAT(text, HasSubstr("; rank 0 on host a waits in tree"));
  // A home without rows has fewer, and is behind nobody.
  std::vector<RankProgress> homes = {rank_at(0, 7, 6, 42, true), rank_at(1, 7, 6, 41, true), rank_at(2, 7, 6, 12, true)};
  homes[2].group = 1;
  EXPECT_THAT(describe_stall(homes, Clock::now()), StartsWith("rank 1 on host b is behind"));
  EXPECT_THAT(describe_stall(homes, Clock::now()), HasSubstr("; rank 2 on host b waits in"));
  EXPECT_THAT(describe_stall({rank_at(0, 7, 6, 42, true), rank_at(1, 7, 6, 42, true)}, Clock::now()),
              StartsWith("all ranks wait for each other; rank 0 on host a waits in"));
}

TEST(Stall, NamesWhoIsNotHeardOfWhateverItSaidLast) {
  for (const bool waited : {false, true}) {
    std::vector<RankProgress> ranks = {rank_at(0, 7, 6, 42, true), rank_at(1, 7, 6, 41, waited)};
    EXPECT_THAT(describe_stall(ranks, Clock::now()), Not(HasSubstr("heard of")));
    ranks[1].heard -= 30s;
    EXPECT_THAT(describe_stall(ranks, Clock::now()),
                StartsWith("rank 1 on host b has not been heard of for 30 s: step 7 under way, 41 coll"));
  }
}

TEST(Stall, IsNoneWhereAllAreDone) {
  EXPECT_EQ(describe_stall({}, Clock::now()), "");
  EXPECT_EQ(describe_stall({rank_at(0, 7, 7, 42, false), rank_at(1, 7, 7, 42, false)}, Clock::now()), "");
  // A stage that is through with the step waits for the next plan, and is behind nobody.
  EXPECT_THAT(describe_stall({rank_at(0, 7, 7, 42, false), rank_at(1, 7, 6, 12, false)}, Clock::now()), Not(HasSubstr("rank 0")));
}

TEST(EngineRanks, AgesGrowWhileAStepHangsAndAreZeroWhenIdle) {
  Mode mode;
  mode.eos = {};
  mode.engine.step_timeout = 300ms;
  const Clock::time_point long_ago = Clock::now() - 1h;
  mode.replica_changes = {[&](FakeOptions* o) {
    o->hang_at_step = 5;
    o->progress = [=] {
      std::vector<RankProgress> ranks = {rank_at(0, 5, 4, 42, true), rank_at(1, 5, 4, 41, false)};
      ranks[1].moved = ranks[1].step_ended = ranks[1].heard = long_ago;  // it ran another request then
      return ranks;
    };
  }};
  Harness h(mode);
  ASSERT_EQ(h.engine->ranks().size(), 2u);
  EXPECT_EQ(h.engine->ranks()[1].step_age, 0);
  EXPECT_EQ(h.engine->ranks()[1].progress_age, 0);
  EXPECT_GT(h.engine->ranks()[1].heard_age, 3000) << "silence is silence, busy or not";
  h.submit(0, request_of({1, 2, 3}, 30));
  for (int i = 0; i < 500 && h.engine->stats().healthy; ++i) std::this_thread::sleep_for(10ms);
  const std::vector<RankStats> ranks = h.engine->ranks();
  EXPECT_GE(ranks[1].step_age, 0.25);
  EXPECT_GE(ranks[1].progress_age, 0.25);
  EXPECT_LT(ranks[1].progress_age, 3000) << "what it did not do before the plan came is not held against it";
  EXPECT_LT(ranks[0].progress_age, ranks[1].progress_age);
  std::this_thread::sleep_for(50ms);
  EXPECT_GE(h.engine->ranks()[1].progress_age, ranks[1].progress_age + 0.05);
  EXPECT_THAT(h.engine->stats().trouble,
              HasSubstr("a step has had no result for 300 ms: rank 1 on host b has not been heard of for 3600 s"));
  h.fakes[0]->release();
  ASSERT_TRUE(h.client.wait(1));
  for (int i = 0; i < 500 && h.engine->ranks()[1].step_age > 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(h.engine->ranks()[1].step_age, 0);
  EXPECT_EQ(h.engine->ranks()[1].progress_age, 0);
}

TEST(EngineQueue, TimesTheWaitOfEachRequestOnce) {
  Mode mode;
  mode.eos = {};
  mode.engine.max_num_seqs = 1;
  mode.replica_changes = {[](FakeOptions* o) { o->hang_at_step = 3; }};
  Harness h(mode);
  h.submit(0, request_of({1, 2, 3}, 10));
  h.submit(1, request_of({4, 5, 6}, 10));
  for (int i = 0; i < 500 && h.engine->queue_seconds().snapshot().cumulative.back() == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(h.engine->queue_seconds().snapshot().cumulative.back(), 1u) << "the second has no place yet";
  std::this_thread::sleep_for(200ms);
  h.fakes[0]->release();
  ASSERT_TRUE(h.client.wait(2));
  const Histogram::Snapshot waits = h.engine->queue_seconds().snapshot();
  EXPECT_EQ(waits.cumulative.back(), 2u);
  EXPECT_GE(waits.sum, 0.2);
}

TEST(EngineBusy, IsWhatTheThreadDidAndNotWhatItWaited) {
  Mode mode;
  mode.eos = {};
  mode.replica_changes = {[](FakeOptions* o) { o->tamper = [](v1::StepResult*) { std::this_thread::sleep_for(10ms); }; }};
  Harness h(mode);
  const Clock::time_point begin = Clock::now();
  h.run({request_of({1, 2, 3}, 50)});
  const double wall = std::chrono::duration<double>(Clock::now() - begin).count();
  const EngineStats::Busy busy = h.engine->stats().busy;
  for (const double part : {busy.requests, busy.plans, busy.results, busy.answers}) EXPECT_GT(part, 0);
  EXPECT_GE(wall, 0.5);
  EXPECT_LT(busy.requests + busy.plans + busy.results + busy.answers + busy.statistics, wall / 2);
}

}  // namespace
}  // namespace invar::engine
