// The public gRPC server: invar.v1.Invar, vllm.grpc.engine.VllmEngine for gateways, grpc.health.v1 and reflection. It listens
// before the model is loaded, so that health and GetServerInfo answer from the first moment.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/proto/invar.pb.h"
#include "rpc/tls/tls_files.h"
#include "runtime/engine/engine.h"

namespace invar::rpc {

class ServingState;

struct ServerOptions {
  std::vector<std::string> listen = {"127.0.0.1:50051"};  // "host:port" (0 = any free port), "[v6]:port" or "unix:/path"
  int64_t max_request_bytes = 4 << 20;                    // a larger message is refused before it is read (RESOURCE_EXHAUSTED)
  int64_t max_buffered_bytes = 1 << 20;                   // answer waiting for one slow client; beyond it its request is ended
  bool access_log = true;                                 // one line a Generate call, with its request id
  std::chrono::milliseconds health_period{100};           // how often the engine is asked
  std::optional<ServerTls> tls;                           // absent = plain text
  std::vector<std::string> api_keys;                      // every call but health and reflection needs one; none = open to all
};

class Server {
 public:
  // InvalidArgument: address or limits; Unavailable: an address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Server>> start(const ServerOptions& options);
  ~Server();  // shutdown() without waiting for running requests

  const std::vector<std::string>& addresses() const;  // as clients dial them, with the ports chosen

  // For other protocols over the same engine: what shutdown() drains is theirs too (ServingState::stream_opened).
  const std::shared_ptr<ServingState>& state() const;

  // What is being waited for before serve(); shown by GetServerInfo and in the UNAVAILABLE answers of the meantime.
  void set_progress(const std::string& what);
  // From now on requests go to `engine`. `info` carries what the engine does not know: build_id, model_name, layout, replicas,
  // config; the rest is filled in.
  void serve(std::shared_ptr<Engine> engine, v1::ServerInfo info);
  // Back to loading, e.g. after a worker group was lost. Running requests go on as far as the engine takes them; the caller's
  // reference to it becomes the last one as soon as calls under way have returned.
  void withdraw(const std::string& why);
  // NOT_SERVING at once and no new requests; running ones have `wait` to finish, the rest are cancelled. Then the ports are
  // closed. True when all had finished. The second call does nothing.
  bool shutdown(std::chrono::milliseconds wait);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::rpc
