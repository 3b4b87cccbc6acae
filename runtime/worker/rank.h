// A rank: executes plans on its share of the model. The leader of a replica (its first rank) takes plans from a channel and hands
// them on; every rank runs every plan in order.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/logits/sample_rows.h"
#include "runtime/engine/executor.h"
#include "runtime/model/decoder.h"
#include "runtime/worker/loaded_model.h"
#include "runtime/worker/plan_channel.h"
#include "runtime/worker/progress_board.h"
#include "runtime/worker/rank_options.h"
#include "runtime/worker/rank_start.h"
#include "runtime/worker/sequence_table.h"

namespace invar {

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
  // How far it is with its plans; to be read while it runs and after it is gone.
  std::shared_ptr<const ProgressBoard> progress() const { return progress_; }
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
  // Draws for rows of logits (vocab_size floats each), adds them to `result` in that order and to the sequences.
  void draw(const v1::StepPlan& plan, std::span<const LogitsRow> rows, const float* logits, v1::StepResult* result);
  void send_tokens(const v1::StepResult& mine);
  bool collect_results(PlanChannel& channel, std::chrono::milliseconds wait);

  const std::shared_ptr<ProgressBoard> progress_;
  const std::unique_ptr<parallel::Transport> watched_;  // the transport it was given
  parallel::Transport& transport_;                      // the same, watched
  RankOptions options_;
  Coordinates at_;
  std::vector<int> members_;  // of the replica, the leader first
  int sampler_;               // rank that draws for this rank's home
  std::unique_ptr<Device> device_;
  std::unique_ptr<parallel::Transport> nccl_;
  std::unique_ptr<parallel::Transport> device_transport_;  // nccl_, watched; null: transport_ does
  std::unique_ptr<RowSampler> sampler_of_rows_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<parallel::PeerMemory> peer_;  // goes before the decoder: it ends waits that the decoder's buffers are used in
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
