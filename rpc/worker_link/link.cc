#include "rpc/worker_link/link.h"

#include <grpcpp/server_context.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar::rpc {

std::shared_ptr<Link> Link::open(grpc::CallbackServerContext* context, v1::Welcome welcome, Admit admit, Closed closed) {
  std::shared_ptr<Link> link(new Link(context, std::move(welcome), std::move(admit), std::move(closed)));
  link->self_ = link;
  link->StartRead(&link->incoming_);
  return link;
}

Link::Link(grpc::CallbackServerContext* context, v1::Welcome welcome, Admit admit, Closed closed)
    : context_(context),
      welcome_(std::move(welcome)),
      admit_(std::move(admit)),
      closed_(std::move(closed)),
      address_(context->peer()),
      heard_(Clock::now()) {}

std::string Link::name() const {
  if (hello_.ranks().empty()) return absl::StrCat("worker at ", address_);
  return absl::StrCat("replica ", hello_.replica(), " (rank ", hello_.ranks(0).rank(), " on host ",
                      absl::CHexEscape(hello_.ranks(0).host()), ", ", address_, ")");
}

bool Link::alive() const {
  std::lock_guard lock(mutex_);
  return lost_.ok() && !leaving_ && !done_;
}

absl::Status Link::submit(const v1::StepPlan& plan) {
  {
    std::lock_guard lock(mutex_);
    if (!lost_.ok()) return lost_;
    if (leaving_) return absl::UnavailableError(absl::StrCat(name(), ": was told to leave"));
    *outbox_.emplace_back().mutable_step_plan() = plan;
    last_submitted_ = plan.step();
  }
  pump();
  return absl::OkStatus();
}

absl::StatusOr<v1::StepResult> Link::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [&] { return !inbox_.empty() || !lost_.ok(); });
  if (!inbox_.empty()) {  // results that came before the loss count
    v1::StepResult result = std::move(inbox_.front());
    inbox_.pop_front();
    return result;
  }
  if (!lost_.ok()) return lost_;
  return absl::DeadlineExceededError(
      absl::StrCat(name(), ": no result of step ", last_received_ + 1, " within ", wait.count(), " ms"));
}

void Link::shutdown(std::chrono::milliseconds wait) {
  {
    std::lock_guard lock(mutex_);
    if (done_ || leaving_) return;
    leaving_ = true;
    outbox_.emplace_back().mutable_shutdown();
  }
  pump();
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, wait, [&] { return done_; })) return;
  lock.unlock();
  cancel(absl::StrCat("did not leave within ", wait.count(), " ms"));
}

void Link::cancel(const std::string& why) {
  std::lock_guard lock(mutex_);
  lose(why);
  // Under the mutex: OnDone takes it before gRPC destroys the context.
  if (!done_) context_->TryCancel();
}

void Link::excuse() {
  std::lock_guard lock(mutex_);
  heard_ = Clock::now();
}

absl::Status Link::report(const RankProgress& progress) {
  std::lock_guard lock(mutex_);
  for (RankProgress& mine : progress_) {
    if (mine.rank != progress.rank || mine.host != progress.host) continue;
    const int group = mine.group;
    mine = progress;
    mine.group = group;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("rank ", progress.rank, " on host ", absl::CHexEscape(progress.host),
                                          " is not of replica ", hello_.replica()));
}

std::vector<RankProgress> Link::progress() const {
  std::lock_guard lock(mutex_);
  return progress_;
}

void Link::check(std::chrono::milliseconds hello_timeout, std::chrono::milliseconds link_timeout) {
  std::string why;
  {
    std::lock_guard lock(mutex_);
    if (done_ || !lost_.ok()) return;
    const auto silent = Clock::now() - heard_;
    const auto limit = greeted_ ? link_timeout : hello_timeout;
    if (silent < limit) return;
    why = absl::StrFormat("nothing heard for %.1f s", std::chrono::duration<double>(silent).count());
  }
  cancel(why);
}

void Link::lose(const std::string& why) {
  if (lost_.ok()) lost_ = absl::UnavailableError(absl::StrCat(name(), ": ", why));
  changed_.notify_all();
}

void Link::pump() {
  std::unique_lock lock(mutex_);
  if (writing_ || finished_) return;
  if (!outbox_.empty()) {
    outgoing_ = std::move(outbox_.front());
    outbox_.pop_front();
    writing_ = true;  // until OnWriteDone nobody else writes or finishes
    lock.unlock();
    StartWrite(&outgoing_);
  } else if (end_wanted_) {
    finished_ = true;
    lock.unlock();
    Finish(grpc::Status::OK);
  }
}

void Link::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) {
      lose("connection lost");
      outbox_.clear();
      end_wanted_ = true;
    }
  }
  pump();
}

void Link::OnReadDone(bool ok) {
  if (ok) {
    {
      std::lock_guard lock(mutex_);
      heard_ = Clock::now();
    }
    receive(std::move(incoming_));
  }
  bool ended = false;
  {
    std::lock_guard lock(mutex_);
    if (!ok) {
      lose(leaving_ ? "left" : "the stream ended: its process is gone or the connection is lost");
      outbox_.clear();
      end_wanted_ = true;
    }
    ended = end_wanted_;
  }
  if (!ended) {
    incoming_.Clear();
    StartRead(&incoming_);
  }
  pump();
}

void Link::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    lose("connection lost");
    outbox_.clear();
    end_wanted_ = true;
  }
  pump();
}

void Link::OnDone() {
  {
    std::lock_guard lock(mutex_);
    lose("connection lost");
    done_ = true;
    changed_.notify_all();
  }
  const std::shared_ptr<Link> self = std::move(self_);
  closed_(self);
}

void Link::greet(v1::Hello hello) {
  {
    std::lock_guard lock(mutex_);  // name() reads it from other threads
    hello_ = std::move(hello);
    for (const v1::RankInfo& rank : hello_.ranks()) {
      RankProgress& p = progress_.emplace_back();
      p.rank = static_cast<int>(rank.rank());
      p.host = rank.host();
      p.group = p.rank / static_cast<int>(std::max(1u, hello_.layout().tensor_parallel()));
      p.heard = p.moved = p.step_ended = Clock::now();
    }
  }
  const absl::Status status = admit_(self_);
  std::lock_guard lock(mutex_);
  greeted_ = true;
  v1::CoordinatorMessage& answer = outbox_.emplace_back();
  if (status.ok()) {
    admitted_ = true;
    *answer.mutable_welcome() = welcome_;
  } else {
    answer.mutable_refused()->set_reason(std::string(status.message()));
    lose("refused");
    end_wanted_ = true;
  }
}

void Link::receive(v1::WorkerMessage message) {
  std::string wrong;
  switch (message.kind_case()) {
    case v1::WorkerMessage::kHello:
      if (!greeted_) return greet(std::move(*message.mutable_hello()));
      wrong = "a second Hello";
      break;
    case v1::WorkerMessage::kHeartbeat:
      if (admitted_) return;
      wrong = "a Heartbeat before Hello";
      break;
    case v1::WorkerMessage::kStepResult: {
      std::lock_guard lock(mutex_);
      v1::StepResult& result = *message.mutable_step_result();
      if (admitted_ && !result.failure().empty()) {
        lose(result.failure());
        return;
      }
      // Bounds the inbox too: no more results than plans.
      if (admitted_ && result.step() == last_received_ + 1 && result.step() <= last_submitted_) {
        last_received_ = result.step();
        inbox_.push_back(std::move(result));
        changed_.notify_all();
        return;
      }
      wrong = absl::StrCat("a result of step ", result.step(), ", expected ", last_received_ + 1, " of ", last_submitted_,
                           " planned");
      break;
    }
    case v1::WorkerMessage::KIND_NOT_SET:
      wrong = "a message of no known kind";
      break;
  }
  cancel(absl::StrCat("sent ", wrong));
}

}  // namespace invar::rpc
