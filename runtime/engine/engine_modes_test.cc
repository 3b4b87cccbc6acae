// Every way to serve gives the same answers: chunk sizes, caches, page pools, plans ahead, homes, replicas, company.
#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include "runtime/engine/engine_harness.h"

namespace invar::engine {
namespace {

std::vector<int32_t> random_prompt(std::mt19937* random, int64_t length, int64_t vocab = 97) {
  std::vector<int32_t> p(length);
  for (int32_t& t : p) t = static_cast<int32_t>((*random)() % vocab);
  return p;
}

// Lengths around page and chunk borders, shared prefixes, sampling, several choices, stops, prompt log-probabilities.
std::vector<v1::GenerateRequest> mix() {
  std::mt19937 random(11);
  std::vector<v1::GenerateRequest> out;
  const std::vector<int32_t> common = random_prompt(&random, 700);
  for (const int64_t length : {1, 2, 15, 16, 17, 31, 32, 33, 48, 64, 65, 511, 512, 513, 600}) {
    std::vector<int32_t> p(common.begin(), common.begin() + length);
    if (length % 3 == 0) p.back() = (p.back() + 1) % 97;
    out.push_back(request_of(p, 5 + length % 23, length % 2 ? 0.8f : 0.0f));
  }
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest r = request_of(random_prompt(&random, 1 + random() % 90), 1 + random() % 40, i % 3 ? 1.0f : 0.0f);
    if (i % 4 == 1) r.mutable_sampling_params()->set_n(3);
    if (i % 4 == 2) r.mutable_sampling_params()->set_seed(i * 1000);
    if (i % 4 == 3) r.mutable_sampling_params()->add_stop_token_ids(11), r.mutable_sampling_params()->set_min_tokens(1);
    if (i == 5) r.mutable_sampling_params()->set_ignore_eos(true);
    if (i == 6) r.mutable_sampling_params()->set_prompt_logprobs(2), r.mutable_sampling_params()->set_logprobs(3);
    if (i == 9) r.mutable_sampling_params()->set_prompt_logprobs(0);
    r.set_priority(i % 3);
    out.push_back(r);
  }
  return out;
}

void expect_wanted(const Mode& mode, const std::vector<v1::GenerateRequest>& requests, const std::vector<Seen>& seen) {
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(seen[i].status.ok()) << mode.name << " request " << i << ": " << seen[i].status;
    ASSERT_EQ(seen[i].choices.size(), std::max(1u, requests[i].sampling_params().n()));
    size_t completion = 0;
    for (const auto& [choice, c] : seen[i].choices) {
      const Wanted w = wanted(mode, requests[i], choice);
      ASSERT_EQ(c.tokens, w.tokens) << mode.name << " request " << i << " choice " << choice;
      ASSERT_EQ(c.hashes, w.hashes) << mode.name << " request " << i << " choice " << choice;
      ASSERT_EQ(c.finish, w.finish) << mode.name << " request " << i;
      completion += w.tokens.size();
    }
    EXPECT_EQ(seen[i].usage.completion_tokens(), completion);
    EXPECT_EQ(seen[i].usage.prompt_tokens(), static_cast<uint32_t>(requests[i].prompt_token_ids().ids_size()));
    if (requests[i].sampling_params().has_prompt_logprobs()) {
      EXPECT_EQ(static_cast<int>(seen[i].prompt_logprobs.size()), requests[i].prompt_token_ids().ids_size() - 1);
    } else {
      EXPECT_TRUE(seen[i].prompt_logprobs.empty());
    }
  }
}

std::vector<std::string> digests(const std::vector<Seen>& seen) {
  std::vector<std::string> out;
  for (const Seen& s : seen)
    for (const auto& [choice, c] : s.choices) out.push_back(c.digest);
  return out;
}

std::vector<Mode> modes() {
  std::vector<Mode> all;
  const auto add = [&](std::string name, std::function<void(Mode&)> change) {
    Mode m;
    m.name = std::move(name);
    change(m);
    all.push_back(m);
  };
  for (const int64_t chunk : {1, 16, 17, 511, 0})
    for (const int ahead : {1, 2, 3, 4})
      add("chunk " + std::to_string(chunk) + ", ahead " + std::to_string(ahead), [&](Mode& m) {
        m.engine.long_prefill_token_threshold = chunk;
        m.engine.plans_in_flight = ahead;
        m.backlog = ahead;
      });
  for (const bool cache : {false, true})
    for (const int64_t pages : {40, 46, 64, 100})
      add(std::string(cache ? "cache" : "no cache") + ", pages " + std::to_string(pages), [&](Mode& m) {
        m.engine.enable_prefix_caching = cache;
        m.pages = pages;
        m.engine.max_model_len = 640;
        m.engine.plans_in_flight = 3;
        m.backlog = 3;
      });
  for (const int64_t page_size : {1, 4, 64})
    add("page size " + std::to_string(page_size), [&](Mode& m) {
      m.page_size = page_size;
      m.pages = 2000;
    });
  for (const int homes : {2, 3, 4})
    add("homes " + std::to_string(homes), [&](Mode& m) {
      m.homes = homes;
      m.pages = 45;
      m.engine.max_model_len = 640;
      m.backlog = 2;
    });
  add("two replicas", [](Mode& m) { m.replicas = 2; });
  add("two replicas of two homes, few pages", [](Mode& m) {
    m.replicas = 2;
    m.homes = 2;
    m.pages = 42;
    m.engine.max_model_len = 640;
    m.engine.plans_in_flight = 4;
    m.backlog = 4;
  });
  add("one sequence a step", [](Mode& m) { m.engine.max_num_seqs = 1; });
  add("one token a step", [](Mode& m) { m.engine.max_num_batched_tokens = 1; });
  add("seven tokens a step, three sequences", [](Mode& m) {
    m.engine.max_num_batched_tokens = 7;
    m.engine.max_num_seqs = 3;
    m.engine.plans_in_flight = 4;
    m.backlog = 3;
  });
  // One reference for all: the longest sequence must be the same everywhere.
  for (Mode& m : all) m.engine.max_model_len = 640;
  return all;
}

TEST(EngineModes, EveryModeGivesTheSameAnswers) {
  const std::vector<v1::GenerateRequest> requests = mix();
  std::vector<std::string> reference;
  uint64_t preemptions = 0, cached = 0, mixed = 0;
  int64_t backlog = 0;
  for (const Mode& mode : modes()) {
    SCOPED_TRACE(mode.name);
    Harness h(mode);
    // Cold, then hot: the second round finds what the first one left.
    for (int round = 0; round < 2; ++round) {
      const std::vector<Seen> seen = h.run(requests);
      expect_wanted(mode, requests, seen);
      if (testing::Test::HasFatalFailure()) return;
      if (reference.empty()) reference = digests(seen);
      ASSERT_EQ(digests(seen), reference);
    }
    preemptions += h.engine->stats().preemptions;
    cached += h.sum(&FakeExecutor::Report::cached_pages);
    mixed += h.sum(&FakeExecutor::Report::mixed_plans);
    backlog = std::max(backlog, h.reports[0]->most_backlog);
    const EngineStats s = h.engine->stats();
    EXPECT_EQ(s.running + s.waiting, 0);
    EXPECT_EQ(s.pages_used, 0) << "pages leaked";
    EXPECT_TRUE(s.healthy);
  }
  // The modes did what their names say.
  EXPECT_GT(preemptions, 10u);
  EXPECT_GT(cached, 500u);
  EXPECT_GT(mixed, 100u);
  EXPECT_GE(backlog, 3);
}

TEST(EngineModes, TheCheckNoticesAModelThatDependsOnTheBatch) {
  const std::vector<v1::GenerateRequest> requests = mix();
  Mode mode;
  mode.engine.max_model_len = 640;
  mode.replica_changes = {[](FakeOptions* o) { o->depends_on_batch = true; }};
  Harness h(mode);
  const std::vector<Seen> seen = h.run(requests);
  int different = 0;
  for (size_t i = 0; i < requests.size(); ++i)
    for (const auto& [choice, c] : seen[i].choices) different += c.tokens != wanted(mode, requests[i], choice).tokens;
  EXPECT_GT(different, 5);
}

TEST(EngineModes, HotAndPartialCacheAreCounted) {
  Mode mode;
  Harness h(mode);
  std::mt19937 random(3);
  const std::vector<int32_t> prompt = random_prompt(&random, 100);
  EXPECT_EQ(h.run({request_of(prompt, 4)})[0].usage.cached_tokens(), 0u);
  EXPECT_EQ(h.run({request_of(prompt, 4)})[0].usage.cached_tokens(), 96u);
  std::vector<int32_t> other = prompt;
  other[40] = (other[40] + 1) % 97;
  EXPECT_EQ(h.run({request_of(other, 4)})[0].usage.cached_tokens(), 32u);
  // A prompt of whole pages: the last token is computed all the same, or there would be no logits.
  const std::vector<int32_t> whole(prompt.begin(), prompt.begin() + 64);
  EXPECT_EQ(h.run({request_of(whole, 4)})[0].usage.cached_tokens(), 48u);
  v1::GenerateRequest with_logprobs = request_of(prompt, 4);
  with_logprobs.mutable_sampling_params()->set_prompt_logprobs(1);
  EXPECT_EQ(h.run({with_logprobs})[0].usage.cached_tokens(), 0u);
  EXPECT_GT(h.engine->stats().pages_cached, 0);
  const int64_t cached = h.engine->stats().pages_cached;
  EXPECT_EQ(h.engine->flush_cache(), cached);
  EXPECT_EQ(h.run({request_of(prompt, 4)})[0].usage.cached_tokens(), 0u);
}

TEST(EngineModes, AnswersAreCachedToo) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  std::mt19937 random(4);
  std::vector<int32_t> prompt = random_prompt(&random, 20);
  const Seen first = h.run({request_of(prompt, 60)})[0];
  prompt.insert(prompt.end(), first.choices.at(0).tokens.begin(), first.choices.at(0).tokens.end());
  prompt.push_back(1);
  EXPECT_EQ(h.run({request_of(prompt, 4)})[0].usage.cached_tokens(), 64u) << "the last token of an answer is never computed";
}

TEST(EngineModes, ChoicesShareThePromptsPagesAndDrawForThemselves) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  std::mt19937 random(5);
  v1::GenerateRequest r = request_of(random_prompt(&random, 200), 10, 1.0f);
  r.mutable_sampling_params()->set_n(8);
  const Seen seen = h.run({r})[0];
  std::set<std::vector<int32_t>> distinct;
  for (const auto& [choice, c] : seen.choices) distinct.insert(c.tokens);
  EXPECT_EQ(distinct.size(), 8u);
  EXPECT_EQ(h.sum(&FakeExecutor::Report::cached_pages), 7 * 12u);
  // 200 once, 8 for each of the others, and decodes.
  EXPECT_LE(h.reports[0]->computed_tokens, 200 + 7 * 8 + 8 * 12);
}

TEST(EngineModes, EqualPromptsAtOnceAreComputedOnce) {
  Mode mode;
  mode.engine.long_prefill_token_threshold = 64;
  Harness h(mode);
  std::mt19937 random(6);
  const std::vector<int32_t> prompt = random_prompt(&random, 320);
  std::vector<v1::GenerateRequest> requests(200, request_of(prompt, 4));
  const std::vector<Seen> seen = h.run(requests);
  std::set<std::string> all;
  for (const Seen& s : seen) all.insert(s.choices.at(0).digest);
  EXPECT_EQ(all.size(), 1u);
  EXPECT_LE(h.reports[0]->computed_tokens, 320 + 199 * 16 + 200 * 6);
}

TEST(EngineModes, HomesShareTheLoad) {
  Mode mode;
  mode.homes = 4;
  mode.eos = {};
  Harness h(mode);
  std::mt19937 random(8);
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 16; ++i) requests.push_back(request_of(random_prompt(&random, 30), 20));
  expect_wanted(mode, requests, h.run(requests));
  EXPECT_EQ(h.reports[0]->homes_used.size(), 4u);
}

TEST(EngineModes, ReplicasShareTheLoad) {
  Mode mode;
  mode.replicas = 2;
  mode.eos = {};
  Harness h(mode);
  std::mt19937 random(8);
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 16; ++i) requests.push_back(request_of(random_prompt(&random, 30), 20));
  expect_wanted(mode, requests, h.run(requests));
  EXPECT_GT(h.reports[0]->computed_tokens, 100);
  EXPECT_GT(h.reports[1]->computed_tokens, 100);
}

}  // namespace
}  // namespace invar::engine
