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

// Each thread starts on its own share of the items, in ascending order, so that neighbouring items (and the memory behind them)
// are one thread's, call after call; then it helps the others. The unclaimed items of a share are counted down in `left`. A
// thread that wins an item knows that the job is still alive, since run() returns only after every won item is done; so
// `function` and `count` may be read after winning, and a worker that is late for a job either helps the next one or finds
// nothing. No worker has to wake for a job to end.
struct ThreadPool::State {
  struct alignas(64) Share {
    std::atomic<int64_t> left{0};
  };

  explicit State(int count_of_threads) : threads(count_of_threads), shares(count_of_threads) {}

  const int threads;
  std::vector<Share> shares;
  const std::function<void(int64_t)>* function = nullptr;
  int64_t count = 0;
  alignas(64) std::atomic<int64_t> undone{0};
  std::atomic<uint32_t> finished{0};             // number of the last finished job; the caller sleeps on it
  alignas(64) std::atomic<uint32_t> started{0};  // number of the last started job; workers sleep on it
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  std::vector<std::thread> workers;

  int64_t share_begin(int share) const { return count * share / threads; }

  void start(int64_t n, const std::function<void(int64_t)>* f) {
    function = f;
    count = n;
    undone.store(n, std::memory_order_relaxed);
    for (int i = 0; i < threads; ++i) shares[i].left.store(share_begin(i + 1) - share_begin(i), std::memory_order_release);
    started.fetch_add(1, std::memory_order_seq_cst);
    started.notify_all();
  }

  void help(int thread) {
    int64_t done = 0;
    for (int i = 0; i < threads; ++i) {
      const int share = (thread + i) % threads;
      std::atomic<int64_t>& left = shares[share].left;
      while (left.load(std::memory_order_relaxed) > 0) {
        const int64_t mine = left.fetch_sub(1, std::memory_order_acq_rel);
        if (mine <= 0) break;
        try {
          (*function)(share_begin(share + 1) - mine);
        } catch (...) {
          const std::lock_guard lock(error_mutex);
          if (!error) error = std::current_exception();
        }
        ++done;
      }
    }
    if (done && undone.fetch_sub(done, std::memory_order_acq_rel) == done) {
      finished.fetch_add(1, std::memory_order_release);
      finished.notify_all();
    }
  }

  void work(int thread) {
    inside_run = true;
    uint32_t seen = 0;
    while (!stop.load(std::memory_order_acquire)) {
      const auto news = [&] { return started.load(std::memory_order_acquire) != seen; };
      if (!watch(news)) started.wait(seen, std::memory_order_acquire);  // run() and the destructor raise `started`, then notify
      seen = started.load(std::memory_order_acquire);
      help(thread);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(threads < 1 ? 1 : threads)) {
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get(), i] { state->work(i); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->started.fetch_add(1, std::memory_order_release);
  state_->started.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::run(int64_t n, const std::function<void(int64_t)>& f) {
  if (n <= 0) return;
  State& s = *state_;
  if (n == 1 || s.workers.empty() || inside_run) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  const uint32_t before = s.finished.load(std::memory_order_relaxed);
  s.start(n, &f);
  inside_run = true;
  s.help(0);
  inside_run = false;
  const auto done = [&] { return s.finished.load(std::memory_order_acquire) != before; };
  while (!watch(done)) s.finished.wait(before, std::memory_order_acquire);  // the thread that does the last item notifies
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}  // namespace invar
