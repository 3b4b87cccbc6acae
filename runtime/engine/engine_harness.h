// For tests: an engine over fake ranks, and clients that remember all they were told.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/fake_executor.h"
#include "runtime/engine/validate.h"

namespace invar::engine {

struct ChoiceSeen {
  std::vector<int32_t> tokens, draws;
  std::vector<uint64_t> hashes;
  std::vector<v1::TokenLogprobs> logprobs;
  std::string text, stop_reason, digest;
  v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;
  v1::Receipt receipt;
  bool violated = false;
  uint32_t violation = 0;
};

struct Seen {
  std::map<uint32_t, ChoiceSeen> choices;
  std::vector<v1::TokenLogprobs> prompt_logprobs;
  v1::Usage usage;
  absl::Status status;
  int responses = 0;
  bool over = false;
};

// Thread-safe; outlives the engine it listens to.
class Client {
 public:
  Engine::Callback callback(int key) {
    return [this, key](const absl::Status& status, const v1::GenerateResponse* r) {
      std::lock_guard lock(mutex_);
      Seen& s = seen_[key];
      EXPECT_FALSE(s.over) << "called after the last call";
      EXPECT_EQ(r == nullptr, !status.ok());
      if (!r) {
        s.status = status;
        s.over = true;
      } else {
        take(*r, &s);
      }
      if (s.over) ++over_;
      changed_.notify_all();
    };
  }
  // Waits until `count` requests are over. A bound that only a hang reaches.
  bool wait(size_t count, std::chrono::seconds most = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [&] { return over_ >= count; });
  }
  bool wait_for_tokens(int key, size_t count, std::chrono::seconds most = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [&] { return seen_[key].over || seen_[key].choices[0].tokens.size() >= count; });
  }
  Seen seen(int key) {
    std::lock_guard lock(mutex_);
    return seen_[key];
  }

 private:
  static void take(const v1::GenerateResponse& r, Seen* s) {
    ++s->responses;
    EXPECT_TRUE(r.prompt_logprobs().empty() || s->responses == 1) << "prompt log-probabilities belong into the first response";
    s->prompt_logprobs.insert(s->prompt_logprobs.end(), r.prompt_logprobs().begin(), r.prompt_logprobs().end());
    for (const v1::ChoiceDelta& d : r.choices()) {
      ChoiceSeen& c = s->choices[d.index()];
      EXPECT_EQ(c.finish, v1::FINISH_REASON_UNSPECIFIED) << "a finished choice goes on";
      c.tokens.insert(c.tokens.end(), d.token_ids().begin(), d.token_ids().end());
      c.draws.insert(c.draws.end(), d.draws().begin(), d.draws().end());
      c.hashes.insert(c.hashes.end(), d.logits_hashes().begin(), d.logits_hashes().end());
      c.logprobs.insert(c.logprobs.end(), d.logprobs().begin(), d.logprobs().end());
      c.text += d.text();
      c.finish = d.finish_reason();
      c.stop_reason = d.stop_reason();
      c.digest = d.response_digest();
      if (d.has_violation()) c.violated = true, c.violation = d.violation();
      if (d.has_receipt()) c.receipt = d.receipt();
      EXPECT_EQ(d.finish_reason() == v1::FINISH_REASON_UNSPECIFIED, d.response_digest().empty());
    }
    if (r.finished()) {
      s->usage = r.usage();
      s->over = true;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, Seen> seen_;
  size_t over_ = 0;
};

// One way to serve. Every one must give the same answers.
struct Mode {
  std::string name;
  EngineOptions engine;
  int replicas = 1;
  int homes = 1;
  int64_t pages = 4096;
  int64_t page_size = 16;
  int64_t max_positions = 4096;
  int backlog = 1;
  std::chrono::microseconds patience{200};
  std::vector<std::function<void(FakeOptions*)>> replica_changes;  // by replica
  FakeModel model;
  std::vector<int32_t> eos = {7};
};

class Harness {
 public:
  explicit Harness(const Mode& mode, std::shared_ptr<const Tokenizer> tokenizer = nullptr) : mode_(mode) {
    std::vector<std::unique_ptr<Executor>> executors;
    for (int i = 0; i < mode.replicas; ++i) {
      FakeOptions o;
      o.model = mode.model;
      o.facts.homes = mode.homes;
      o.facts.pages_per_home = mode.pages;
      o.facts.page_size = mode.page_size;
      o.facts.max_positions = mode.max_positions;
      o.facts.vocab_size = mode.model.vocab_size;
      o.facts.numerics_id = "invar-v0-fake-0123456789abcdef";
      o.facts.model_digest = "fake model";
      o.facts.layout = "tp1 pp1 ep1";
      o.max_num_seqs = mode.engine.max_num_seqs;
      o.max_num_batched_tokens = mode.engine.max_num_batched_tokens;
      if (mode.engine.long_prefill_token_threshold > 0) o.longest_chunk = mode.engine.long_prefill_token_threshold;
      o.backlog = std::min(mode.backlog, mode.engine.plans_in_flight);
      o.patience = mode.patience;
      if (i < static_cast<int>(mode.replica_changes.size()) && mode.replica_changes[i]) mode.replica_changes[i](&o);
      auto e = std::make_unique<FakeExecutor>(o);
      reports.push_back(e->report());
      fakes.push_back(e.get());
      executors.push_back(std::move(e));
    }
    ModelConfig model;
    model.vocab_size = mode.model.vocab_size;
    model.max_position_embeddings = mode.max_positions;
    model.eos_token_ids = mode.eos;
    auto started = Engine::start(mode.engine, model, std::move(tokenizer), std::move(executors));
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) engine = *std::move(started);
  }
  ~Harness() {
    engine.reset();
    for (size_t i = 0; i < reports.size(); ++i) {
      std::lock_guard lock(reports[i]->mutex);
      EXPECT_TRUE(reports[i]->violations.empty()) << mode_.name << ", replica " << i << ": " << reports[i]->violations.size()
                                                  << " violations, first: " << reports[i]->violations.front();
    }
  }
  void submit(int key, const v1::GenerateRequest& request) {
    const absl::StatusOr<std::string> id = engine->submit(request, client.callback(key));
    ASSERT_TRUE(id.ok()) << id.status();
    ids[key] = *id;
  }
  // All answers to these, submitted at once.
  std::vector<Seen> run(const std::vector<v1::GenerateRequest>& requests) {
    const size_t before = total_;
    for (size_t i = 0; i < requests.size(); ++i) submit(static_cast<int>(before + i), requests[i]);
    total_ += requests.size();
    EXPECT_TRUE(client.wait(total_)) << mode_.name << ": not all requests came to an end";
    std::vector<Seen> out;
    for (size_t i = 0; i < requests.size(); ++i) out.push_back(client.seen(static_cast<int>(before + i)));
    return out;
  }
  uint64_t sum(uint64_t FakeExecutor::Report::*field) const {
    uint64_t n = 0;
    for (const auto& r : reports) {
      std::lock_guard lock(r->mutex);
      n += (*r).*field;
    }
    return n;
  }

  Client client;
  std::unique_ptr<Engine> engine;
  std::vector<std::shared_ptr<FakeExecutor::Report>> reports;
  std::vector<FakeExecutor*> fakes;
  std::map<int, std::string> ids;

 private:
  const Mode mode_;
  size_t total_ = 0;
};

inline v1::GenerateRequest request_of(const std::vector<int32_t>& prompt, uint32_t max_tokens, float temperature = 0) {
  v1::GenerateRequest r;
  r.mutable_prompt_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  r.mutable_sampling_params()->set_max_tokens(max_tokens);
  r.mutable_sampling_params()->set_temperature(temperature);
  return r;
}

// What the plainest loop answers to choice `choice`, stopping as the request says. Tokens and hashes only.
struct Wanted {
  std::vector<int32_t> tokens;
  std::vector<uint64_t> hashes;
  v1::FinishReason finish = v1::FINISH_REASON_LENGTH;
};
inline Wanted wanted(const Mode& mode, const v1::GenerateRequest& r, uint32_t choice) {
  const v1::SamplingParams s = effective_sampling(r.sampling_params(), {}, mode.engine.seed);
  const std::vector<int32_t> prompt(r.prompt_token_ids().ids().begin(), r.prompt_token_ids().ids().end());
  const int64_t longest =
      mode.engine.max_model_len > 0 ? mode.engine.max_model_len : std::min(mode.max_positions, mode.pages * mode.page_size);
  const int64_t count = std::min<int64_t>(s.max_tokens(), longest - static_cast<int64_t>(prompt.size()));
  // eos and stop ids are not drawn before min_tokens.
  const auto late = [&](int32_t t) {
    const auto& stops = s.stop_token_ids();
    return (!s.ignore_eos() && std::find(mode.eos.begin(), mode.eos.end(), t) != mode.eos.end()) ||
           std::find(stops.begin(), stops.end(), t) != stops.end();
  };
  const FakeModel::Answer full = mode.model.answer(prompt, s, choice, count, [&](const std::vector<int32_t>& answer, int32_t t) {
    return answer.size() >= s.min_tokens() || !late(t);
  });
  Wanted w;
  for (int64_t i = 0; i < count; ++i) {
    w.tokens.push_back(full.tokens[i]);
    w.hashes.push_back(full.hashes[i]);
    if (i + 1 <= s.min_tokens()) continue;
    const auto& stops = s.stop_token_ids();
    const bool eos = !s.ignore_eos() && std::find(mode.eos.begin(), mode.eos.end(), full.tokens[i]) != mode.eos.end();
    if (eos || std::find(stops.begin(), stops.end(), full.tokens[i]) != stops.end()) {
      w.finish = v1::FINISH_REASON_STOP;
      break;
    }
  }
  return w;
}

}  // namespace invar::engine
