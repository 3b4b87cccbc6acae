// A replica behind the worker link, as the engine sees it.
#pragma once

#include <memory>
#include <string>

#include "runtime/engine/executor.h"

namespace invar::rpc {

class Link;

class RemoteExecutor final : public Executor {
 public:
  explicit RemoteExecutor(std::shared_ptr<Link> link);  // an admitted one
  ~RemoteExecutor() override;                           // cuts the stream if it is still open; does not wait
  RemoteExecutor(const RemoteExecutor&) = delete;
  RemoteExecutor& operator=(const RemoteExecutor&) = delete;

  const ReplicaFacts& facts() const override { return facts_; }
  absl::Status submit(const v1::StepPlan& plan) override;
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) override;
  void shutdown(std::chrono::milliseconds wait) override;
  std::vector<RankProgress> progress() const override;

 private:
  const std::shared_ptr<Link> link_;
  const ReplicaFacts facts_;
};

}  // namespace invar::rpc
