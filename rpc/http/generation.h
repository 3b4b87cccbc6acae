// Between the engine's callbacks and whoever writes the answer: the prompts of one HTTP request, their news merged while they
// wait.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "rpc/server/request_metrics.h"
#include "runtime/engine/engine.h"

namespace invar::http {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct News {
    std::vector<std::pair<uint32_t, v1::GenerateResponse>> responses;  // by prompt, at most one each
    std::optional<absl::Status> ended;                                 // nothing follows
  };

  // `stream`: news are taken as they come; more than `most_bytes` of them while the reader is busy ends the request. Otherwise
  // they are taken once, at the end, and `most_bytes` bounds the whole answer. `changed` is called from the engine's thread when
  // there is something to take that was not there before.
  // Each of `requests` has an id.
  Generation(const std::shared_ptr<Engine>& engine, std::vector<v1::GenerateRequest> requests, bool stream, int64_t most_bytes,
             std::shared_ptr<rpc::RequestMetrics> metrics, std::function<void()> changed);

  // Once. On error none of the requests runs on.
  absl::Status submit();
  News take();
  // The reader is writing what it took last: what comes now counts as waiting for a slow reader.
  void reader_busy(bool busy);
  // Ends what still runs; changed() is not called any more.
  void cancel(const absl::Status& why);

 private:
  void take_response(uint32_t prompt, const absl::Status& status, const v1::GenerateResponse* response);
  void abort_all();

  const bool stream_;
  const int64_t most_bytes_;
  const std::shared_ptr<rpc::RequestMetrics> metrics_;
  const std::function<void()> changed_;

  const std::weak_ptr<Engine> engine_;  // weak: the engine holds this by its callbacks
  const std::vector<v1::GenerateRequest> requests_;

  std::mutex mutex_;
  size_t submitted_ = 0;  // the first of them run; others may have an id that is somebody else's
  std::vector<std::optional<v1::GenerateResponse>> waiting_;
  size_t unfinished_ = 0;
  int64_t bytes_ = 0;
  bool busy_ = false;
  bool notified_ = false;
  std::optional<absl::Status> ended_;
};

}  // namespace invar::http
