// How much one API key may ask at once.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::http {

class KeyLimits {
 public:
  // `keys`: how many there are; without keys everybody is one client. `requests` 0 = no limit.
  KeyLimits(size_t keys, int requests);
  // Counts one more request of this key until the handle is let go. ResourceExhausted at the limit.
  absl::StatusOr<std::shared_ptr<void>> begin(int key);

 private:
  const int requests_;
  const std::shared_ptr<std::vector<std::atomic<int>>> running_;  // handles outlive this
};

}  // namespace invar::http
