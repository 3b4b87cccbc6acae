// The same moves, checked on any backend: used by the tests of both.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/device_array.h"
#include "kernels/rows/rows.h"

namespace invar {

inline void expect_rows_move(const Device& device) {
  for (const int64_t width : {1, 7, 8, 576, 1000})
    for (const int64_t gap : {0, 3, 8}) {
      constexpr int64_t kFrom = 9;
      const std::vector<int64_t> index = {8, 0, 3, 3, 7};
      const int64_t stride = width + gap;
      std::vector<Bf16> x(kFrom * stride);
      for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i * 31 + 5);
      std::vector<Bf16> y(index.size() * stride, Bf16{0xabcd});
      const DeviceArray<Bf16> from(device, x), to(device, y);
      const DeviceArray<int64_t> at(device, index);
      gather(device, {.rows = at.size(),
                      .width = width,
                      .x = from.data(),
                      .x_stride = stride,
                      .index = at.data(),
                      .y = to.data(),
                      .y_stride = stride});
      const std::vector<Bf16> moved = to.to_host(device);
      for (size_t i = 0; i < index.size(); ++i)
        for (int64_t c = 0; c < stride; ++c)
          ASSERT_EQ(moved[i * stride + c].bits, c < width ? x[index[i] * stride + c].bits : 0xabcd)
              << "row " << i << ", column " << c << ", width " << width << ", gap " << gap;
      const DeviceArray<Bf16> side(device, kFrom * (width + 1));
      copy_rows(device, {.rows = kFrom,
                         .bytes = width * sizeof(Bf16),
                         .from = from.data(),
                         .from_stride = stride * sizeof(Bf16),
                         .to = side.data() + 1,
                         .to_stride = (width + 1) * sizeof(Bf16)});
      const std::vector<Bf16> copied = side.to_host(device);
      for (int64_t r = 0; r < kFrom; ++r)
        for (int64_t c = 0; c <= width; ++c)
          ASSERT_EQ(copied[r * (width + 1) + c].bits, c ? x[r * stride + c - 1].bits : 0) << "row " << r << ", column " << c;
    }
}

}  // namespace invar
