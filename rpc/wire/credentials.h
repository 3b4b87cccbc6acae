// gRPC's credentials of our TLS settings.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "rpc/tls/tls_files.h"

namespace invar::rpc {

// InvalidArgument unless both a certificate with its key and the CA's certificates are there: each end knows the other.
absl::Status check_mutual(const TlsMaterial& tls);

// Absent = plain text.
std::shared_ptr<grpc::ServerCredentials> server_credentials(const std::optional<ServerTls>& tls);
// Adds the expected name to `args` where one is given.
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const std::optional<ClientTls>& tls, grpc::ChannelArguments& args);

}  // namespace invar::rpc
