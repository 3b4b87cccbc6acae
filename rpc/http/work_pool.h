// The threads that read bodies, render templates, tokenise and write whole answers: work too long for the threads that serve
// connections.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace invar::http {

class WorkPool {
 public:
  explicit WorkPool(int threads);
  ~WorkPool() { stop(); }
  // Never blocks. Nothing happens after stop(). The queue is bounded by the connections: each has one request at a time.
  // `request_id` is for the log, should the work fail.
  void post(std::string request_id, std::function<void()> work);
  // Waits for the work under way; what has not begun is dropped.
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  struct Work {
    std::string request_id;
    std::function<void()> work;
  };
  std::deque<Work> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace invar::http
