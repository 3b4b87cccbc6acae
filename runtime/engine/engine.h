// The engine: owns requests, the queue, page tables and the batch of every step; drives one executor per replica. The only header
// of the runtime that rpc needs for serving.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/executor.h"
#include "runtime/engine/histogram.h"
#include "runtime/model_config/model_config.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar {

// Names are vLLM's flag names.
struct EngineOptions {
  int64_t max_model_len = 0;                 // 0 = what model and pages allow
  int64_t max_num_seqs = 256;                // sequences in a step, per replica
  int64_t max_num_batched_tokens = 2048;     // tokens in a step, per replica
  int64_t long_prefill_token_threshold = 0;  // longest chunk of one prompt in a step; 0 = max_num_batched_tokens
  int64_t max_queued_requests = 4096;        // beyond it ResourceExhausted
  bool enable_prefix_caching = true;
  int plans_in_flight = 2;  // plans submitted whose results are not known; 1 = each waits for the one before
  uint64_t seed = 0;        // of requests that name none
  std::string served_model_name;
  // A step that takes longer makes its replica overdue until the result comes: it gets no new requests while another one steps.
  std::chrono::milliseconds step_timeout{300'000};
  // Sees every plan just before it is submitted, on the engine's thread: a flight recorder.
  std::function<void(const v1::StepPlan& plan, int replica)> observer;
};

struct EngineStats {
  uint64_t steps = 0;
  int64_t running = 0, waiting = 0;
  int64_t pages_total = 0, pages_used = 0, pages_cached = 0;
  uint64_t prompt_tokens = 0, generation_tokens = 0, cached_tokens = 0;
  uint64_t preemptions = 0, aborted = 0, finished = 0, rejected = 0;
  double last_step_seconds = 0;       // wall time of the last step
  double seconds_since_progress = 0;  // with work pending; 0 when idle
  double seconds_since_turn = 0;      // since the engine's own thread last went round; more than a moment: it hangs
  bool healthy = true;                // false: a worker group was lost, or a step is overdue
  std::string trouble;                // why, when not healthy: the first loss, and what is overdue
  int replicas = 0, replicas_alive = 0;
  int replicas_stepping = 0;  // alive and with no overdue step: who serves new requests
  // Tokens of requests with forced_token_ids, and those of them that the sampler would not have drawn. A receipt that was made
  // here gives none.
  uint64_t verified_tokens = 0, verification_mismatches = 0;
  uint64_t model_digest_refusals = 0;  // requests with a require_model_digest that is not this model's; among the rejected
  struct Replica {
    bool alive = false;
    uint64_t steps = 0;  // results that came
    int plans_in_flight = 0;
    double step_age_seconds = 0;  // since its ranks work on the oldest plan; 0 = none is in flight
    double last_step_seconds = 0;
    int64_t running = 0, waiting = 0;
  };
  std::vector<Replica> per_replica;
  // Seconds that the engine's own thread was busy, by what it did; the rest of the time it slept.
  struct Busy {
    double requests = 0;  // taking in new ones, aborts, flushes
    double plans = 0;     // building plans and submitting them
    double results = 0;   // matching draws with sequences; text, stops, digests
    double answers = 0;   // callbacks: what is handed to the writers of streams
    double statistics = 0;
  };
  Busy busy;
};

// A rank while its replica steps. Ages are seconds, counted from the moment the oldest plan under way came if nothing was heard
// since; 0 = its replica has nothing to do.
struct RankStats {
  int replica = 0;
  RankProgress progress;
  double step_age = 0;      // since its last step ended
  double progress_age = 0;  // since anything of it moved
  double heard_age = 0;     // since its process was heard of, busy or not; 0 for ranks of this process
};

class Engine {
 public:
  // Called from the engine's thread, in order, never concurrently for one request; must not block. After a response with
  // finished = true or an error status no call follows. Exactly one of the arguments is meaningful: on error `response` is null.
  using Callback = std::function<void(const absl::Status& status, const v1::GenerateResponse* response)>;

  static absl::StatusOr<std::unique_ptr<Engine>> start(const EngineOptions& options, const ModelConfig& model,
                                                       std::shared_ptr<const Tokenizer> tokenizer,  // null = token ids only
                                                       std::vector<std::unique_ptr<Executor>> replicas);
  ~Engine();

  // Validates everything before any work (InvalidArgument names field and value; ResourceExhausted when the queue is full).
  // Returns the request id under which `abort` finds it. A request id already in use is AlreadyExists.
  absl::StatusOr<std::string> submit(v1::GenerateRequest request, Callback callback);
  // Frees the request's pages within a step. The callback gets Cancelled. Unknown ids are NotFound.
  absl::Status abort(const std::string& request_id);
  // Forgets all cached prefixes that no running sequence uses; returns the pages freed.
  int64_t flush_cache();
  EngineStats stats() const;
  std::vector<RankStats> ranks() const;    // of all replicas, as far as they report
  const Histogram& queue_seconds() const;  // from a request's submission to its first place in a plan
  const ReplicaFacts& facts() const;       // of the first replica; all agree on ids
  const EngineOptions& options() const;
  const ModelConfig& model() const;
  std::shared_ptr<const Tokenizer> tokenizer() const;
  // No new requests (Unavailable); returns when the running ones are done or `wait` is over, whichever comes first.
  bool drain(std::chrono::milliseconds wait);
  // Ends what still runs (callbacks get Unavailable) and tells the ranks to leave; `wait` bounds the latter. The destructor does
  // the former only: it talks to nobody. Neither may be called from a callback.
  void shutdown(std::chrono::milliseconds wait);

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace invar
