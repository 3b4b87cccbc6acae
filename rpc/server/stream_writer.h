// The thread that starts writes for streams with something to say. Starting a write serialises the message and may enter the
// kernel; done in the engine's callback it would be paid between two steps, once a stream.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace invar::rpc {

class GenerateStream;

// Of each stream.
struct StreamOptions {
  int64_t max_buffered_bytes = 1 << 20;  // answer that waits for a slow reader
  bool access_log = true;                // one line a call
};

class StreamWriter {
 public:
  StreamWriter();
  // Ends the thread. Streams hold the writer, so its destructor may run on any thread, its own too: whoever made it stops it.
  void stop();
  // `stream`->pump() is called soon, from the writer's thread. Never blocks. After stop() nothing happens.
  void push(std::shared_ptr<GenerateStream> stream);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<GenerateStream>> ready_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace invar::rpc
