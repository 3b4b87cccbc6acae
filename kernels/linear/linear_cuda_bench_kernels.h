// Kernels of the bench itself.
#pragma once

#include "kernels/device/device.h"

namespace invar::bench {

// Of each multiprocessor i: its cycle counter at stamps[2 i], nanoseconds at stamps[2 i + 1]. Waits for earlier kernels.
void stamp_clocks(const Device& device, uint64_t* stamps);

}  // namespace invar::bench
