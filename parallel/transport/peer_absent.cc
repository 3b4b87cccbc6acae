// A build without CUDA: there is no memory to share.
#include "parallel/transport/peer_memory.h"

namespace invar::parallel {

struct PeerMemory::Mapping {};

size_t peer_window_bytes(const PeerSizes&) { return 0; }
absl::StatusOr<std::unique_ptr<PeerMemory>> PeerMemory::open(Transport&, const Device&, const std::vector<int>&, const PeerSizes&,
                                                             const TransportOptions&, SharedGpus) {
  return absl::FailedPreconditionError("--exchange peer: this build has no CUDA backend; configure it with -DINVAR_CUDA=ON");
}
PeerMemory::~PeerMemory() = default;
void PeerMemory::keep_window() {}
void PeerMemory::run(const std::function<void()>& queue) { queue(); }
float* PeerMemory::whole() const { return nullptr; }

}  // namespace invar::parallel
