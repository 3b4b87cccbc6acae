// Where worker groups join the coordinator: a gRPC server of its own (not the public one: whoever may ask for completions may not
// pose as a replica), which checks each leader's Hello and turns replicas into executors.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/grid/grid.h"
#include "rpc/proto/ranks.pb.h"
#include "rpc/tls/tls_files.h"
#include "rpc/worker_link/admission.h"
#include "runtime/engine/executor.h"

namespace invar::rpc {

struct WorkerGateOptions {
  std::string listen = "127.0.0.1:0";  // "host:port" (0 = any free port), "[v6]:port" or "unix:/path"
  parallel::Layout layout;             // dp replicas are waited for
  // Both ends show a certificate that the other's ca_certificates signed; absent = plain text, anybody.
  std::optional<TlsMaterial> tls;
  // Empty = taken from the first replica that joins; the others must equal it.
  std::string build_id, numerics_id, model_digest;
  std::chrono::milliseconds heartbeat{2000};
  // A worker group of which nothing is heard for so long is lost; at least 3 heartbeats.
  std::chrono::milliseconds link_timeout{10000};
  std::chrono::milliseconds hello_timeout{5000};  // from the connection to its Hello
  std::chrono::milliseconds report_period{1000};  // how often each rank says how far it is
  // Called for each worker refused because it would compute other bits, or has other files; from any thread. May be null.
  std::function<void(Mismatch)> mismatched;
};

class WorkerGate {
 public:
  // InvalidArgument: listen address, layout, times or half a TLS setting; Unavailable: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<WorkerGate>> start(const WorkerGateOptions& options);
  ~WorkerGate();  // stops listening and cuts the links of executors still held

  const std::string& address() const;  // as workers dial it, with the port chosen

  // Waits until every replica has joined and hands out one executor each, in the order of replica indices. `progress` (may be
  // null) is called from this thread with what is waited for, whenever that changes: "waiting for replica 1 of 2", and with every
  // refusal. DeadlineExceeded names the missing replicas and the last refusal. When the executors handed out are gone or lost,
  // their indices can be joined again, and wait() called again for a whole new set.
  absl::StatusOr<std::vector<std::unique_ptr<Executor>>> wait(std::chrono::milliseconds wait,
                                                              const std::function<void(const std::string&)>& progress);
  // Makes wait() return `why` at once, now or when it is called: the ranks this coordinator started are gone. From any thread.
  void interrupt(const absl::Status& why);
  // Who has joined and lives.
  std::vector<v1::ReplicaInfo> replicas() const;

 private:
  class Impl;
  explicit WorkerGate(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::rpc
