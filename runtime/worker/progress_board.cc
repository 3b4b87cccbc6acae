#include "runtime/worker/progress_board.h"

namespace invar {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// One writer: no read-modify-write is needed. Release, so that who sees an end sees what began before.
void add_one(std::atomic<uint64_t>& counter) { counter.store(counter.load(kRelaxed) + 1, std::memory_order_release); }

class WatchedTransport final : public parallel::Transport {
 public:
  WatchedTransport(parallel::Transport& inner, ProgressBoard& board) : inner_(inner), board_(board) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& host() const override { return inner_.host(); }
  int local_rank() const override { return inner_.local_rank(); }
  int local_size() const override { return inner_.local_size(); }
  void exchange(std::span<const parallel::Send> sends, std::span<const parallel::Receive> receives,
                const parallel::Phase& phase) override {
    board_.exchange_begins(phase.name, phase.collective);
    inner_.exchange(sends, receives, phase);
    board_.exchange_ends();
  }
  // What lies below is watched already, if it is not this very transport.
  Transport& host_memory() override {
    Transport& host = inner_.host_memory();
    return &host == &inner_ ? *this : host;
  }
  void send_message(int peer, int tag, std::span<const std::byte> bytes) override { inner_.send_message(peer, tag, bytes); }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override {
    return inner_.try_receive_message(peer, tag, out, wait);
  }
  void interrupt() override { inner_.interrupt(); }
  void abort(int exit_code) override { inner_.abort(exit_code); }
  void finalize() override { inner_.finalize(); }

 private:
  parallel::Transport& inner_;
  ProgressBoard& board_;
};

}  // namespace

void ProgressBoard::moved() { moved_.store(Clock::now().time_since_epoch().count(), kRelaxed); }

void ProgressBoard::restart() {
  for (auto* counter : {&steps_begun_, &steps_finished_, &collectives_begun_, &collectives_finished_, &collective_})
    counter->store(0, kRelaxed);
  phase_.store("", kRelaxed);
  waiting_.store(false, kRelaxed);
  moved();
  step_ended_.store(moved_.load(kRelaxed), kRelaxed);
}

void ProgressBoard::step_begins() {
  add_one(steps_begun_);
  moved();
}

void ProgressBoard::step_ends() {
  add_one(steps_finished_);
  moved();
  step_ended_.store(moved_.load(kRelaxed), kRelaxed);
}

void ProgressBoard::exchange_begins(const char* phase, uint64_t collective) {
  collective_.store(collective, kRelaxed);
  phase_.store(phase, kRelaxed);
  waiting_.store(true, kRelaxed);
  moved();
  add_one(collectives_begun_);
}

void ProgressBoard::exchange_ends() {
  waiting_.store(false, kRelaxed);
  moved();
  add_one(collectives_finished_);
}

void ProgressBoard::wait_begins(const char* phase) {
  collective_.store(0, kRelaxed);
  phase_.store(phase, kRelaxed);
  waiting_.store(true, kRelaxed);
  moved();
}

void ProgressBoard::wait_ends() {
  waiting_.store(false, kRelaxed);
  moved();
}

RankProgress ProgressBoard::read() const {
  RankProgress p;
  p.rank = rank_;
  p.host = host_;
  p.group = group_;
  // Ends before begins: never does something seem to have ended that has not begun.
  p.steps_finished = steps_finished_.load(std::memory_order_acquire);
  p.steps_begun = steps_begun_.load(kRelaxed);
  p.collectives_finished = collectives_finished_.load(std::memory_order_acquire);
  p.collectives_begun = collectives_begun_.load(kRelaxed);
  p.phase = phase_.load(kRelaxed);
  p.collective = collective_.load(kRelaxed);
  p.waiting = waiting_.load(kRelaxed);
  p.heard = Clock::now();
  p.moved = Clock::time_point(Clock::duration(moved_.load(kRelaxed)));
  p.step_ended = Clock::time_point(Clock::duration(step_ended_.load(kRelaxed)));
  return p;
}

std::unique_ptr<parallel::Transport> watched(parallel::Transport& inner, ProgressBoard& board) {
  return std::make_unique<WatchedTransport>(inner, board);
}

}  // namespace invar
