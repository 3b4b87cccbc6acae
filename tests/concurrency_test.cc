// One prompt a thousand times at once, and a needle in random company: one unique answer each.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>

#include "support/arrangement.h"

namespace invar::tests {
namespace {

std::unique_ptr<Engine> start(const Model& model, parallel::Layout layout, int64_t pages, ControlArm arm = ControlArm::kNone) {
  RankOptions rank;
  rank.layout = layout;
  rank.pages = pages;
  rank.device.control_arm = arm;
  std::vector<std::unique_ptr<Executor>> replicas;
  for (int dp = 0; dp < layout.dp; ++dp) replicas.push_back(*LocalExecutor::start(model.loaded(), model.digest(), {rank}, {}));
  EngineOptions options;
  options.max_num_seqs = 128;
  return *Engine::start(options, model.loaded().config, model.tokenizer(), std::move(replicas));
}

// Collects the whole token lists and hashes of many requests.
class Answered {
 public:
  void submit(Engine& engine, const v1::GenerateRequest& request, bool keep) {
    {
      const std::lock_guard lock(mutex_);
      ++open_;
    }
    auto id = engine.submit(request, [this, keep, parts = std::make_shared<std::string>()](const absl::Status& status,
                                                                                           const v1::GenerateResponse* r) {
      const std::lock_guard lock(mutex_);
      if (status.ok())
        for (const auto& d : r->choices()) {
          for (const int32_t t : d.token_ids()) *parts += std::to_string(t) + ",";
          for (const uint64_t h : d.logits_hashes()) *parts += std::to_string(h) + ";";
        }
      if (!status.ok() || r->finished()) {
        if (keep && status.ok()) {
          unique_.insert(*parts);
          ++kept_;
        }
        --open_;
        changed_.notify_all();
      }
    });
    ASSERT_TRUE(id.ok()) << id.status();
    last_id_ = *id;
  }
  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::minutes(10), [&] { return open_ == 0; }))
        << open_ << " requests are not answered";
  }
  size_t unique() const { return unique_.size(); }
  int kept() const { return kept_; }
  const std::string& last_id() const { return last_id_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0, kept_ = 0;
  std::set<std::string> unique_;
  std::string last_id_;
};

v1::GenerateRequest greedy(const std::string& prompt, uint32_t max_tokens) {
  v1::GenerateRequest r;
  r.set_prompt(prompt);
  r.mutable_sampling_params()->set_temperature(0);
  r.mutable_sampling_params()->set_max_tokens(max_tokens);
  r.mutable_sampling_params()->set_ignore_eos(true);
  return r;
}

TEST(Concurrency, AThousandCompletionsOfOnePrompt) {
  const Model& model = Model::get("demo-moe");
  auto engine = start(model, {.tp = 2, .dp = 1}, 1500);
  Answered answered;
  for (int i = 0; i < 1000; ++i) answered.submit(*engine, greedy("once upon a time there was a", 24), true);
  answered.wait();
  EXPECT_EQ(answered.kept(), 1000);
  EXPECT_EQ(answered.unique(), 1u);
}

// The needle is asked `trials` times among random requests, some of them cancelled.
size_t unique_needles(ControlArm arm, int trials) {
  const Model& model = Model::get("demo-moe");
  auto engine = start(model, {.ep = 2}, 400, arm);
  std::mt19937_64 random(17);
  Answered answered;
  std::vector<std::string> cancel;
  for (int trial = 0; trial < trials; ++trial) {
    for (int i = static_cast<int>(random() % 6); i > 0; --i) {
      v1::GenerateRequest r = greedy(std::string(1 + random() % 200, static_cast<char>('a' + random() % 26)), 1 + random() % 32);
      r.mutable_sampling_params()->set_temperature(1.0f);
      r.mutable_sampling_params()->set_seed(random());
      answered.submit(*engine, r, false);
      if (random() % 3 == 0) cancel.push_back(answered.last_id());
    }
    answered.submit(*engine, greedy("tom and his dog went to the", 16), true);
    if (!cancel.empty() && random() % 2) {
      (void)engine->abort(cancel.back());  // it may be over already
      cancel.pop_back();
    }
    // Now and then everybody goes home, so that some needles run nearly alone.
    if (trial % 10 == 9 || random() % 3 == 0) answered.wait();
  }
  answered.wait();
  EXPECT_EQ(answered.kept(), trials);
  return answered.unique();
}

TEST(Concurrency, TwoHundredNeedlesInRandomCompany) { EXPECT_EQ(unique_needles(ControlArm::kNone, 200), 1u); }

TEST(Concurrency, NeedlesUnderAnExpertCapacityDiffer) { EXPECT_GT(unique_needles(ControlArm::kExpertCapacity, 60), 1u); }

TEST(Concurrency, NeedlesUnderSplitsByBatchSizeDiffer) { EXPECT_GT(unique_needles(ControlArm::kFixedSplitCount, 60), 1u); }

}  // namespace
}  // namespace invar::tests
