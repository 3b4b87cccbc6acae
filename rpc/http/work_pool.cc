#include "rpc/http/work_pool.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

namespace invar::http {

WorkPool::WorkPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

void WorkPool::post(std::string request_id, std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    queue_.push_back({std::move(request_id), std::move(work)});
  }
  changed_.notify_one();
}

void WorkPool::stop() {
  std::deque<Work> dropped;  // destroyed outside the mutex: an exchange may answer in its destructor
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
  pthread_setname_np(pthread_self(), "invar-http-work");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    auto [request_id, work] = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    try {
      work();
    } catch (const std::exception& e) {  // memory, or a bug: the exchange answers 500 when it is dropped
      spdlog::error("http request_id={}: dropped: {}", request_id, e.what());
    }
    work = nullptr;
    lock.lock();
  }
}

}  // namespace invar::http
