// One replica's ranks as the engine sees them: plans go in, results come out, in step order. Two implementations: ranks as
// threads of this process (runtime/worker) and ranks behind the worker link (rpc).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/rank_progress.h"
#include "runtime/proto/step.pb.h"

namespace invar {

// What the ranks of a replica said of themselves after loading.
struct ReplicaFacts {
  int homes = 1;  // expert-parallel size: each home has its own pages
  int64_t pages_per_home = 0;
  int64_t page_size = 16;     // token slots a page
  int64_t max_positions = 0;  // longest sequence the ranks can hold (RoPE table)
  int64_t vocab_size = 0;
  std::string numerics_id;
  std::string model_digest;
  std::string layout;  // "tp2 pp1 ep1"
  int ranks = 1;
};

// submit() and next() are called from two different threads, each always from the same one; progress() from any.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ReplicaFacts& facts() const = 0;
  // Queues a plan; never blocks on the ranks' work. Unavailable when the worker group is lost.
  virtual absl::Status submit(const v1::StepPlan& plan) = 0;
  // Waits for the next result, in step order. DeadlineExceeded after `wait`; Unavailable when the worker group is lost, with who,
  // where, phase and collective number.
  virtual absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) = 0;
  // Tells the ranks to leave and waits at most `wait` for them.
  virtual void shutdown(std::chrono::milliseconds wait) = 0;
  // Of every rank, as last heard; empty where nobody reports. Never waits for a rank.
  virtual std::vector<RankProgress> progress() const { return {}; }
};

}  // namespace invar
