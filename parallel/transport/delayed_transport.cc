// A transport that wraps another one and makes arrival orders differ from run to run.
#include <algorithm>
#include <random>
#include <thread>

#include "parallel/transport/transport.h"

namespace invar::parallel {
namespace {

class DelayedTransport final : public Transport {
 public:
  DelayedTransport(std::unique_ptr<Transport> inner, const Delays& delays)
      : inner_(std::move(inner)), most_(delays.most), random_(delays.seed * 0x9e3779b97f4a7c15ull + inner_->rank()) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& host() const override { return inner_->host(); }
  int local_rank() const override { return inner_->local_rank(); }
  int local_size() const override { return inner_->local_size(); }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) override {
    wait();
    // Peers in a random order; a stable sort keeps the order of each peer's entries, which is part of their meaning.
    std::vector<Send> shuffled(sends.begin(), sends.end());
    std::vector<uint32_t> place(size());
    for (uint32_t& p : place) p = static_cast<uint32_t>(random_());
    std::stable_sort(shuffled.begin(), shuffled.end(),
                     [&](const Send& a, const Send& b) { return place[a.peer] < place[b.peer]; });
    inner_->exchange(shuffled, receives, phase);
  }
  void send_message(int peer, int tag, std::span<const std::byte> bytes) override {
    wait();
    inner_->send_message(peer, tag, bytes);
  }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override {
    return inner_->try_receive_message(peer, tag, out, wait);
  }
  void interrupt() override { inner_->interrupt(); }
  void abort(int exit_code) override { inner_->abort(exit_code); }
  void finalize() override { inner_->finalize(); }

 private:
  void wait() {
    std::this_thread::sleep_for(std::chrono::microseconds(std::uniform_int_distribution<int64_t>(0, most_.count())(random_)));
  }

  std::unique_ptr<Transport> inner_;
  std::chrono::microseconds most_;
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<Transport> delayed(std::unique_ptr<Transport> inner, const Delays& delays) {
  return std::make_unique<DelayedTransport>(std::move(inner), delays);
}

}  // namespace invar::parallel
