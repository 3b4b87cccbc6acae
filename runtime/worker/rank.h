// A rank: executes plans on its share of the model. The leader of a replica (its first rank) takes plans from a channel and hands
// them on; every rank runs every plan in order.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/executor.h"
#include "runtime/model/decoder.h"
#include "runtime/worker/loaded_model.h"
#include "runtime/worker/plan_channel.h"
#include "runtime/worker/rank_start.h"
#include "runtime/worker/sequence_table.h"

namespace invar {

struct RankOptions {
  Layout layout;
  DeviceOptions device;
  int64_t page_size = 16;
  int64_t pages = 0;               // per home; 0 = what kv_cache_bytes holds
  int64_t kv_cache_bytes = 0;      // per rank; 0 = 1 GiB, or less where max_num_seqs sequences of full length need less
  int64_t max_num_seqs = 256;      // for that default only
  int64_t max_model_len = 0;       // 0 = max_position_embeddings
  std::string trace;               // path prefix; empty = no trace
  TraceDetail trace_detail = TraceDetail::kValues;
};

class Rank {
 public:
  // Loads the shard. `digest` is the model digest, or empty: then the first rank of each host computes it for its host
  // (a collective over the replica). Progress is reported by the first rank of each host.
  static absl::StatusOr<std::unique_ptr<Rank>> load(parallel::Transport& transport, const LoadedModel& model,
                                                    const RankOptions& options, std::string digest,
                                                    const LoadProgressFn& progress);

  bool leader() const { return members_.front() == transport_.rank(); }
  const ReplicaFacts& facts() const { return facts_; }
  const RankReport& report() const { return report_; }
  // Collective over the replica: the leader gets every rank's report, the others an empty list.
  std::vector<RankReport> gather_reports();

  // Runs until a plan with shutdown, or until the channel or a peer is lost. The leader passes its channel, the others null.
  // PeerFailure and std::logic_error come out as Unavailable and Internal with rank, host and step.
  absl::Status run(PlanChannel* channel);

 private:
  Rank(parallel::Transport& transport, const RankOptions& options);

  absl::Status lead(PlanChannel& channel);
  absl::Status follow();
  void execute(const v1::StepPlan& plan);
  void fill_tokens(const v1::StepPlan& plan, StepRows& rows);
  bool take_tokens(std::chrono::milliseconds wait);
  v1::TokenResult draw(const LogitsRow& row, const float* logits);
  void send_tokens(const v1::StepResult& mine);
  bool collect_results(PlanChannel& channel, std::chrono::milliseconds wait);

  parallel::Transport& transport_;
  RankOptions options_;
  Coordinates at_;
  std::vector<int> members_;  // of the replica, the leader first
  int sampler_;               // rank that draws for this rank's home
  std::unique_ptr<Device> device_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<TraceRecorder> trace_;
  ReplicaFacts facts_;
  RankReport report_;
  SequenceTable sequences_;
  uint64_t step_ = 0;
  // Steps whose draws of this home have not arrived from the sampling rank (first-stage ranks that do not sample).
  std::deque<uint64_t> awaited_tokens_;
  // Leader: steps whose results are not complete, with the sampling ranks still missing.
  struct Pending {
    v1::StepResult result;
    std::vector<int> missing;
  };
  std::deque<Pending> pending_;
};

}  // namespace invar
