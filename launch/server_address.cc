#include "launch/server_address.h"

#include "absl/strings/str_cat.h"
#include "launch/help_group.h"

namespace invar::launch {

std::string grpc_socket_beside(const std::string& uds) { return absl::StrCat(uds, ".grpc"); }

std::string ServerAddress::grpc() const {
  if (!grpc_uds.empty()) return absl::StrCat("unix:", grpc_uds);
  if (!uds.empty()) return absl::StrCat("unix:", grpc_socket_beside(uds));
  return server;
}

void add_flags(CLI::App& app, ServerAddress& address, const std::string& server_help) {
  const HelpGroup group(app, "Server");
  CLI::Option* server = app.add_option("--server,-s", address.server, server_help)->option_text("HOST:PORT");
  CLI::Option* uds = app.add_option("--uds", address.uds, "a server with this --uds")->option_text("PATH");
  CLI::Option* grpc_uds = app.add_option("--grpc-uds", address.grpc_uds, "a server with this --grpc-uds")->option_text("PATH");
  uds->excludes(server)->excludes(grpc_uds);
  grpc_uds->excludes(server);
}

}  // namespace invar::launch
