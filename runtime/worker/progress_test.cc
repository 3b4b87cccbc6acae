// Who is how far: counts of ranks in step, a rank that stalls, and what the watching costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/engine/engine.h"
#include "runtime/worker/local_executor.h"
#include "runtime/worker/progress_board.h"
#include "runtime/worker/stalling_transport.h"

namespace invar {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

TEST(ProgressBoard, CountsExchangesSinceTheRestart) {
  auto transports = parallel::start_threads(2);
  std::vector<std::unique_ptr<ProgressBoard>> boards;
  for (int r = 0; r < 2; ++r) boards.push_back(std::make_unique<ProgressBoard>(r, "h", 0));
  const auto run = [&](int r, int times) {
    const auto transport = watched(*transports[r], *boards[r]);
    EXPECT_EQ(&transport->host_memory(), transport.get()) << "or a decoder would stage what needs no staging";
    std::byte out{1}, in{0};
    for (int i = 1; i <= times; ++i) {
      const parallel::Send send{1 - r, {&out, 1}};
      const parallel::Receive receive{1 - r, {&in, 1}};
      transport->exchange({&send, 1}, {&receive, 1}, {"tree all-reduce (gather)", 1, static_cast<uint64_t>(i)});
    }
  };
  const auto both = [&](int times) {
    std::thread other([&] { run(1, times); });
    run(0, times);
    other.join();
  };
  both(3);
  for (auto& board : boards) board->restart();
  EXPECT_EQ(boards[0]->read().collectives_begun, 0u);
  both(5);
  for (auto& board : boards) {
    const RankProgress p = board->read();
    EXPECT_EQ(p.collectives_begun, 5u);
    EXPECT_EQ(p.collectives_finished, 5u);
    EXPECT_EQ(p.phase, "tree all-reduce (gather)");
    EXPECT_EQ(p.collective, 5u);
    EXPECT_FALSE(p.waiting);
  }
  // One comes, the other does not.
  std::thread waits([&] { run(0, 1); });
  for (int i = 0; i < 1000 && !boards[0]->read().waiting; ++i) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(30ms);
  const RankProgress p = boards[0]->read();
  EXPECT_TRUE(p.waiting);
  EXPECT_EQ(p.collectives_begun, 6u);
  EXPECT_EQ(p.collectives_finished, 5u);
  EXPECT_GE(p.heard - p.moved, 30ms);
  run(1, 1);
  waits.join();
  EXPECT_FALSE(boards[0]->read().waiting);
}

// The demo model on ranks in threads, and a request of some tokens.
class Running {
 public:
  Running(const parallel::Layout& layout, std::shared_ptr<Stall> stall) {
    auto opened = open_model({.path = INVAR_SOURCE_DIR "/configs/models/demo-moe"});
    EXPECT_TRUE(opened.ok()) << opened.status();
    model_ = std::make_unique<LoadedModel>(*std::move(opened));
    LocalOptions options;
    options.rank.layout = layout;
    options.rank.device.threads = 1;
    options.rank.pages = 64;
    options.first_rank = 10;
    if (stall) options.wrap = [stall](std::unique_ptr<parallel::Transport> t) { return stalling(std::move(t), stall); };
    auto executor = LocalExecutor::start(*model_, "a digest", options, {});
    EXPECT_TRUE(executor.ok()) << executor.status();
    std::vector<std::unique_ptr<Executor>> replicas;
    replicas.push_back(*std::move(executor));
    EngineOptions engine_options;
    engine_options.step_timeout = 300ms;
    auto started = Engine::start(engine_options, model_->config, nullptr, std::move(replicas));
    EXPECT_TRUE(started.ok()) << started.status();
    engine = *std::move(started);
  }
  ~Running() { engine->shutdown(10s); }
  void submit(int tokens) {
    v1::GenerateRequest request;
    for (const int id : {5, 6, 7}) request.mutable_prompt_token_ids()->add_ids(id);
    request.mutable_sampling_params()->set_max_tokens(static_cast<uint32_t>(tokens));
    request.mutable_sampling_params()->set_ignore_eos(true);
    const auto id = engine->submit(request, [this](const absl::Status& status, const v1::GenerateResponse* response) {
      EXPECT_TRUE(status.ok()) << status;
      if (!status.ok() || response->finished()) done = true;
    });
    EXPECT_TRUE(id.ok()) << id.status();
  }
  bool wait() const {
    for (int i = 0; i < 6000 && !done; ++i) std::this_thread::sleep_for(10ms);
    return done;
  }
  std::unique_ptr<Engine> engine;
  std::atomic<bool> done{false};

 private:
  std::unique_ptr<LoadedModel> model_;
};

TEST(RankProgress, RanksOfAGroupHaveEqualNumbers) {
  for (const parallel::Layout layout : {parallel::Layout{.tp = 3}, {.tp = 2, .pp = 2}, {.tp = 2, .ep = 2}}) {
    Running running(layout, nullptr);
    running.submit(8);
    ASSERT_TRUE(running.wait());
    std::vector<RankStats> ranks;
    // A rank that does not draw may be some instructions behind the answer.
    const auto settled = [&] {
      ranks = running.engine->ranks();
      for (const RankStats& r : ranks)
        if (r.progress.steps_finished != ranks[0].progress.steps_finished || r.progress.waiting) return false;
      return true;
    };
    for (int i = 0; i < 1000 && !settled(); ++i) std::this_thread::sleep_for(5ms);
    ASSERT_EQ(ranks.size(), static_cast<size_t>(layout.world()));
    for (size_t r = 0; r < ranks.size(); ++r) {
      const RankProgress& p = ranks[r].progress;
      const RankProgress& first = ranks[r / layout.tp * layout.tp].progress;
      EXPECT_EQ(p.rank, 10 + static_cast<int>(r));
      EXPECT_GE(p.steps_finished, 8u);
      EXPECT_EQ(p.steps_begun, p.steps_finished);
      EXPECT_EQ(p.group, static_cast<int>(r) / layout.tp);
      EXPECT_GT(p.collectives_begun, p.steps_finished) << "several a step";
      EXPECT_EQ(p.collectives_begun, first.collectives_begun) << parallel::to_string(layout) << ", rank " << r;
      EXPECT_EQ(p.collectives_finished, p.collectives_begun);
      EXPECT_LT(ranks[r].heard_age, 1);
    }
  }
}

TEST(RankProgress, TheRankThatStallsInAStepIsNamed) {
  const auto stall = std::make_shared<Stall>();
  stall->rank = 1;
  stall->after_exchange = 40;
  Running running({.tp = 2}, stall);
  running.submit(16);
  for (int i = 0; i < 3000 && running.engine->stats().healthy; ++i) std::this_thread::sleep_for(10ms);
  const std::vector<RankStats> ranks = running.engine->ranks();
  EXPECT_GE(ranks[1].progress_age, 0.25);
  EXPECT_GE(ranks[1].step_age, 0.25);
  EXPECT_EQ(ranks[1].progress.collectives_begun, 40u);
  EXPECT_GT(ranks[0].progress.collectives_begun, 40u) << "it goes as far as it can without the other";
  EXPECT_TRUE(ranks[0].progress.waiting);
  EXPECT_THAT(running.engine->stats().trouble, HasSubstr(": rank 11 on host "));
  EXPECT_THAT(running.engine->stats().trouble, HasSubstr(" is behind the others of its group: step "));
  EXPECT_THAT(running.engine->stats().trouble, HasSubstr("; rank 10 on host "));
  std::this_thread::sleep_for(50ms);
  EXPECT_GE(running.engine->ranks()[1].progress_age, ranks[1].progress_age + 0.05);
  stall->release();
  ASSERT_TRUE(running.wait());
  for (int i = 0; i < 500 && running.engine->ranks()[1].step_age > 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(running.engine->ranks()[1].progress_age, 0) << "nothing to do";
}

TEST(RankProgress, TheRankThatNeverBeginsAStepIsNamed) {
  const auto stall = std::make_shared<Stall>();
  stall->rank = 1;
  stall->before_plan = 5;
  Running running({.tp = 2}, stall);
  running.submit(16);
  for (int i = 0; i < 3000 && running.engine->stats().healthy; ++i) std::this_thread::sleep_for(10ms);
  const std::vector<RankStats> ranks = running.engine->ranks();
  EXPECT_EQ(ranks[1].progress.steps_begun, 4u);
  EXPECT_EQ(ranks[0].progress.steps_begun, 5u);
  EXPECT_FALSE(ranks[1].progress.waiting);
  EXPECT_THAT(running.engine->stats().trouble, HasSubstr(": rank 11 on host "));
  EXPECT_THAT(running.engine->stats().trouble, HasSubstr(" does not wait for anybody: step 5 not begun"));
  stall->release();
  ASSERT_TRUE(running.wait());
}

}  // namespace
}  // namespace invar
