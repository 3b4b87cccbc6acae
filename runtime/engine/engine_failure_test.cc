// Lost worker groups, ranks that answer nonsense, steps that do not end.
#include <atomic>
#include <numeric>
#include <thread>

#include "runtime/engine/engine_harness.h"

namespace invar::engine {
namespace {

std::vector<v1::GenerateRequest> some(int count, uint32_t tokens) {
  std::vector<v1::GenerateRequest> out;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t> prompt(5 + 7 * i);
    std::iota(prompt.begin(), prompt.end(), i);
    for (int32_t& t : prompt) t %= 97;
    out.push_back(request_of(prompt, tokens, i % 2 ? 0.7f : 0.0f));
    if (i % 3 == 2) out.back().mutable_sampling_params()->set_n(2);
    if (i == 4) out.back().mutable_sampling_params()->set_prompt_logprobs(1);
  }
  return out;
}

TEST(EngineFailure, ALostGroupCostsNoAnswerWhileAnotherLives) {
  for (const bool by_result : {false, true})
    for (const uint64_t at : {1, 2, 3, 7, 20}) {
      Mode mode;
      mode.name = "lost at step " + std::to_string(at);
      mode.replicas = 2;
      mode.engine.plans_in_flight = 3;
      mode.backlog = 2;
      mode.replica_changes = {[&](FakeOptions* o) {
        o->lose_at_step = at;
        o->fail_by_result = by_result;
      }};
      Harness h(mode);
      const std::vector<v1::GenerateRequest> requests = some(8, 30);
      const std::vector<Seen> seen = h.run(requests);
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_TRUE(seen[i].status.ok()) << mode.name << ": " << seen[i].status;
        for (const auto& [choice, c] : seen[i].choices)
          EXPECT_EQ(c.tokens, wanted(mode, requests[i], choice).tokens) << mode.name;
      }
      const EngineStats s = h.engine->stats();
      EXPECT_FALSE(s.healthy);
      EXPECT_NE(s.trouble.find("collective 17"), std::string::npos) << s.trouble;
      EXPECT_EQ(s.replicas_alive, 1);
      // It goes on serving.
      EXPECT_TRUE(h.run(some(2, 5))[0].status.ok());
    }
}

TEST(EngineFailure, TheLastGroupsLossTellsEveryRequestWhy) {
  Mode mode;
  mode.eos = {};
  mode.replica_changes = {[](FakeOptions* o) { o->lose_at_step = 6; }};
  Harness h(mode);
  const std::vector<Seen> seen = h.run(some(5, 50));
  for (const Seen& s : seen) {
    EXPECT_TRUE(absl::IsUnavailable(s.status)) << s.status;
    EXPECT_NE(std::string(s.status.message()).find("rank 1 on host b"), std::string::npos) << s.status;
  }
  const absl::Status later = h.engine->submit(request_of({1}, 1), h.client.callback(99)).status();
  EXPECT_TRUE(absl::IsUnavailable(later)) << later;
  EXPECT_NE(std::string(later.message()).find("rank 1 on host b"), std::string::npos) << later;
}

TEST(EngineFailure, BothReplicasLostOneAfterTheOther) {
  Mode mode;
  mode.eos = {};
  mode.replicas = 2;
  mode.replica_changes = {[](FakeOptions* o) { o->lose_at_step = 4; }, [](FakeOptions* o) { o->lose_at_step = 15; }};
  Harness h(mode);
  for (const Seen& s : h.run(some(6, 400))) EXPECT_TRUE(absl::IsUnavailable(s.status)) << s.status;
  EXPECT_EQ(h.engine->stats().replicas_alive, 0);
}

TEST(EngineFailure, AnswersThatNobodyAskedForEndTheGroup) {
  const std::vector<std::pair<const char*, std::function<void(v1::StepResult*)>>> lies = {
      {"step 103",
       [](v1::StepResult* r) {
         if (r->step() == 3) r->set_step(103);
       }},
      {"0 draws came",
       [](v1::StepResult* r) {
         if (r->step() == 3) r->clear_tokens();
       }},
      {"position 99",
       [](v1::StepResult* r) {
         if (r->step() == 3) r->mutable_tokens(0)->set_position(99);
       }},
      {"token 97",
       [](v1::StepResult* r) {
         if (r->step() == 3) r->mutable_tokens(0)->set_token(97);
       }},
      {"2 draws came",
       [](v1::StepResult* r) {
         if (r->step() == 3) *r->add_tokens() = v1::TokenResult(r->tokens(0));
       }},
  };
  for (const auto& [what, lie] : lies) {
    Mode mode;
    mode.eos = {};
    mode.replica_changes = {[&](FakeOptions* o) { o->tamper = lie; }};
    Harness h(mode);
    const Seen seen = h.run({request_of({1, 2, 3}, 50)})[0];
    EXPECT_TRUE(absl::IsUnavailable(seen.status)) << seen.status;
    EXPECT_NE(std::string(seen.status.message()).find(what), std::string::npos) << seen.status;
    EXPECT_FALSE(h.engine->stats().healthy);
  }
}

TEST(EngineFailure, LossOfAnIdleGroupIsNoticed) {
  class Dying final : public Executor {
   public:
    const ReplicaFacts& facts() const override { return facts_; }
    absl::Status submit(const v1::StepPlan&) override { return absl::UnavailableError("gone"); }
    absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds) override { return absl::UnavailableError("gone while idle"); }
    void shutdown(std::chrono::milliseconds) override {}
    ReplicaFacts facts_;
  };
  auto dying = std::make_unique<Dying>();
  dying->facts_.pages_per_home = 10;
  dying->facts_.max_positions = 100;
  dying->facts_.vocab_size = 97;
  ModelConfig model;
  model.vocab_size = 97;
  std::vector<std::unique_ptr<Executor>> replicas;
  replicas.push_back(std::move(dying));
  auto engine = *Engine::start({}, model, nullptr, std::move(replicas));
  for (int i = 0; i < 500 && engine->stats().healthy; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(engine->stats().trouble, "gone while idle");
}

TEST(EngineFailure, AnOverdueStepIsUnhealthyUntilItComes) {
  Mode mode;
  mode.eos = {};
  mode.engine.step_timeout = std::chrono::milliseconds(50);
  mode.replica_changes = {[](FakeOptions* o) { o->hang_at_step = 5; }};
  Harness h(mode);
  const v1::GenerateRequest r = request_of({1, 2, 3}, 30);
  h.submit(0, r);
  for (int i = 0; i < 500 && h.engine->stats().healthy; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const EngineStats s = h.engine->stats();
  EXPECT_FALSE(s.healthy);
  EXPECT_NE(s.trouble.find("50 ms"), std::string::npos) << s.trouble;
  EXPECT_GT(s.seconds_since_progress, 0.04);
  h.fakes[0]->release();
  ASSERT_TRUE(h.client.wait(1));
  EXPECT_EQ(h.client.seen(0).choices.at(0).tokens, wanted(mode, r, 0).tokens);
  for (int i = 0; i < 500 && !h.engine->stats().healthy; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(h.engine->stats().healthy);
  EXPECT_TRUE(h.engine->drain(std::chrono::seconds(10)));
  EXPECT_EQ(h.engine->stats().seconds_since_progress, 0);
}

TEST(EngineFailure, AnOverdueReplicaGetsNoNewRequestsWhileAnotherSteps) {
  Mode mode;
  mode.eos = {};
  mode.replicas = 2;
  mode.engine.step_timeout = std::chrono::milliseconds(50);
  mode.replica_changes = {[](FakeOptions* o) { o->hang_at_step = 1; }};
  Harness h(mode);
  const v1::GenerateRequest stuck = request_of({1, 2, 3}, 30);
  h.submit(0, stuck);  // with both idle the first replica takes it
  for (int i = 0; i < 500 && h.engine->stats().replicas_stepping == 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EngineStats s = h.engine->stats();
  EXPECT_FALSE(s.healthy);
  EXPECT_EQ(s.replicas_alive, 2);
  EXPECT_EQ(s.replicas_stepping, 1);
  EXPECT_NE(s.trouble.find("replica 0: a step has had no result for 50 ms"), std::string::npos) << s.trouble;
  // All at once, so that by load alone every second one would go to the replica that hangs.
  const std::vector<v1::GenerateRequest> requests = some(6, 20);
  for (int i = 0; i < 6; ++i) h.submit(1 + i, requests[i]);
  ASSERT_TRUE(h.client.wait(6)) << "a request waits for the replica that hangs";
  for (int i = 0; i < 6; ++i)
    for (const auto& [choice, c] : h.client.seen(1 + i).choices) EXPECT_EQ(c.tokens, wanted(mode, requests[i], choice).tokens);
  EXPECT_FALSE(h.client.seen(0).over);
  EXPECT_EQ(h.engine->stats().replicas_stepping, 1);
  h.fakes[0]->release();
  ASSERT_TRUE(h.client.wait(7));
  EXPECT_EQ(h.client.seen(0).choices.at(0).tokens, wanted(mode, stuck, 0).tokens);
  for (int i = 0; i < 500 && !h.engine->stats().healthy; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  s = h.engine->stats();
  EXPECT_EQ(s.replicas_stepping, 2);
  EXPECT_EQ(s.trouble, "");
  EXPECT_LT(s.seconds_since_turn, 30);
}

TEST(EngineFailure, TheFirstLossIsTheOneThatIsNamed) {
  Mode mode;
  mode.eos = {};
  mode.replicas = 2;
  const auto dies_of = [](const char* what, uint64_t step) {
    return [=](FakeOptions* o) {
      o->tamper = [=](v1::StepResult* r) {
        if (r->step() == step) r->set_failure(what);
      };
    };
  };
  // The second dies when the engine has taken in the first loss, not sooner: on a busy machine 200 steps are no time.
  std::atomic<Engine*> engine{nullptr};
  const auto dies_later_of = [&](const char* what, uint64_t step) {
    return [&, what, step](FakeOptions* o) {
      o->tamper = [&, what, step](v1::StepResult* r) {
        if (r->step() != step) return;
        for (int i = 0; i < 6000 && (!engine || engine.load()->stats().replicas_alive == 2); ++i)
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
        r->set_failure(what);
      };
    };
  };
  mode.replica_changes = {dies_of("rank 0 on host early", 3), dies_later_of("rank 1 on host late", 200)};
  Harness h(mode);
  engine = h.engine.get();
  for (const Seen& s : h.run(some(6, 400))) EXPECT_TRUE(absl::IsUnavailable(s.status)) << s.status;
  EXPECT_EQ(h.engine->stats().trouble, "rank 0 on host early");
}

TEST(EngineFailure, TheObserverSeesEveryPlanAndReplayingThemGivesTheSame) {
  Mode mode;
  std::mutex mutex;
  std::vector<v1::StepPlan> plans;
  mode.engine.observer = [&](const v1::StepPlan& plan, int replica) {
    std::lock_guard lock(mutex);
    EXPECT_EQ(replica, 0);
    plans.push_back(plan);
  };
  std::vector<std::string> results;
  mode.replica_changes = {
      [&](FakeOptions* o) { o->tamper = [&](v1::StepResult* r) { results.push_back(r->SerializeAsString()); }; }};
  {
    Harness h(mode);
    h.run(some(6, 20));
  }
  ASSERT_GE(plans.size(), results.size());
  FakeOptions o;
  o.model = mode.model;
  o.facts.pages_per_home = mode.pages;
  o.facts.max_positions = mode.max_positions;
  o.facts.vocab_size = 97;
  FakeExecutor replay(o);
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(plans[i].step(), i + 1);
    ASSERT_TRUE(replay.submit(plans[i]).ok());
    EXPECT_EQ(replay.next(std::chrono::seconds(10))->SerializeAsString(), results[i]);
  }
  EXPECT_TRUE(replay.report()->violations.empty());
}

}  // namespace
}  // namespace invar::engine
