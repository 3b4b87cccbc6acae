// For tests: a rank that stalls where it is told to, until it is let go.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "parallel/transport/transport.h"
#include "runtime/model/tags.h"

namespace invar {

struct Stall {
  int rank = 0;
  uint64_t after_exchange = 0;  // its peers are through with this one and go on; 0 = never
  uint64_t before_plan = 0;     // the follower has taken the message and does nothing; 0 = never
  std::mutex mutex;
  std::condition_variable changed;
  bool released = false;

  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return released; });
  }
  void release() {
    const std::lock_guard lock(mutex);
    released = true;
    changed.notify_all();
  }
};

class StallingTransport final : public parallel::Transport {
 public:
  StallingTransport(std::unique_ptr<parallel::Transport> inner, std::shared_ptr<Stall> stall)
      : inner_(std::move(inner)), stall_(std::move(stall)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& host() const override { return inner_->host(); }
  int local_rank() const override { return inner_->local_rank(); }
  int local_size() const override { return inner_->local_size(); }
  void exchange(std::span<const parallel::Send> sends, std::span<const parallel::Receive> receives,
                const parallel::Phase& phase) override {
    inner_->exchange(sends, receives, phase);
    if (rank() == stall_->rank && ++exchanges_ == stall_->after_exchange) stall_->wait();
  }
  void send_message(int peer, int tag, std::span<const std::byte> bytes) override { inner_->send_message(peer, tag, bytes); }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override {
    if (!inner_->try_receive_message(peer, tag, out, wait)) return false;
    if (rank() == stall_->rank && tag == kPlanTag && ++plans_ == stall_->before_plan) stall_->wait();
    return true;
  }
  void interrupt() override { inner_->interrupt(); }
  void abort(int exit_code) override { inner_->abort(exit_code); }
  void finalize() override { inner_->finalize(); }

 private:
  const std::unique_ptr<parallel::Transport> inner_;
  const std::shared_ptr<Stall> stall_;
  uint64_t exchanges_ = 0, plans_ = 0;
};

inline std::unique_ptr<parallel::Transport> stalling(std::unique_ptr<parallel::Transport> inner, std::shared_ptr<Stall> stall) {
  return std::make_unique<StallingTransport>(std::move(inner), std::move(stall));
}

}  // namespace invar
