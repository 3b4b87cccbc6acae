// Where a client of `invar serve` finds its gRPC port: with the server's own flags.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace invar::launch {

// What `serve --uds PATH` leaves for gRPC where nothing else is said: PATH is HTTP's, as in vLLM.
std::string grpc_socket_beside(const std::string& uds);

struct ServerAddress {
  std::string server;  // HOST:PORT
  std::string uds;
  std::string grpc_uds;

  bool given() const { return !server.empty() || !uds.empty() || !grpc_uds.empty(); }
  std::string grpc() const;  // as gRPC dials it
};

void add_flags(CLI::App& app, ServerAddress& address, const std::string& server_help);

}  // namespace invar::launch
