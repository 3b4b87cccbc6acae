#include "rpc/http/work_pool.h"

#include <spdlog/spdlog.h>

namespace invar::http {

WorkPool::WorkPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

void WorkPool::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    queue_.push_back(std::move(work));
  }
  changed_.notify_one();
}

void WorkPool::stop() {
  std::deque<std::function<void()>> dropped;  // destroyed outside the mutex: an exchange may answer in its destructor
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    dropped.swap(queue_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

void WorkPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    try {
      work();
    } catch (const std::exception& e) {  // memory, or a bug: the exchange answers 500 when it is dropped
      spdlog::error("http: a request was dropped: {}", e.what());
    }
    work = nullptr;
    lock.lock();
  }
}

}  // namespace invar::http
