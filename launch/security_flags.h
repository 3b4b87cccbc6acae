// Flags about who may talk to whom: certificates and keys. Files are read and checked here, before anything listens.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/tls/tls_files.h"

namespace invar::launch {

// Of the public ports of `invar serve`, gRPC and HTTP alike; vLLM's names.
struct ServerTlsFlags {
  rpc::TlsFiles files;
  rpc::ClientCertificate cert_reqs = rpc::ClientCertificate::kNone;
};
// Of the worker link, on both of its ends.
struct LinkTlsFlags {
  rpc::TlsFiles files;
  std::string server_name;  // worker only
};
// Of the clients.
struct ClientSecurityFlags {
  bool tls = false;
  rpc::TlsFiles files;
  std::string server_name;
  std::string api_key;
  std::string api_key_file;
};

void add_flags(CLI::App& app, ServerTlsFlags& flags);
void add_flags(CLI::App& app, LinkTlsFlags& flags);
void add_flags(CLI::App& app, ClientSecurityFlags& flags);

// Absent = plain text.
absl::StatusOr<std::optional<rpc::ServerTls>> server_tls(const ServerTlsFlags& flags);
absl::StatusOr<std::optional<rpc::ClientTls>> link_tls(const LinkTlsFlags& flags);
absl::StatusOr<std::optional<rpc::ClientTls>> client_tls(const ClientSecurityFlags& flags);
// Empty = none.
absl::StatusOr<std::string> client_key(const ClientSecurityFlags& flags);
// The same flags again as arguments of `invar worker`, with absolute paths.
std::vector<std::string> worker_arguments(const LinkTlsFlags& flags);

}  // namespace invar::launch
