#include "rpc/worker_link/remote_executor.h"

#include "rpc/worker_link/admission.h"
#include "rpc/worker_link/link.h"

namespace invar::rpc {

RemoteExecutor::RemoteExecutor(std::shared_ptr<Link> link) : link_(std::move(link)), facts_(to_facts(link_->hello())) {}
RemoteExecutor::~RemoteExecutor() { link_->cancel("the coordinator let go of it"); }

absl::Status RemoteExecutor::submit(const v1::StepPlan& plan) { return link_->submit(plan); }
absl::StatusOr<v1::StepResult> RemoteExecutor::next(std::chrono::milliseconds wait) { return link_->next(wait); }
void RemoteExecutor::shutdown(std::chrono::milliseconds wait) { link_->shutdown(wait); }
std::vector<RankProgress> RemoteExecutor::progress() const { return link_->progress(); }

}  // namespace invar::rpc
