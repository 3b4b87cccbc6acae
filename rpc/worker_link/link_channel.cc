#include "rpc/worker_link/link_channel.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "rpc/proto/worker_link.grpc.pb.h"
#include "rpc/tls/tls_probe.h"
#include "rpc/wire/channel_args.h"
#include "rpc/wire/credentials.h"
#include "rpc/wire/listen.h"
#include "rpc/wire/status.h"

namespace invar::rpc {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kMaxMessage = 512 << 20;
constexpr std::chrono::milliseconds kFirstBackoff{100}, kLongestBackoff{2000}, kProbe{2000};

}  // namespace

// One reader thread, one writer thread, one stream.
class LinkChannel::Impl {
 public:
  Impl(std::string address, v1::WorkerLink::Stub& stub) : address_(std::move(address)), stream_(stub.Join(&context_)) {}

  ~Impl() {
    context_.TryCancel();
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
      outbox_.clear();
      changed_.notify_all();
    }
    if (writer_.joinable()) writer_.join();
    if (reader_.joinable()) reader_.join();
  }

  // Says hello; the answer is Welcome, or why not.
  absl::Status greet(const v1::Hello& hello, Clock::time_point until) {
    *outbox_.emplace_back().mutable_hello() = hello;
    reader_ = std::thread([this] { read(); });
    writer_ = std::thread([this] { write(); });
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [&] { return welcome_ || !lost_.ok(); });
    if (welcome_) return absl::OkStatus();
    return lost_.ok() ? absl::DeadlineExceededError(absl::StrCat("coordinator ", address_, ": no answer to Hello")) : lost_;
  }

  absl::StatusOr<std::optional<v1::StepPlan>> next(std::chrono::milliseconds wait) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, wait, [&] { return !inbox_.empty() || !lost_.ok(); });
    if (!inbox_.empty()) {
      std::optional<v1::StepPlan> plan = std::move(inbox_.front());
      inbox_.pop_front();
      return plan;
    }
    if (!lost_.ok()) return lost_;
    return std::optional<v1::StepPlan>();
  }

  void post(const v1::StepResult& result) {
    std::lock_guard lock(mutex_);
    if (!lost_.ok() || closing_) return;
    *outbox_.emplace_back().mutable_step_result() = result;
    last_step_ = result.step();
    changed_.notify_all();
  }

  absl::Status close(std::chrono::milliseconds wait) {
    std::unique_lock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
    if (!changed_.wait_for(lock, wait, [&] { return reader_done_; })) {
      return absl::DeadlineExceededError(
          absl::StrCat("coordinator ", address_, ": the link did not close within ", wait.count(), " ms"));
    }
    return goodbye_;
  }

 private:
  void read() {
    v1::CoordinatorMessage message;
    while (stream_->Read(&message)) {
      std::lock_guard lock(mutex_);
      switch (message.kind_case()) {
        case v1::CoordinatorMessage::kWelcome:
          heartbeat_ = std::chrono::milliseconds(std::clamp<uint32_t>(message.welcome().heartbeat_ms(), 10, 60000));
          welcome_ = true;
          break;
        case v1::CoordinatorMessage::kRefused:
          lost_ = absl::FailedPreconditionError(absl::StrCat("coordinator ", address_, " refused: ", message.refused().reason()));
          break;
        case v1::CoordinatorMessage::kStepPlan:
          last_plan_ = message.step_plan().step();
          inbox_.push_back(std::move(*message.mutable_step_plan()));
          break;
        case v1::CoordinatorMessage::kShutdown: {
          v1::StepPlan& plan = inbox_.emplace_back();
          plan.set_step(last_plan_ + 1);
          plan.set_shutdown(true);
          break;
        }
        case v1::CoordinatorMessage::KIND_NOT_SET:
          break;
      }
      changed_.notify_all();
      message.Clear();
    }
    {  // The writer must be out of the stream before Finish.
      std::unique_lock lock(mutex_);
      ended_ = true;
      changed_.notify_all();
      changed_.wait(lock, [&] { return writer_done_; });
    }
    const grpc::Status status = stream_->Finish();
    std::lock_guard lock(mutex_);
    goodbye_ = from_grpc(status, absl::StrCat("coordinator ", address_));
    if (lost_.ok())
      lost_ = goodbye_.ok() ? absl::UnavailableError(absl::StrCat("coordinator ", address_, ": closed the link")) : goodbye_;
    reader_done_ = true;
    changed_.notify_all();
  }

  // False when the stream is gone; the reader learns why.
  bool send_front(std::unique_lock<std::mutex>& lock) {
    const v1::WorkerMessage message = std::move(outbox_.front());
    outbox_.pop_front();
    lock.unlock();
    const bool ok = stream_->Write(message);
    lock.lock();
    return ok;
  }

  void write() {
    std::unique_lock lock(mutex_);
    bool ok = !outbox_.empty() && send_front(lock);  // Hello; nothing else may be said before it is answered
    changed_.wait(lock, [&] { return welcome_ || ended_ || closing_; });
    for (auto sent = Clock::now(); ok; sent = Clock::now()) {
      const bool idle = !changed_.wait_until(lock, sent + heartbeat_, [&] { return ended_ || closing_ || !outbox_.empty(); });
      if (idle) outbox_.emplace_back().mutable_heartbeat()->set_last_step(last_step_);
      if (ended_ || outbox_.empty()) break;  // empty: closing, and everything is sent
      ok = send_front(lock);
    }
    const bool half_close = !ended_ && closing_ && outbox_.empty();
    lock.unlock();
    if (half_close) stream_->WritesDone();
    lock.lock();
    writer_done_ = true;
    changed_.notify_all();
  }

  const std::string address_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  std::thread reader_, writer_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::WorkerMessage> outbox_;
  std::deque<v1::StepPlan> inbox_;
  absl::Status lost_, goodbye_;
  std::chrono::milliseconds heartbeat_{2000};
  uint64_t last_plan_ = 0, last_step_ = 0;
  bool welcome_ = false;
  bool closing_ = false;  // no more posts; the writer ends when all is sent
  bool ended_ = false;    // nothing more can be read
  bool writer_done_ = false, reader_done_ = false;
};

LinkChannel::LinkChannel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LinkChannel::~LinkChannel() = default;

absl::StatusOr<std::unique_ptr<LinkChannel>> LinkChannel::connect(const LinkOptions& options, const v1::Hello& hello) {
  if (absl::Status status = check_address(options.coordinator, "coordinator address"); !status.ok()) return status;
  const Clock::time_point until = Clock::now() + options.wait;
  const std::string& address = options.coordinator;
  if (options.tls.has_value())
    if (absl::Status status = check_mutual(options.tls->own); !status.ok()) return status;
  grpc::ChannelArguments args = client_args(options.dead_after, kMaxMessage);
  const auto credentials = channel_credentials(options.tls, args);
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(address, credentials, args);
  const std::unique_ptr<v1::WorkerLink::Stub> stub = v1::WorkerLink::NewStub(channel);
  if (options.progress) options.progress(absl::StrCat("waiting for coordinator ", address));
  absl::Status last = absl::UnavailableError("nobody answers");
  for (auto backoff = kFirstBackoff;; backoff = std::min(2 * backoff, kLongestBackoff)) {
    const auto left = until - Clock::now();
    if (left <= Clock::duration::zero()) break;
    auto impl = std::make_unique<Impl>(address, *stub);
    const absl::Status status = impl->greet(hello, until);
    if (status.ok()) return std::unique_ptr<LinkChannel>(new LinkChannel(std::move(impl)));
    if (absl::IsUnimplemented(status)) {
      return absl::FailedPreconditionError(
          absl::StrCat("coordinator ", address, ": no worker link at this address, perhaps the public service's"));
    }
    // Unavailable: not up yet, or gone before it answered. Anything else will not mend itself.
    if (!absl::IsUnavailable(status)) return status;
    // Certificates and the use of TLS do not mend themselves either.
    const std::string why = explain_failure(address, options.tls, kProbe, "--worker-ssl-");
    if (!why.empty()) return absl::FailedPreconditionError(absl::StrCat("coordinator ", address, ": ", why));
    last = status;
    std::this_thread::sleep_for(std::min<Clock::duration>(backoff, std::max(Clock::duration::zero(), until - Clock::now())));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("coordinator ", address, ": not there within ", options.wait.count(), " ms; last answer: ", last.message()));
}

absl::StatusOr<std::optional<v1::StepPlan>> LinkChannel::next(std::chrono::milliseconds wait) { return impl_->next(wait); }
void LinkChannel::post(const v1::StepResult& result) { impl_->post(result); }
absl::Status LinkChannel::close(std::chrono::milliseconds wait) { return impl_->close(wait); }

}  // namespace invar::rpc
