#include "kernels/rows/rows.h"

#include <cstring>

#include "kernels/lanes/row_split.h"
#include "kernels/rows/cuda/rows.h"

namespace invar {

void gather_rows(const Device& device, const MoveRows& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::gather_rows(device, p);
  split_rows(device.pool(), p.count, p.row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (p.index[i] >= 0)
        std::memcpy(static_cast<std::byte*>(p.to) + i * p.to_stride,
                    static_cast<const std::byte*>(p.from) + p.index[i] * p.from_stride, static_cast<size_t>(p.row_bytes));
  });
}

void scatter_rows(const Device& device, const MoveRows& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::scatter_rows(device, p);
  split_rows(device.pool(), p.count, p.row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (p.index[i] >= 0)
        std::memcpy(static_cast<std::byte*>(p.to) + p.index[i] * p.to_stride,
                    static_cast<const std::byte*>(p.from) + i * p.from_stride, static_cast<size_t>(p.row_bytes));
  });
}

void join_shards(const Device& device, const JoinShards& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::join_shards(device, p);
  int64_t width = 0;
  for (const int64_t w : p.widths) width += w;
  split_rows(device.pool(), p.rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* to = p.y + r * width;
      for (size_t s = 0; s < p.shards.size(); ++s) {
        if (p.widths[s]) std::memcpy(to, p.shards[s] + r * p.widths[s], static_cast<size_t>(p.widths[s]) * sizeof(float));
        to += p.widths[s];
      }
    }
  });
}

}  // namespace invar
