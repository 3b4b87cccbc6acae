// A replica whose ranks are threads of this process: no MPI, no worker link. For one box, for tests, and for offline generation.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/transport/transport.h"
#include "runtime/engine/executor.h"
#include "runtime/worker/rank.h"

namespace invar {

struct LocalOptions {
  RankOptions rank;    // one executor is one replica; layout.dp: how many this process has
  int first_rank = 0;  // number of this replica's leader in the whole layout: for names, and for which GPUs are whose
  // Called on each rank's transport before use; tests put delays here.
  std::function<std::unique_ptr<parallel::Transport>(std::unique_ptr<parallel::Transport>)> wrap;
};

class LocalExecutor : public Executor {
 public:
  // Loads all ranks; `model` must outlive the executor. `digest`: the model digest.
  static absl::StatusOr<std::unique_ptr<LocalExecutor>> start(const LoadedModel& model, const std::string& digest,
                                                              const LocalOptions& options, const LoadProgressFn& progress);
  ~LocalExecutor() override;  // asks the ranks to leave if shutdown() was not called

  const ReplicaFacts& facts() const override;
  absl::Status submit(const v1::StepPlan& plan) override;
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) override;
  void shutdown(std::chrono::milliseconds wait) override;
  std::vector<RankProgress> progress() const override;
  const std::vector<RankReport>& reports() const;

 private:
  struct State;
  explicit LocalExecutor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace invar
