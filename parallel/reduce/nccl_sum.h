// ncclAllReduce as it likes, for benches only: the rival of TreeAllReduce. Its order of additions is its own, and moves with
// ranks, sizes and NCCL's version.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "parallel/transport/group.h"

namespace invar::parallel {

class NcclSum {
 public:
  // Collective over the group, a GPU each. FailedPrecondition where there is no NCCL, on all ranks. It has summed before it is
  // returned, so that its connections are there: calls can be recorded.
  static absl::StatusOr<std::unique_ptr<NcclSum>> start(const Device& device, const Group& group);
  ~NcclSum();

  // Queued on the device's stream.
  void sum(const float* from, float* to, int64_t count) const;
  void sum(const Bf16* from, Bf16* to, int64_t count) const;

 private:
  struct Communicator;
  NcclSum(const Device& device, std::unique_ptr<Communicator> communicator);

  const Device& device_;
  std::unique_ptr<Communicator> communicator_;
};

}  // namespace invar::parallel
