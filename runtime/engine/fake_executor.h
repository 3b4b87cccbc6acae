// For tests: ranks whose model is a pure function of the tokens, and which check every plan as hard as they can.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "runtime/engine/executor.h"

namespace invar::engine {

// The "model": the content of a KV slot is a hash of all tokens up to it; logits are a hash of the last slot.
struct FakeModel {
  int64_t vocab_size = 97;
  int32_t nan_token = -1;  // logits after it are not finite
  uint64_t salt = 1;       // another model

  uint64_t slot(uint64_t previous, int64_t position, int32_t token) const;
  uint64_t logits_hash(uint64_t slot) const;
  int32_t draw(uint64_t slot, int64_t position, const v1::SamplingParams& sampling, uint32_t choice) const;
  // The draw, or the next token that may be drawn.
  int32_t permitted(int32_t token, const std::function<bool(int32_t)>& may) const;
  float logprob(uint64_t slot, int32_t token) const;

  struct Answer {
    std::vector<int32_t> tokens;
    std::vector<uint64_t> hashes;
  };
  // What the plainest decoding loop gives: `count` tokens. `may(answer so far, token)`: what may be drawn.
  using May = std::function<bool(const std::vector<int32_t>& answer, int32_t token)>;
  Answer answer(const std::vector<int32_t>& prompt, const v1::SamplingParams& sampling, uint32_t choice, int64_t count,
                const May& may = {}) const;
};

struct FakeOptions {
  ReplicaFacts facts;
  FakeModel model;
  int64_t max_num_seqs = 1 << 30;
  int64_t max_num_batched_tokens = 1 << 30;
  int64_t longest_chunk = 1 << 30;
  // Results are kept back until this many plans wait (or none has come for `patience`), so that plans really run ahead.
  int backlog = 1;
  std::chrono::microseconds patience{200};
  uint64_t lose_at_step = 0;                            // the worker group is lost instead of answering this step; 0 = never
  bool fail_by_result = false;                          // ... and says so in StepResult.failure instead of a status
  uint64_t hang_at_step = 0;                            // never answers this step until release() is called
  bool depends_on_batch = false;                        // control arm: the draw depends on the row in the batch
  std::function<void(v1::StepResult*)> tamper;          // ranks that answer nonsense
  std::function<std::vector<RankProgress>()> progress;  // what the ranks report; none = nothing
};

class FakeExecutor final : public Executor {
 public:
  explicit FakeExecutor(FakeOptions options);
  const ReplicaFacts& facts() const override { return options_.facts; }
  absl::Status submit(const v1::StepPlan& plan) override;
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) override;
  void shutdown(std::chrono::milliseconds wait) override;
  std::vector<RankProgress> progress() const override {
    return options_.progress ? options_.progress() : std::vector<RankProgress>();
  }

  // What plans did wrong; empty is good. Survives the executor in tests that keep the pointer.
  struct Report {
    std::mutex mutex;
    std::vector<std::string> violations;
    uint64_t plans = 0, surplus_seen = 0, cached_pages = 0, mixed_plans = 0;
    int64_t most_backlog = 0, computed_tokens = 0;
    bool told_to_leave = false;
    std::set<uint32_t> homes_used;
  };
  std::shared_ptr<Report> report() const { return report_; }
  void release();  // ends a hang

 private:
  struct Live {
    uint32_t home = 0;
    std::vector<int32_t> tokens;  // known and drawn
    int64_t known = 0;            // from the start
    int64_t computed = 0;
    std::vector<uint32_t> pages;
    std::vector<uint64_t> slots;  // what the slots of [0, computed) must hold
    v1::SequenceStart start;
  };
  void violation(const v1::StepPlan& plan, const std::string& what);
  v1::StepResult execute(const v1::StepPlan& plan);
  void begin(const v1::StepPlan& plan, const v1::SequenceStart& start);
  void run(const v1::StepPlan& plan, int row, const v1::Chunk& chunk, v1::StepResult* result);
  uint64_t* slot(uint32_t home, uint32_t page, int64_t offset);

  const FakeOptions options_;
  std::shared_ptr<Report> report_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::StepPlan> queue_;
  std::chrono::steady_clock::time_point last_submit_{};
  bool lost_ = false, released_ = false;

  // Ranks' side: only used by next().
  uint64_t step_ = 0, last_sequence_ = 0;
  std::map<uint64_t, Live> live_;
  std::vector<std::vector<uint64_t>> kv_;  // [home][page * page_size + offset]
  std::vector<std::vector<int>> tables_;   // [home][page]: live page tables that hold it
};

}  // namespace invar::engine
