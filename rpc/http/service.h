// The HTTP service: a server and the paths it serves.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/http/api.h"
#include "rpc/http/server.h"
#include "rpc/server/serving_state.h"

namespace invar::http {

class Service {
 public:
  // `state` says what is served; it is shared with the gRPC server (rpc::Server::state()), whose shutdown() drains both.
  static absl::StatusOr<std::unique_ptr<Service>> start(const ServerOptions& server, ApiOptions api,
                                                        std::shared_ptr<rpc::ServingState> state);
  ~Service() { shutdown(std::chrono::milliseconds(0)); }

  const std::vector<std::string>& addresses() const { return server_->addresses(); }
  int connections() const { return server_->connections(); }
  // After the drain: answers under way have `wait`, then connections are cut.
  void shutdown(std::chrono::milliseconds wait);

 private:
  Service(ApiOptions api, std::shared_ptr<rpc::ServingState> state) : api_(std::move(api), std::move(state)) {}

  Api api_;
  std::unique_ptr<Server> server_;
};

}  // namespace invar::http
