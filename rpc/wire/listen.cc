#include "rpc/wire/listen.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace invar::rpc {
namespace {

bool somebody_listens(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  // EAGAIN: its backlog is full, so it lives.
  const bool answered = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
  close(fd);
  return answered;
}

}  // namespace

absl::Status check_address(const std::string& address, const char* what) {
  const auto bad = [&](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat(what, " \"", address, "\": ", why, " (host:port, [v6]:port or unix:/path)"));
  };
  if (absl::StartsWith(address, "unix:")) {
    if (address.size() == 5) return bad("no path");
    if (address.size() > 5 + 107) return bad("a socket's path has at most 107 bytes");
    return absl::OkStatus();
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad("not of the form");
  const std::string host = address.substr(0, colon);
  if (host.find(':') != std::string::npos && (host.front() != '[' || host.back() != ']'))
    return bad("an IPv6 host needs brackets");
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) return bad("the port is not 0 .. 65535");
  return absl::OkStatus();
}

absl::Status make_way(const std::string& address) {
  if (!absl::StartsWith(address, "unix:")) return absl::OkStatus();
  const std::string path = address.substr(5);
  const auto taken = [&](const char* why) { return absl::UnavailableError(absl::StrCat("listen address ", address, ": ", why)); };
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0) return absl::OkStatus();
  if (!S_ISSOCK(file.st_mode)) return taken("a file is there that is no socket");
  if (somebody_listens(path)) return taken("in use, a server answers there");
  unlink(path.c_str());
  return absl::OkStatus();
}

absl::StatusOr<Listening> listen(grpc::ServerBuilder& builder, const std::vector<std::string>& addresses,
                                 std::shared_ptr<grpc::ServerCredentials> credentials) {
  if (addresses.empty()) return absl::InvalidArgumentError("listen address: none given");
  Listening out;
  out.ports.assign(addresses.size(), 0);
  // With SO_REUSEPORT (gRPC's default) a second server on the same port would silently take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (absl::Status status = check_address(addresses[i], "listen address"); !status.ok()) return status;
    if (absl::Status status = make_way(addresses[i]); !status.ok()) return status;
    builder.AddListeningPort(addresses[i], credentials, &out.ports[i]);
  }
  out.server = builder.BuildAndStart();
  std::vector<std::string> unbound;
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (out.ports[i] == 0) unbound.push_back(addresses[i]);
  }
  if (out.server == nullptr || !unbound.empty()) {
    if (out.server != nullptr) out.server->Shutdown();
    return absl::UnavailableError(absl::StrCat("listen address ", absl::StrJoin(unbound.empty() ? addresses : unbound, ", "),
                                               ": cannot be bound (in use, not an address of this host, or not permitted)"));
  }
  for (size_t i = 0; i < addresses.size(); ++i) {
    const bool unix_socket = absl::StartsWith(addresses[i], "unix:");
    out.addresses.push_back(unix_socket ? addresses[i]
                                        : absl::StrCat(addresses[i].substr(0, addresses[i].rfind(':') + 1), out.ports[i]));
  }
  return out;
}

}  // namespace invar::rpc
