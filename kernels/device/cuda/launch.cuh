// Launching a kernel on a device's stream.
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/device/cuda/context.h"

namespace invar::cuda {

struct Launch {
  dim3 grid = 1;
  dim3 block = 1;
  size_t shared = 0;       // bytes of dynamic shared memory
  unsigned cluster = 1;    // blocks in x that form a cluster
  bool dependent = false;  // may begin before its predecessor has ended: the kernel waits itself (griddepcontrol.wait) before it
                           // touches anything that another kernel wrote or still reads
};

// Lets `kernel` have so much dynamic shared memory on the device. Never less than before: ranks that share a GPU launch the same
// kernel from threads of their own, and one's smaller limit could come between another's limit and its launch.
inline void allow_shared_memory(const Device& device, const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, size_t> limits;
  const std::lock_guard lock(mutex);
  size_t& limit = limits[{kernel, device.cuda().index}];
  if (bytes <= limit) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  limit = bytes;
}

template <class... Parameters, class... Arguments>
void launch(const Device& device, const Launch& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (shape.shared > 48 * 1024) allow_shared_memory(device, reinterpret_cast<const void*>(kernel), shape.shared);
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  if (shape.dependent) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  config.stream = device.cuda().stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace invar::cuda
