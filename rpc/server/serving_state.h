// What is served at the moment, shared by the gRPC service, its streams and health thread, and the HTTP service.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/proto/invar.pb.h"
#include "rpc/server/request_metrics.h"
#include "runtime/engine/engine.h"

namespace invar::rpc {

class ServingState {
 public:
  void set_progress(std::string what);  // of loading
  void serve(std::shared_ptr<Engine> engine, v1::ServerInfo info);
  std::shared_ptr<Engine> withdraw(std::string why);  // back to loading; the engine, if there was one
  std::shared_ptr<Engine> begin_drain();              // the same; new requests are refused from now on

  // For new requests. Unavailable while loading ("...: waiting for replica 1 of 2") and draining.
  absl::StatusOr<std::shared_ptr<Engine>> engine() const;
  std::shared_ptr<Engine> loaded_engine() const;  // draining or not; null while loading
  v1::ServerState state() const;
  v1::ServerInfo info() const;

  void stream_opened() { open_streams_.fetch_add(1); }
  void stream_closed() { open_streams_.fetch_sub(1); }
  int64_t open_streams() const { return open_streams_.load(); }
  const std::shared_ptr<RequestMetrics>& metrics() const { return metrics_; }

 private:
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  const std::shared_ptr<RequestMetrics> metrics_ = std::make_shared<RequestMetrics>();
  std::atomic<int64_t> open_streams_{0};

  mutable std::mutex mutex_;
  std::shared_ptr<Engine> engine_;
  v1::ServerInfo info_;
  std::string progress_ = "starting";
  bool draining_ = false;
};

}  // namespace invar::rpc
