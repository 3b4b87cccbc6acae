// Typed memory of a device, filled from and read back to the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/device.h"

namespace invar {

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const Device& device, int64_t size) : buffer_(device, static_cast<size_t>(size) * sizeof(T)), size_(size) {}
  DeviceArray(const Device& device, std::span<const T> values) : DeviceArray(device, static_cast<int64_t>(values.size())) {
    device.upload(buffer_.data(), values.data(), values.size_bytes());
  }
  T* data() const { return buffer_.template as<T>(); }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::vector<T> to_host(const Device& device) const {
    std::vector<T> values(static_cast<size_t>(size_));
    device.download(values.data(), buffer_.data(), values.size() * sizeof(T));
    return values;
  }

 private:
  Buffer buffer_;
  int64_t size_ = 0;
};

}  // namespace invar
