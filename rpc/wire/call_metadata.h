// What a call's metadata says about who calls.
#pragma once

#include <grpcpp/server_context.h>

#include "absl/status/status.h"
#include "rpc/wire/api_keys.h"

namespace invar::rpc {

// OK when `keys` asks for none, or the call brings one of them as "authorization: Bearer KEY"; else Unauthenticated.
absl::Status authorize(const ApiKeys& keys, const grpc::ServerContextBase& context);

}  // namespace invar::rpc
