// Why no connection came about: gRPC says "failed to connect to all addresses" for a wrong certificate, a plain port and nobody
// there alike. Asked after a failure, for its message only; nothing is sent over the connection that is made here.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "rpc/tls/tls_files.h"

namespace invar::rpc {

// Does anybody take a TCP connection at "host:port"? Unavailable says what the system says: an unknown name, refused, no route;
// DeadlineExceeded: silence.
absl::Status reach(const std::string& address, std::chrono::milliseconds wait);

// `address`: "host:port" or "[v6]:port"; others give an empty answer. `tls`: what the caller dials with; absent = plain text.
// `flag_prefix`: of the caller's flags for the message, "--tls-" or "--worker-ssl-". Empty when nothing is found wrong.
std::string explain_failure(const std::string& address, const std::optional<ClientTls>& tls, std::chrono::milliseconds wait,
                            const std::string& flag_prefix);

}  // namespace invar::rpc
