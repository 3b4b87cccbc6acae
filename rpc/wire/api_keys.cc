#include "rpc/wire/api_keys.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "runtime/receipt/sha256.h"

namespace invar::rpc {
namespace {

std::array<uint8_t, 32> digest_of(std::string_view key) {
  receipt::Sha256 hash;
  return hash.text("api key").text(key).finish();
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest_of(key));
}

int ApiKeys::find(std::string_view key) const {
  const std::array<uint8_t, 32> given = digest_of(key);
  int found = -1;
  for (size_t k = 0; k < digests_.size(); ++k) {
    uint8_t difference = 0;
    for (size_t i = 0; i < given.size(); ++i) difference |= digests_[k][i] ^ given[i];
    if (difference == 0) found = static_cast<int>(k);
  }
  return found;
}

int ApiKeys::find_bearer(std::string_view authorization) const {
  const absl::string_view value = absl::StripAsciiWhitespace(absl::string_view(authorization.data(), authorization.size()));
  if (!absl::StartsWithIgnoreCase(value, "bearer ")) return -1;
  const absl::string_view key = absl::StripAsciiWhitespace(value.substr(7));
  return find({key.data(), key.size()});
}

absl::Status ApiKeys::check(std::optional<std::string_view> authorization) const {
  if (!required()) return absl::OkStatus();
  if (!authorization.has_value())
    return absl::UnauthenticatedError("authorization: this server wants an API key (\"authorization: Bearer KEY\")");
  const absl::string_view value = absl::StripAsciiWhitespace(absl::string_view(authorization->data(), authorization->size()));
  if (!absl::StartsWithIgnoreCase(value, "bearer "))
    return absl::UnauthenticatedError("authorization: not of the form \"Bearer KEY\"");
  const absl::string_view key = absl::StripAsciiWhitespace(value.substr(7));
  if (!knows({key.data(), key.size()})) return absl::UnauthenticatedError("authorization: the API key is not known");
  return absl::OkStatus();
}

}  // namespace invar::rpc
