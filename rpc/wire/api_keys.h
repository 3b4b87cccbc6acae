// Who may ask: the keys of --api-key, for gRPC (metadata "authorization") and HTTP (the header of that name) alike.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace invar::rpc {

// Keeps digests of the keys, not the keys: neither a log nor a core file shows them. Comparing takes the same time for each key.
class ApiKeys {
 public:
  ApiKeys() = default;  // none: everybody may
  explicit ApiKeys(const std::vector<std::string>& keys);

  bool required() const { return !digests_.empty(); }
  bool knows(std::string_view key) const { return find(key) >= 0; }
  int find(std::string_view key) const;                   // its place in the list, for logs and limits; -1 = not known
  int find_bearer(std::string_view authorization) const;  // the same of a header's value
  // `authorization`: the header's value, "Bearer KEY"; nothing where there is none. Unauthenticated says what is missing or
  // wrong, never the key.
  absl::Status check(std::optional<std::string_view> authorization) const;

 private:
  std::vector<std::array<uint8_t, 32>> digests_;
};

}  // namespace invar::rpc
