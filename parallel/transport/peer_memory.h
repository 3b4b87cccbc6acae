// PeerMemory: a window of GPU memory of each rank of a group that the others write into over NVLink, and the waits of the device
// on what they write (kernels/peer). Nothing is added here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "kernels/peer/peer.h"
#include "parallel/transport/group.h"
#include "parallel/transport/peer_seats.h"

namespace invar::parallel {

// Bytes of the areas that depend on the model; the rest is fixed.
struct PeerSizes {
  size_t values = 1 << 20;    // what one scattered all-reduce brings a rank; larger ones go in several
  size_t results = 1 << 20;   // its bf16 result
  size_t arrivals = 1 << 20;  // values that linears write themselves, of all ranks; larger ones go the other way
  size_t whole = 0;           // joined logits rows, on the first member
};
// Bytes of a window with these areas.
size_t peer_window_bytes(const PeerSizes& sizes);

// One rank's end. The group's ranks are threads of one process with a GPU each or sharing one, or processes of one host with a
// GPU each.
class PeerMemory {
 public:
  // Collective over all of inner's ranks, each with the list of its own group; the same verdict on each. FailedPrecondition says
  // which rank lacks what: another host, no peer access, a GPU of its own (check_shared_gpus). Throws PeerFailure.
  // `inner` and `device` outlive it.
  static absl::StatusOr<std::unique_ptr<PeerMemory>> open(Transport& inner, const Device& device, const std::vector<int>& members,
                                                          const PeerSizes& sizes, const TransportOptions& options = {},
                                                          SharedGpus shared = SharedGpus::kTaken);
  ~PeerMemory();  // tells no peer; ends its own device's waits first

  // The window outlives this object and is lost to the process: after a failure peers' kernels may still write there, and a write
  // to memory that is gone breaks their GPU for all who use it.
  void keep_window();

  const PeerView& view() const { return view_; }
  // Work between these can be recorded (Device::record). Not where ranks share a GPU: there they meet on the host before each
  // operation and wait for its end, since whatever else a rank asks of the GPU meanwhile (memory, say) may wait for a kernel that
  // waits for a peer, who may be waiting for this.
  bool recordable() const { return !view_.crowded; }
  // Queues an operation of kernels/peer. A peer that does not come is noticed while the device is waited for (PeerFailure), after
  // the transport's timeout.
  void run(const std::function<void()>& queue);

  // The first member's joined rows; null on the others.
  float* whole() const;
  size_t whole_bytes() const { return view_.rank == 0 ? view_.layout.whole_bytes : 0; }

 private:
  struct Mapping;
  PeerMemory(Transport& inner, const Device& device, const std::vector<int>& members, const TransportOptions& options);
  absl::Status connect(const PeerSizes& sizes, SharedGpus shared);
  absl::Status try_connect(const PeerSizes& sizes, SharedGpus shared);
  absl::Status agree(const absl::Status& mine);  // of all of inner's ranks
  void watch(double waited);
  void stop();

  Transport& inner_;
  const Device& device_;
  std::vector<int> members_;
  TransportOptions options_;
  Group hosts_;
  PeerView view_;
  Buffer record_;
  std::unique_ptr<Mapping> mapping_;
  Device::Monitor monitor_;
  double asked_ = 0;
};

}  // namespace invar::parallel
