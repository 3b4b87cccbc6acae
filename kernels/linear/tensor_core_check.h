// Start-up check that a chip's tensor cores follow the rule of the contract (numerics.h, tensor_core_step).
#pragma once

#include "absl/status/status.h"
#include "kernels/device/device.h"

namespace invar {

// Linears of a few sizes over ordinary and hostile values on the device against the scalar reference, bit for bit. Takes some
// milliseconds. Ok at once for the portable profile and for a CPU. FailedPrecondition names the device and the first difference.
absl::Status check_tensor_cores(const Device& device);

}  // namespace invar
