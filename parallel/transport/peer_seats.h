// Where ranks that want peer memory sit, and which of them may have a GPU together.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace invar::parallel {

// One rank's, as the ranks tell each other.
struct PeerSeat {
  char host[256] = {};
  char gpu[16] = {};  // UUID
  int64_t pid = 0;
  int32_t index = 0;  // of the GPU among those that its process sees
  int32_t reserved = 0;
  const void* owner = nullptr;  // something of the rank's own, in its process

  bool same_host(const PeerSeat& other) const { return std::string_view(host) == other.host; }
  bool same_process(const PeerSeat& other) const { return same_host(other) && pid == other.pid; }
  bool same_gpu(const PeerSeat& other) const {
    return same_host(other) && std::string_view(gpu, sizeof gpu) == std::string_view(other.gpu, sizeof gpu);
  }
};

enum class SharedGpus { kRefused, kTaken };

// Whether any two ranks have a GPU together.
bool gpus_are_shared(std::span<const PeerSeat> seats);
// What stands against a group's ranks waiting for each other on their GPUs, as far as it is a matter of who sits where: with
// kRefused, any GPU of two ranks. Else two processes on one GPU: their kernels take turns, and one that waits for the other would
// spin through its turn. And a GPU that two of `members` have together with a rank of another group: while the first one's kernel
// waits for the second one's, the third may stand in a call that waits for the GPU's work (cudaFree) and lets nobody launch.
absl::Status check_shared_gpus(std::span<const PeerSeat> seats, const std::vector<int>& members, SharedGpus shared);
// The owner of the first rank of this process on `rank`'s GPU: the same for all that have it together.
const void* first_on_gpu(std::span<const PeerSeat> seats, int rank);

}  // namespace invar::parallel
