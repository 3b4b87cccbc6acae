#include "parallel/transport/transport.h"

namespace invar::parallel {

absl::StatusOr<std::unique_ptr<Transport>> start_nccl(Transport&, const Device&, const TransportOptions&) {
  return absl::UnimplementedError("--exchange nccl: this build has no NCCL");
}

}  // namespace invar::parallel
