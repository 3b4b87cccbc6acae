#include "rpc/http/request_id.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace invar::http {

std::string new_request_id() {
  thread_local std::mt19937_64 random([] {
    std::random_device device;
    return (uint64_t{device()} << 32) ^ device();
  }());
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad16), absl::Hex(random(), absl::kZeroPad16));
}

std::string request_id_of(const Request& request) {
  const std::string* given = request.header("x-request-id");
  if (given == nullptr || given->empty() || given->size() > 128) return new_request_id();
  const bool plain =
      std::all_of(given->begin(), given->end(), [](char c) { return c > ' ' && c < 127 && c != '"' && c != '\\'; });
  return plain ? *given : new_request_id();
}

}  // namespace invar::http
