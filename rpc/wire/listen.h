// Starting a gRPC server on addresses.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::rpc {

struct Listening {
  std::unique_ptr<grpc::Server> server;
  std::vector<std::string> addresses;  // as dialled: with the port the system chose where 0 was asked
  std::vector<int> ports;              // 1 for a unix socket
};

// Addresses: "host:port", "[::1]:port", "unix:/path"; port 0 = any free one. InvalidArgument for an address of no such form,
// Unavailable naming the address that could not be bound.
absl::StatusOr<Listening> listen(grpc::ServerBuilder& builder, const std::vector<std::string>& addresses,
                                 std::shared_ptr<grpc::ServerCredentials> credentials);

// InvalidArgument unless `address` has one of the forms above; `what` names it in the message ("listen address").
absl::Status check_address(const std::string& address, const char* what);

// Removes the Unix socket that a dead server left at `address`, without which nothing can be bound there. Unavailable when a
// server answers, whose clients would silently be another server's, or when something else than a socket is there.
absl::Status make_way(const std::string& address);

}  // namespace invar::rpc
