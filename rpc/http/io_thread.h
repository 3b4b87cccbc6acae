// A thread that runs connections. A connection lives on one of them, so nothing of it needs a lock.
#pragma once

#include <pthread.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

namespace invar::http {

class Connection;

class IoThread {
 public:
  IoThread()
      : work_(context.get_executor()), thread_([this] {
          pthread_setname_np(pthread_self(), "invar-http-io");
          context.run();
        }) {}
  ~IoThread() { stop(); }
  void stop() {
    context.stop();
    if (thread_.joinable()) thread_.join();
  }
  // `connection`->pump() soon. From any thread, never blocks. One turn of the loop serves all that were pushed since the last: a
  // step of the engine wakes hundreds of streams, and a post each would cost more than the streams.
  void push(std::shared_ptr<Connection> connection);

  boost::asio::io_context context{1};
  std::unordered_set<Connection*> connections;  // open ones; only from this thread

 private:
  void drain();

  std::mutex mutex_;
  std::vector<std::shared_ptr<Connection>> ready_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace invar::http
