#include "rpc/wire/call_metadata.h"

#include <optional>
#include <string_view>

namespace invar::rpc {

absl::Status authorize(const ApiKeys& keys, const grpc::ServerContextBase& context) {
  std::optional<std::string_view> authorization;
  if (const auto found = context.client_metadata().find("authorization"); found != context.client_metadata().end())
    authorization.emplace(found->second.data(), found->second.size());
  return keys.check(authorization);
}

}  // namespace invar::rpc
