#include "rpc/http/key_limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "rpc/http/error_body.h"

namespace invar::http {

KeyLimits::KeyLimits(size_t keys, int requests)
    : requests_(requests), running_(std::make_shared<std::vector<std::atomic<int>>>(std::max<size_t>(1, keys))) {}

absl::StatusOr<std::shared_ptr<void>> KeyLimits::begin(int key) {
  if (requests_ == 0) return std::shared_ptr<void>();
  std::atomic<int>& running = (*running_)[static_cast<size_t>(key)];
  if (running.fetch_add(1) >= requests_) {
    --running;
    return with_details(absl::ResourceExhaustedError(absl::StrCat(
                            "this key has ", requests_, " requests running, as many as it may (--max-requests-per-key)")),
                        429, "rate_limit_exceeded");
  }
  return std::shared_ptr<void>(&running, [all = running_](void* count) { --*static_cast<std::atomic<int>*>(count); });
}

}  // namespace invar::http
