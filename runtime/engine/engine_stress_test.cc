// Long random runs: arrivals, cancellations, priorities, flushes, preemption and plans ahead, all at once. Repeatable workloads
// by seed; how threads interleave is not, and must not matter.
#include <random>
#include <set>
#include <thread>

#include "runtime/engine/engine_harness.h"

namespace invar::engine {
namespace {

struct Workload {
  Mode mode;
  int requests = 150;
  double cancelled = 0.2;
  bool flush = true;
};

Workload draw_workload(uint32_t seed) {
  std::mt19937 random(seed);
  const auto upto = [&](int n) { return static_cast<int>(random() % n); };
  Workload w;
  Mode& m = w.mode;
  m.name = "seed " + std::to_string(seed);
  m.page_size = 1 << upto(6);
  m.homes = 1 + upto(4);
  m.replicas = 1 + upto(2);
  m.engine.max_model_len = 128;
  m.pages = (128 + m.page_size - 1) / m.page_size + upto(static_cast<int>(1 + 300 / m.page_size));
  m.engine.max_num_seqs = 1 + upto(24);
  m.engine.max_num_batched_tokens = 1 + upto(200);
  m.engine.long_prefill_token_threshold = upto(3) ? upto(60) : 0;
  m.engine.plans_in_flight = 1 + upto(4);
  m.engine.enable_prefix_caching = upto(4) != 0;
  m.engine.seed = seed;
  m.backlog = 1 + upto(4);
  m.patience = std::chrono::microseconds(50);
  if (m.replicas == 2 && upto(3) == 0)
    m.replica_changes = {[at = 5 + upto(100)](FakeOptions* o) { o->lose_at_step = static_cast<uint64_t>(at); }};
  return w;
}

void stress(const Workload& w, uint32_t seed, uint64_t* preemptions) {
  SCOPED_TRACE(w.mode.name);
  std::mt19937 random(seed * 31 + 7);
  std::vector<std::vector<int32_t>> stems(4);
  for (auto& stem : stems)
    for (int i = 0; i < 120; ++i) stem.push_back(static_cast<int32_t>(random() % 97));
  std::vector<v1::GenerateRequest> requests;
  std::vector<bool> cancel;
  for (int i = 0; i < w.requests; ++i) {
    const auto& stem = stems[random() % 4];
    std::vector<int32_t> prompt(stem.begin(), stem.begin() + 1 + random() % 100);
    if (random() % 2) prompt.back() = static_cast<int32_t>(random() % 97);
    v1::GenerateRequest r = request_of(prompt, 1 + random() % 40, random() % 2 ? 0.9f : 0.0f);
    if (random() % 5 == 0) r.mutable_sampling_params()->set_n(1 + random() % 4);
    if (random() % 7 == 0) r.mutable_sampling_params()->set_prompt_logprobs(random() % 3);
    if (random() % 4 == 0) r.mutable_sampling_params()->set_seed(random());
    if (random() % 6 == 0) r.mutable_sampling_params()->set_ignore_eos(true);
    r.set_priority(static_cast<int32_t>(random() % 5) - 2);
    requests.push_back(r);
    cancel.push_back(random() % 1000 < w.cancelled * 1000);
  }
  Harness h(w.mode);
  for (int i = 0; i < w.requests; ++i) {
    h.submit(i, requests[i]);
    if (cancel[i]) {
      // Sometimes at once, sometimes after others have come and it runs.
      const int victim = random() % 2 ? i : static_cast<int>(random() % (i + 1));
      if (cancel[victim]) (void)h.engine->abort(h.ids[victim]);
    }
    if (w.flush && random() % 20 == 0) h.engine->flush_cache();
    if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
  }
  ASSERT_TRUE(h.client.wait(w.requests)) << "not all requests came to an end";
  for (int i = 0; i < w.requests; ++i) {
    const Seen s = h.client.seen(i);
    if (!s.status.ok()) {
      ASSERT_TRUE(absl::IsCancelled(s.status) && cancel[i]) << s.status;
    }
    for (const auto& [choice, c] : s.choices) {
      const Wanted want = wanted(w.mode, requests[i], choice);
      ASSERT_LE(c.tokens.size(), want.tokens.size());
      // A cancelled request has seen a beginning of its answer.
      ASSERT_TRUE(!s.status.ok() || c.tokens.size() == want.tokens.size()) << "request " << i;
      ASSERT_TRUE(std::equal(c.tokens.begin(), c.tokens.end(), want.tokens.begin())) << "request " << i << " choice " << choice;
      ASSERT_TRUE(std::equal(c.hashes.begin(), c.hashes.end(), want.hashes.begin())) << "request " << i << " choice " << choice;
    }
    const bool all_of_prompt = static_cast<int>(s.prompt_logprobs.size()) == requests[i].prompt_token_ids().ids_size() - 1;
    ASSERT_TRUE(!s.status.ok() || !requests[i].sampling_params().has_prompt_logprobs() || all_of_prompt);
  }
  const EngineStats stats = h.engine->stats();
  EXPECT_EQ(stats.pages_used, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.finished + stats.aborted, static_cast<uint64_t>(w.requests));
  *preemptions += stats.preemptions;
}

TEST(EngineStress, RandomWorkloads) {
  uint64_t preemptions = 0;
  for (uint32_t seed = 1; seed <= 25; ++seed) {
    stress(draw_workload(seed), seed, &preemptions);
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(preemptions, 0u);  // how many depends on timing
}

TEST(EngineStress, AThousandEqualCompletionsHaveOneAnswer) {
  Mode mode;
  mode.pages = 200;
  mode.engine.max_model_len = 128;
  mode.engine.plans_in_flight = 3;
  mode.backlog = 2;
  mode.patience = std::chrono::microseconds(50);
  Harness h(mode);
  const std::vector<int32_t> prompt(40, 5);
  std::vector<v1::GenerateRequest> requests(1000, request_of(prompt, 24));
  for (size_t i = 0; i < requests.size(); ++i) requests[i].set_priority(static_cast<int32_t>(i % 3));
  std::set<std::string> answers;
  for (const Seen& s : h.run(requests)) answers.insert(s.choices.at(0).digest);
  EXPECT_EQ(answers.size(), 1u);
  EXPECT_EQ(h.engine->stats().pages_used, 0);
}

}  // namespace
}  // namespace invar::engine
