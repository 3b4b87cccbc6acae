// The server's certificates as Asio takes them. Internal to this folder.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "rpc/tls/tls_files.h"

namespace invar::http {

// Null for plain HTTP. TLS 1.2 or newer. InvalidArgument for material that rpc::read_tls() would not have let pass.
absl::StatusOr<std::unique_ptr<boost::asio::ssl::context>> make_tls(const std::optional<rpc::ServerTls>& tls);

}  // namespace invar::http
