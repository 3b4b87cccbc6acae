#include "rpc/worker_link/worker_gate.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rpc/proto/worker_link.grpc.pb.h"
#include "rpc/wire/channel_args.h"
#include "rpc/wire/credentials.h"
#include "rpc/wire/listen.h"
#include "rpc/wire/status.h"
#include "rpc/worker_link/admission.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/link.h"
#include "rpc/worker_link/rank_state.h"
#include "rpc/worker_link/remote_executor.h"

namespace invar::rpc {
namespace {
// A plan carries whole prompts (at most max_num_seqs of them), a result the log-probabilities of a step's tokens.
constexpr int64_t kMaxMessage = 512 << 20;
constexpr std::chrono::milliseconds kGoodbye{2000};
}  // namespace

class WorkerGate::Impl final : public v1::WorkerLink::CallbackService {
 public:
  explicit Impl(const WorkerGateOptions& options)
      : options_(options), slots_(static_cast<size_t>(std::clamp(options.layout.dp, 0, 65536))) {}
  ~Impl() override { close(); }

  absl::Status open();
  void close();
  absl::StatusOr<std::vector<std::unique_ptr<Executor>>> wait(std::chrono::milliseconds wait,
                                                              const std::function<void(const std::string&)>& progress);
  void interrupt(const absl::Status& why);
  std::vector<v1::ReplicaInfo> replicas() const;
  const std::string& address() const { return listening_.addresses[0]; }

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Join(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Report(grpc::CallbackServerContext* context, const v1::RankState* state,
                                   v1::RankStateTaken* taken) override;

 private:
  struct Slot {
    std::shared_ptr<Link> link;  // the last one admitted
    bool taken = false;          // handed out as an executor
  };

  absl::Status admit(const std::shared_ptr<Link>& link);
  void closed(const std::shared_ptr<Link>& link);
  void sweep();
  std::string missing() const;  // mutex_ is held; empty = all are there

  const WorkerGateOptions options_;
  Listening listening_;
  std::thread sweeper_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::set<std::shared_ptr<Link>> open_;  // every stream, admitted or not
  std::vector<std::string> news_;         // for the progress of wait()
  std::string last_refusal_;
  absl::Status interrupted_;
  bool closing_ = false;
};

absl::Status WorkerGate::Impl::open() {
  const parallel::Layout& layout = options_.layout;
  for (const auto& [field, value] : {std::pair{"tp", layout.tp}, {"pp", layout.pp}, {"ep", layout.ep}, {"dp", layout.dp}}) {
    if (value < 1 || value > 65536)
      return absl::InvalidArgumentError(absl::StrCat("layout: ", field, " ", value, " is not 1 .. 65536"));
  }
  if (options_.heartbeat.count() < 1 || options_.link_timeout < 3 * options_.heartbeat) {
    return absl::InvalidArgumentError(absl::StrCat("link_timeout ", options_.link_timeout.count(),
                                                   " ms is less than three heartbeats of ", options_.heartbeat.count(), " ms"));
  }
  grpc::ServerBuilder builder;
  set_server_args(builder, options_.link_timeout, kMaxMessage);
  builder.RegisterService(this);
  std::optional<ServerTls> tls;
  if (options_.tls.has_value()) {
    if (absl::Status s = check_mutual(*options_.tls); !s.ok()) return s;
    tls = ServerTls{*options_.tls, ClientCertificate::kRequired};
  }
  absl::StatusOr<Listening> listening = listen(builder, {options_.listen}, server_credentials(tls));
  if (!listening.ok()) return listening.status();
  listening_ = *std::move(listening);
  sweeper_ = std::thread([this] { sweep(); });
  return absl::OkStatus();
}

void WorkerGate::Impl::close() {
  if (listening_.server == nullptr) return;
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    for (const std::shared_ptr<Link>& link : open_) link->cancel("the coordinator is closing");
    changed_.notify_all();
  }
  sweeper_.join();
  listening_.server->Shutdown(std::chrono::system_clock::now() + kGoodbye);
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kGoodbye, [&] { return open_.empty(); });
  lock.unlock();
  listening_.server.reset();
}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* WorkerGate::Impl::Join(grpc::CallbackServerContext* context) {
  v1::Welcome welcome;
  welcome.set_heartbeat_ms(static_cast<uint32_t>(options_.heartbeat.count()));
  welcome.set_build_id(options_.build_id);
  // mutex_ is held while the stream opens, so that its first reaction finds it in open_.
  std::lock_guard lock(mutex_);
  std::shared_ptr<Link> link = Link::open(
      context, std::move(welcome), [this](const std::shared_ptr<Link>& l) { return admit(l); },
      [this](const std::shared_ptr<Link>& l) { closed(l); });
  open_.insert(link);
  return link.get();
}

absl::Status WorkerGate::Impl::admit(const std::shared_ptr<Link>& link) {
  std::lock_guard lock(mutex_);
  Expected expected{options_.layout, options_.build_id, options_.numerics_id, options_.model_digest};
  for (const Slot& slot : slots_) {
    if (slot.link == nullptr || !slot.link->alive()) continue;
    const v1::RankInfo& leader = slot.link->hello().ranks(0);
    if (expected.build_id.empty()) expected.build_id = leader.build_id();
    if (expected.numerics_id.empty()) expected.numerics_id = leader.numerics_id();
    if (expected.model_digest.empty()) expected.model_digest = leader.model_digest();
  }
  Mismatch mismatch = Mismatch::kNone;
  absl::Status status =
      closing_ ? absl::UnavailableError("the coordinator is closing") : check_hello(link->hello(), expected, &mismatch);
  if (mismatch != Mismatch::kNone && options_.mismatched) options_.mismatched(mismatch);
  if (status.ok()) {
    Slot& slot = slots_[link->hello().replica()];
    if (slot.link != nullptr && slot.link->alive()) {
      status = absl::FailedPreconditionError(absl::StrCat(link->name(), ": already joined by ", slot.link->name()));
    } else {
      slot = {link, false};
      spdlog::info("{} joined: {}", link->name(), layout_name(link->hello().layout()));
    }
  }
  if (!status.ok()) {
    last_refusal_ = std::string(status.message());
    news_.push_back(absl::StrCat("refused ", link->address(), ": ", last_refusal_));
    spdlog::warn("refused {}: {}", link->address(), last_refusal_);
  }
  changed_.notify_all();
  return status;
}

grpc::ServerUnaryReactor* WorkerGate::Impl::Report(grpc::CallbackServerContext* context, const v1::RankState* state,
                                                   v1::RankStateTaken* taken) {
  std::shared_ptr<Link> link;
  {
    std::lock_guard lock(mutex_);
    if (state->replica() < slots_.size()) link = slots_[state->replica()].link;
  }
  taken->set_next_ms(static_cast<uint32_t>(options_.report_period.count()));
  const absl::Status status = link != nullptr && link->alive()
                                  ? link->report(to_progress(*state))
                                  : absl::NotFoundError(absl::StrCat("replica ", state->replica(), " has not joined"));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(to_grpc(status));
  return reactor;
}

void WorkerGate::Impl::closed(const std::shared_ptr<Link>& link) {
  std::lock_guard lock(mutex_);
  open_.erase(link);
  changed_.notify_all();
}

void WorkerGate::Impl::sweep() {
  const auto period = std::clamp<std::chrono::milliseconds>(options_.link_timeout / 20, std::chrono::milliseconds(10),
                                                            std::chrono::milliseconds(500));
  auto last = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const std::vector<std::shared_ptr<Link>> links(open_.begin(), open_.end());
    lock.unlock();
    const auto now = std::chrono::steady_clock::now();
    const bool overslept = now - last > period + options_.link_timeout / 4;  // stopped, or starved by others on this machine
    last = now;
    for (const std::shared_ptr<Link>& link : links) {
      if (overslept) link->excuse();
      link->check(options_.hello_timeout, options_.link_timeout);
    }
    lock.lock();
    changed_.wait_for(lock, period, [&] { return closing_; });
  }
}

std::string WorkerGate::Impl::missing() const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].link == nullptr || slots_[i].taken || !slots_[i].link->alive()) indices.push_back(i);
  }
  if (indices.empty()) return "";
  return absl::StrCat(indices.size() == 1 ? "replica " : "replicas ", absl::StrJoin(indices, ", "), " of ", slots_.size());
}

absl::StatusOr<std::vector<std::unique_ptr<Executor>>> WorkerGate::Impl::wait(
    std::chrono::milliseconds wait, const std::function<void(const std::string&)>& progress) {
  const auto until = std::chrono::steady_clock::now() + wait;
  std::string told;
  std::unique_lock lock(mutex_);
  news_.clear();
  for (;;) {
    if (!interrupted_.ok()) return std::exchange(interrupted_, absl::OkStatus());
    const std::string waiting_for = missing();
    if (waiting_for.empty()) break;
    std::vector<std::string> lines = std::exchange(news_, {});
    if (waiting_for != told) lines.push_back(absl::StrCat("waiting for ", told = waiting_for));
    if (!lines.empty() && progress != nullptr) {
      lock.unlock();
      for (const std::string& line : lines) progress(line);
      lock.lock();
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now >= until) {
      std::string message = absl::StrCat(waiting_for, " did not join at ", address(), " within ", wait.count(), " ms");
      if (!last_refusal_.empty()) absl::StrAppend(&message, "; last refused: ", last_refusal_);
      return absl::DeadlineExceededError(message);
    }
    // A joined link that is lost again does not always wake this: look at least four times a second.
    changed_.wait_until(lock, std::min(until, now + std::chrono::milliseconds(250)));
  }
  std::vector<std::unique_ptr<Executor>> executors;
  for (Slot& slot : slots_) {
    slot.taken = true;
    executors.push_back(std::make_unique<RemoteExecutor>(slot.link));
  }
  return executors;
}

void WorkerGate::Impl::interrupt(const absl::Status& why) {
  std::lock_guard lock(mutex_);
  interrupted_ = why;
  changed_.notify_all();
}

std::vector<v1::ReplicaInfo> WorkerGate::Impl::replicas() const {
  std::lock_guard lock(mutex_);
  std::vector<v1::ReplicaInfo> infos;
  for (const Slot& slot : slots_) {
    if (slot.link != nullptr && slot.link->alive()) infos.push_back(to_info(slot.link->hello(), slot.link->address()));
  }
  return infos;
}

WorkerGate::WorkerGate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WorkerGate::~WorkerGate() = default;

absl::StatusOr<std::unique_ptr<WorkerGate>> WorkerGate::start(const WorkerGateOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (absl::Status status = impl->open(); !status.ok()) return status;
  return std::unique_ptr<WorkerGate>(new WorkerGate(std::move(impl)));
}

const std::string& WorkerGate::address() const { return impl_->address(); }

absl::StatusOr<std::vector<std::unique_ptr<Executor>>> WorkerGate::wait(std::chrono::milliseconds wait,
                                                                        const std::function<void(const std::string&)>& progress) {
  return impl_->wait(wait, progress);
}

void WorkerGate::interrupt(const absl::Status& why) { impl_->interrupt(why); }
std::vector<v1::ReplicaInfo> WorkerGate::replicas() const { return impl_->replicas(); }

}  // namespace invar::rpc
