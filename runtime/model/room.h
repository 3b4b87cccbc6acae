// Room for n elements in a buffer that is kept from step to step; contents are lost when it grows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

template <class T>
T* room(const Device& device, Buffer& buffer, int64_t n) {
  const size_t bytes = static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T);
  if (buffer.size() < bytes) buffer = Buffer(device, bytes);
  return buffer.as<T>();
}

}  // namespace invar
