#include "rpc/server/stream_writer.h"

#include <pthread.h>

#include "rpc/server/generate_stream.h"

namespace invar::rpc {

StreamWriter::StreamWriter() : thread_([this] { run(); }) {}

void StreamWriter::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  ready_.clear();
}

void StreamWriter::push(std::shared_ptr<GenerateStream> stream) {
  std::lock_guard lock(mutex_);
  if (stop_) return;
  ready_.push_back(std::move(stream));
  if (ready_.size() == 1) changed_.notify_one();
}

void StreamWriter::run() {
  pthread_setname_np(pthread_self(), "invar-grpc");
  std::vector<std::shared_ptr<GenerateStream>> streams;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait(lock, [&] { return stop_ || !ready_.empty(); });
    streams.swap(ready_);
    lock.unlock();
    for (const std::shared_ptr<GenerateStream>& stream : streams) stream->pump();
    streams.clear();
    lock.lock();
  }
}

}  // namespace invar::rpc
