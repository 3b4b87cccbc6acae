// An HTTP/1.1 server: listening, connections, TLS, limits and deadlines. It knows no path; a Handler does.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/http/exchange.h"
#include "rpc/tls/tls_files.h"

namespace invar::http {

struct ServerOptions {
  std::vector<std::string> listen = {"127.0.0.1:8000"};  // "host:port", "[v6]:port", "unix:/path"; port 0 = any free one
  std::optional<rpc::ServerTls> tls;                     // absent = plain HTTP
  int64_t max_request_bytes = 4 << 20;                   // of a body; larger ones are 413, unread where the length was announced
  int64_t max_header_bytes = 32 << 10;                   // 431
  int64_t max_bodies_bytes = 256 << 20;                  // of all bodies being received; beyond it 503
  int max_connections = 8192;                            // more are told 503 and closed
  int io_threads = 1;                                    // connections do not need more of them, cores do
  std::chrono::milliseconds header_timeout{30'000};  // from the first byte of a request (or the handshake) to the end of its head
  std::chrono::milliseconds body_timeout{120'000};   // from there to the end of the body
  std::chrono::milliseconds idle_timeout{75'000};    // between two requests
  std::chrono::milliseconds write_timeout{30'000};   // for what was handed to the kernel at once (256 KiB at most)
  bool access_log = true;
};

class Server {
 public:
  // InvalidArgument: an address, a limit or TLS material; Unavailable: an address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Server>> start(const ServerOptions& options, Handler handler);
  ~Server();  // shutdown() without waiting

  const std::vector<std::string>& addresses() const;  // as clients dial them, with the ports chosen
  int connections() const;
  // No new connections, idle ones are closed; answers under way have `wait`. The second call does nothing.
  void shutdown(std::chrono::milliseconds wait);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::http
