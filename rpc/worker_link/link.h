// The coordinator's end of one worker's stream. Internal to this folder (it shows gRPC types).
#pragma once

#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/proto/worker_link.pb.h"
#include "runtime/engine/rank_progress.h"

namespace invar::rpc {

// Keeps itself alive until gRPC has let go of it; others hold it as shared_ptr and may outlive the stream.
class Link final : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
 public:
  // Decides about a Hello; not OK = refused with that message. Called once, from a gRPC thread.
  using Admit = std::function<absl::Status(const std::shared_ptr<Link>&)>;
  using Closed = std::function<void(const std::shared_ptr<Link>&)>;  // the stream is gone, admitted or not

  static std::shared_ptr<Link> open(grpc::CallbackServerContext* context, v1::Welcome welcome, Admit admit, Closed closed);

  const v1::Hello& hello() const { return hello_; }  // constant once `admit` was called
  const std::string& address() const { return address_; }
  std::string name() const;  // "replica 0 (rank 0 on host h1, ipv4:10.0.0.1:4444)"
  bool alive() const;

  absl::Status submit(const v1::StepPlan& plan);
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait);
  void shutdown(std::chrono::milliseconds wait);
  // Ends the stream at once; `next` says why.
  void cancel(const std::string& why);
  // This process did not run for a while: what was sent meanwhile has not been read yet, so the silence is ours.
  void excuse();
  // What a rank of this replica said of itself. NotFound: it is none of the ranks of the Hello.
  absl::Status report(const RankProgress& progress);
  std::vector<RankProgress> progress()
      const;  // of every rank of the Hello; one that has said nothing yet was heard when it joined
  // Cancels when no Hello came within `hello_timeout` or nothing at all for `link_timeout`.
  void check(std::chrono::milliseconds hello_timeout, std::chrono::milliseconds link_timeout);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Clock = std::chrono::steady_clock;

  Link(grpc::CallbackServerContext* context, v1::Welcome welcome, Admit admit, Closed closed);
  void receive(v1::WorkerMessage message);
  void greet(v1::Hello hello);
  void lose(const std::string& why);  // mutex_ is held
  // Starts the next write, or ends the call when nothing is left to write and the end is wanted. Not under mutex_: gRPC may run
  // reactions of this object before StartWrite returns.
  void pump();

  grpc::CallbackServerContext* const context_;  // valid until OnDone
  const v1::Welcome welcome_;
  const Admit admit_;
  const Closed closed_;
  const std::string address_;
  std::shared_ptr<Link> self_;
  v1::WorkerMessage incoming_;
  v1::CoordinatorMessage outgoing_;
  v1::Hello hello_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::CoordinatorMessage> outbox_;
  std::deque<v1::StepResult> inbox_;
  absl::Status lost_;        // OK while the link lives
  Clock::time_point heard_;  // last message
  std::vector<RankProgress> progress_;
  uint64_t last_submitted_ = 0;  // steps
  uint64_t last_received_ = 0;
  bool greeted_ = false;  // a Hello came
  bool admitted_ = false;
  bool leaving_ = false;  // Shutdown was sent: the end of the stream is no loss
  bool writing_ = false;
  bool end_wanted_ = false;
  bool finished_ = false;  // Finish was called
  bool done_ = false;      // gRPC let go
};

}  // namespace invar::rpc
