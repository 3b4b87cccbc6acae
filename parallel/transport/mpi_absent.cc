// Stands in for mpi_transport.cc in a build without MPI.
#include "parallel/transport/transport.h"

namespace invar::parallel {

absl::StatusOr<std::unique_ptr<Transport>> start_mpi(const TransportOptions&) {
  return absl::UnimplementedError(
      "transport = mpi: this build was configured without MPI; use threads, or install MPI and rebuild");
}

}  // namespace invar::parallel
