#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/device/device.h"

namespace invar {

namespace {

using Clock = std::chrono::steady_clock;

// A waiting thread first watches for this long, then sleeps in the kernel. Between two operators of a layer the gap is a few
// microseconds, a wake-up costs more than that; but several ranks share the cores, so watching gives way to anybody who wants
// to run and is short.
constexpr auto kWatch = std::chrono::microseconds(20);
constexpr int kPausesBetweenLooks = 64;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// True when `done()` came true while watching.
template <class Done>
bool watch(const Done& done) {
  for (int i = 0; i < kPausesBetweenLooks; ++i) {
    if (done()) return true;
    pause();
  }
  const auto end = Clock::now() + kWatch;
  do {
    for (int i = 0; i < kPausesBetweenLooks; ++i) {
      if (done()) return true;
      pause();
    }
    std::this_thread::yield();
  } while (Clock::now() < end);
  return done();
}

thread_local bool inside_run = false;  // a nested run works serially on its thread

}  // namespace

// The unclaimed items of the current job are counted down in `left`. A thread that wins an item knows that the job is still
// alive, since run() returns only after every won item is done; so `function` and `count` may be read after winning, and a
// worker that is late for a job either helps the next one or finds nothing. No worker has to wake for a job to end.
struct ThreadPool::State {
  const std::function<void(int64_t)>* function = nullptr;
  int64_t count = 0;
  alignas(64) std::atomic<int64_t> left{0};
  alignas(64) std::atomic<int64_t> undone{0};
  std::atomic<uint32_t> finished{0};  // number of the last finished job; the caller sleeps on it
  alignas(64) std::atomic<uint32_t> started{0};  // number of the last started job; workers sleep on it
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  std::vector<std::thread> workers;

  void help() {
    int64_t done = 0;
    while (left.load(std::memory_order_relaxed) > 0) {
      const int64_t mine = left.fetch_sub(1, std::memory_order_acq_rel);
      if (mine <= 0) break;
      try {
        (*function)(count - mine);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
      ++done;
    }
    if (done && undone.fetch_sub(done, std::memory_order_acq_rel) == done) {
      finished.fetch_add(1, std::memory_order_release);
      finished.notify_all();
    }
  }

  void work() {
    inside_run = true;
    uint32_t seen = 0;
    while (!stop.load(std::memory_order_acquire)) {
      const auto news = [&] { return started.load(std::memory_order_acquire) != seen; };
      if (!watch(news)) started.wait(seen, std::memory_order_acquire);  // run() and the destructor raise `started`, then notify
      seen = started.load(std::memory_order_acquire);
      help();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->work(); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->started.fetch_add(1, std::memory_order_release);
  state_->started.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t n, const std::function<void(int64_t)>& f) {
  if (n <= 0) return;
  State& s = *state_;
  if (n == 1 || s.workers.empty() || inside_run) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  s.function = &f;
  s.count = n;
  s.undone.store(n, std::memory_order_relaxed);
  const uint32_t before = s.finished.load(std::memory_order_relaxed);
  s.left.store(n, std::memory_order_release);
  s.started.fetch_add(1, std::memory_order_seq_cst);
  s.started.notify_all();
  inside_run = true;
  s.help();
  inside_run = false;
  const auto done = [&] { return s.finished.load(std::memory_order_acquire) != before; };
  while (!watch(done)) s.finished.wait(before, std::memory_order_acquire);  // the thread that does the last item notifies
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}  // namespace invar
