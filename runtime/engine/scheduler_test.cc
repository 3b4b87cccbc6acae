// The scheduler's policy, plan by plan. That its plans are sound is checked by the fake ranks of the engine's tests.
#include "runtime/engine/scheduler.h"

#include <memory>
#include <numeric>

#include "gtest/gtest.h"

namespace invar::engine {
namespace {

class SchedulerTest : public testing::Test {
 protected:
  void make(SchedulerLimits limits, int64_t pages, int homes = 1, int64_t page_size = 4) {
    ReplicaFacts facts;
    facts.homes = homes;
    facts.pages_per_home = pages;
    facts.page_size = page_size;
    scheduler_ = std::make_unique<Scheduler>(limits, facts);
  }
  Sequence* add(int64_t prompt, int64_t answer, int32_t priority = 0, int32_t first_token = -1) {
    auto s = std::make_unique<Sequence>();
    s->priority = priority;
    s->arrival = ++arrivals_;
    s->prompt_length = prompt;
    s->end = prompt + answer - 1;
    s->sampling = &sampling_;
    s->request_id = &id_;
    s->tokens.resize(prompt);
    // Different prompts unless the test says otherwise.
    std::iota(s->tokens.begin(), s->tokens.end(), first_token >= 0 ? first_token : static_cast<int32_t>(1000 * arrivals_));
    s->logits_from = prompt - 1;
    scheduler_->add(s.get());
    owned_.push_back(std::move(s));
    return owned_.back().get();
  }
  bool build() {
    plan_.Clear();
    expected_.clear();
    return scheduler_->build(&plan_, &expected_);
  }
  // The results of the last plan come.
  void answer() {
    for (const ExpectedDraws& e : expected_) {
      Sequence* s = scheduler_->find(e.sequence);
      if (!s) continue;
      for (int64_t i = 0; i < e.count; ++i) {
        s->tokens.push_back(7);
        scheduler_->received(s);
      }
      if (static_cast<int64_t>(s->tokens.size()) > s->end) scheduler_->remove(s);
    }
  }
  const v1::Chunk* chunk_of(const Sequence* s) {
    for (const v1::Chunk& c : plan_.chunks())
      if (c.sequence() == s->number) return &c;
    return nullptr;
  }

  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<Sequence>> owned_;
  v1::SamplingParams sampling_;
  std::string id_ = "r";
  uint64_t arrivals_ = 0;
  v1::StepPlan plan_;
  std::vector<ExpectedDraws> expected_;
};

TEST_F(SchedulerTest, NothingToDo) {
  make({}, 10);
  EXPECT_FALSE(build());
}

TEST_F(SchedulerTest, PrefillThenDecodesRunAheadOfResults) {
  make({}, 10);
  Sequence* s = add(6, 4);
  ASSERT_TRUE(build());
  ASSERT_EQ(plan_.started_size(), 1);
  EXPECT_EQ(plan_.started(0).tokens_size(), 6);
  EXPECT_EQ(plan_.started(0).prompt_length(), 6u);
  EXPECT_EQ(plan_.started(0).prompt_logprobs(), -1);
  const v1::Chunk* c = chunk_of(s);
  EXPECT_EQ(c->first_position(), 0u);
  EXPECT_EQ(c->count(), 6u);
  EXPECT_EQ(c->new_pages_size(), 2);
  EXPECT_EQ(c->logits_from(), 5u);
  ASSERT_EQ(expected_.size(), 1u);
  EXPECT_EQ(expected_[0].first, 6);
  for (uint32_t p = 6; p < 9; ++p) {  // 4 answer tokens: positions 6, 7, 8 are computed, 9 is not
    ASSERT_TRUE(build());
    c = chunk_of(s);
    EXPECT_EQ(c->first_position(), p);
    EXPECT_EQ(c->count(), 1u);
    EXPECT_EQ(c->logits_from(), p);
    EXPECT_EQ(c->new_pages_size(), p == 8 ? 1 : 0);
  }
  EXPECT_FALSE(build()) << "no token beyond the longest answer is ever planned";
}

TEST_F(SchedulerTest, ChunksWithoutLogitsSaySo) {
  SchedulerLimits limits;
  limits.longest_chunk = 4;
  make(limits, 10);
  Sequence* s = add(10, 2);
  ASSERT_TRUE(build());
  EXPECT_EQ(chunk_of(s)->logits_from(), 0xffffffffu);
  EXPECT_TRUE(expected_.empty());
  ASSERT_TRUE(build());
  ASSERT_TRUE(build());
  EXPECT_EQ(chunk_of(s)->first_position(), 8u);
  EXPECT_EQ(chunk_of(s)->count(), 2u);
  EXPECT_EQ(chunk_of(s)->logits_from(), 9u);
}

TEST_F(SchedulerTest, DecodesGoFirstAndPrefillsShareWhatIsLeft) {
  SchedulerLimits limits;
  limits.max_num_batched_tokens = 8;
  limits.longest_chunk = 8;
  make(limits, 100);
  Sequence* a = add(8, 9);
  ASSERT_TRUE(build());
  Sequence* b = add(20, 9);
  Sequence* c = add(5, 9, -1);  // more urgent than b, though later
  ASSERT_TRUE(build());
  EXPECT_EQ(plan_.chunks(0).sequence(), a->number);
  EXPECT_EQ(chunk_of(a)->count(), 1u);
  EXPECT_EQ(chunk_of(c)->count(), 5u);
  EXPECT_EQ(chunk_of(b)->count(), 2u);
  ASSERT_TRUE(build());
  EXPECT_EQ(chunk_of(a)->count(), 1u);
  EXPECT_EQ(chunk_of(c)->count(), 1u);
  EXPECT_EQ(chunk_of(b)->count(), 6u);
}

TEST_F(SchedulerTest, PriorityThenArrivalDecideWhoStarts) {
  SchedulerLimits limits;
  limits.max_num_seqs = 2;
  make(limits, 100);
  Sequence* a = add(4, 2, 5);
  Sequence* b = add(4, 2, 1);
  Sequence* c = add(4, 2, 1);
  ASSERT_TRUE(build());
  EXPECT_TRUE(chunk_of(b) && chunk_of(c) && a->number == 0);
}

TEST_F(SchedulerTest, TheLastInOrderGivesItsPagesUp) {
  make({}, 4);
  Sequence* a = add(8, 20);  // two pages each: the pool is full
  Sequence* b = add(7, 20);
  Sequence* c = add(4, 20);
  ASSERT_TRUE(build());
  EXPECT_TRUE(chunk_of(a));
  EXPECT_FALSE(b->number) << "one page is left to those who run";
  scheduler_->remove(c);
  answer();
  ASSERT_TRUE(build());  // a takes its third page; b does not fit beside it
  EXPECT_EQ(chunk_of(a)->new_pages_size(), 1);
  EXPECT_FALSE(b->number);
}

TEST_F(SchedulerTest, PreemptionEndsTheNumberAndKeepsDrawsInFlight) {
  SchedulerLimits limits;
  limits.prefix_caching = false;
  make(limits, 5);
  Sequence* a = add(7, 20);
  Sequence* b = add(6, 20);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(a) && chunk_of(b));
  const std::vector<ExpectedDraws> first = expected_;
  const uint64_t number = b->number;
  ASSERT_TRUE(build());  // a: position 7; b: position 6
  ASSERT_TRUE(build());  // a: position 8 takes the fifth page; b: position 7
  ASSERT_TRUE(chunk_of(a) && chunk_of(b));
  ASSERT_TRUE(build());  // b: position 8 finds no page and is last in order: it gives way
  EXPECT_TRUE(chunk_of(a));
  EXPECT_FALSE(chunk_of(b));
  EXPECT_EQ(plan_.ended_size(), 1);
  EXPECT_EQ(plan_.ended(0), number);
  EXPECT_EQ(b->state, Sequence::State::kWaiting);
  EXPECT_EQ(b->pending, 3);
  EXPECT_EQ(scheduler_->find(number), b) << "its draws are still on their way";
  ASSERT_TRUE(build());
  EXPECT_FALSE(chunk_of(b)) << "it waits for them";
  for (int i = 0; i < 3; ++i) {
    b->tokens.push_back(9);
    scheduler_->received(b);
  }
  EXPECT_EQ(scheduler_->find(number), nullptr);
  scheduler_->remove(a);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(b));
  EXPECT_NE(b->number, number);
  EXPECT_EQ(plan_.started(0).tokens_size(), 9);
  EXPECT_EQ(plan_.started(0).prompt_length(), 6u);
  EXPECT_EQ(chunk_of(b)->logits_from(), 8u);
  EXPECT_EQ(scheduler_->counts().preemptions, 1u);
}

TEST_F(SchedulerTest, AMoreUrgentSequenceTakesPagesFromALessUrgentOne) {
  SchedulerLimits limits;
  limits.prefix_caching = false;
  make(limits, 6);
  Sequence* low = add(8, 20, 9);
  ASSERT_TRUE(build());
  Sequence* high = add(8, 20, 0);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(high));  // low has 3 pages, high 2, one is left
  while (low->state == Sequence::State::kRunning) ASSERT_TRUE(build());
  EXPECT_TRUE(chunk_of(high));
  EXPECT_EQ(high->state, Sequence::State::kRunning);
}

TEST_F(SchedulerTest, NobodyOvertakesForLackOfPages) {
  make({}, 6);
  Sequence* running = add(8, 12);
  ASSERT_TRUE(build());
  Sequence* large = add(20, 2);
  Sequence* small = add(4, 2);
  ASSERT_TRUE(build());
  EXPECT_TRUE(chunk_of(running));
  EXPECT_FALSE(large->number);
  EXPECT_FALSE(small->number);
}

TEST_F(SchedulerTest, ABlockBeingComputedIsWaitedForAndNobodyElseIsHeldUp) {
  SchedulerLimits limits;
  limits.longest_chunk = 4;
  make(limits, 100);
  Sequence* a = add(17, 4, 0, 1);
  Sequence* twin = add(17, 4, 0, 1);
  Sequence* other = add(5, 4);
  ASSERT_TRUE(build());
  EXPECT_TRUE(chunk_of(a) && chunk_of(other));
  EXPECT_FALSE(twin->number);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(build());
    EXPECT_FALSE(twin->number);
  }
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(twin));
  EXPECT_EQ(chunk_of(twin)->first_position(), 16u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(twin->pages[i], a->pages[i]);
  EXPECT_NE(twin->pages[4], a->pages[4]);
  EXPECT_EQ(twin->cached_tokens, 16);
}

TEST_F(SchedulerTest, ATwinOfACancelledSequenceStarts) {
  SchedulerLimits limits;
  limits.longest_chunk = 4;
  make(limits, 100);
  Sequence* a = add(17, 4, 0, 1);
  Sequence* twin = add(17, 4, 0, 1);
  ASSERT_TRUE(build());
  EXPECT_FALSE(twin->number);
  scheduler_->remove(a);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(twin));
  EXPECT_EQ(twin->cached_tokens, 4) << "what was computed is found";
  EXPECT_EQ(plan_.ended_size(), 1);
}

TEST_F(SchedulerTest, EndedSequencesWaitForAPlanWorthSending) {
  make({}, 10);
  Sequence* a = add(4, 9);
  ASSERT_TRUE(build());
  const uint64_t number = a->number;
  scheduler_->remove(a);
  EXPECT_FALSE(build());
  add(4, 2);
  ASSERT_TRUE(build());
  ASSERT_EQ(plan_.ended_size(), 1);
  EXPECT_EQ(plan_.ended(0), number);
}

TEST_F(SchedulerTest, HomesFillEvenlyAndAPrefixAttracts) {
  make({}, 1000, 3);
  std::vector<Sequence*> all;
  for (int i = 0; i < 6; ++i) all.push_back(add(9, 9));
  ASSERT_TRUE(build());
  std::vector<int> load(3);
  for (Sequence* s : all) ++load[s->home];
  EXPECT_EQ(load, (std::vector<int>{2, 2, 2}));
  // 400 cached tokens outweigh one sequence more, ...
  Sequence* first = add(400, 2, 0, 50000);
  ASSERT_TRUE(build());
  Sequence* again = add(401, 2, 0, 50000);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(again));
  EXPECT_EQ(again->home, first->home);
  // ... 8 do not.
  Sequence* little = add(9, 2, 0, 50000);
  ASSERT_TRUE(build());
  ASSERT_TRUE(chunk_of(little));
  EXPECT_NE(little->home, first->home);
}

TEST_F(SchedulerTest, AbandonHandsEverybodyBackFresh) {
  make({}, 100);
  Sequence* a = add(9, 9);
  Sequence* b = add(9, 9, -1);
  ASSERT_TRUE(build());
  ASSERT_TRUE(build());
  const std::vector<Sequence*> all = scheduler_->abandon();
  EXPECT_EQ(all, (std::vector<Sequence*>{b, a}));
  for (const Sequence* s : all) {
    EXPECT_EQ(s->state, Sequence::State::kNew);
    EXPECT_EQ(s->number, 0u);
    EXPECT_EQ(s->pending, 0);
    EXPECT_TRUE(s->pages.empty());
  }
}

}  // namespace
}  // namespace invar::engine
