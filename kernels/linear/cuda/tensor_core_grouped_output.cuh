// Values of a tile leave a warp: 16 rows, `kCount` values a thread, from acc[kFirst] on. Row `row` is the warp's first one,
// column `column` that of the first value.
#pragma once

#include <type_traits>

#include "kernels/linear/cuda/tensor_core_grouped_tile.cuh"

namespace invar::cuda::tc::grouped {

// The warp's rows; its boxes are free. A box of 16 rows that are not all the group's would write over the next one's.
template <class T, class Value, int kSize>
__device__ void write_tile(const GroupedTask& task, const CUtensorMap* y_map, const Value (&acc)[kSize], int row, int row_end,
                           int column, uint32_t staging) {
  constexpr bool kWords = kValuesOf<Value> == 2;  // of bf16 outputs
  constexpr int kCount = kSize * kValuesOf<Value>;
  if (task.boxes && row + 16 <= row_end) {
    const auto send = [&](auto fp32, auto boxes) {  // boxes: of the tile
      constexpr int kAll = decltype(boxes)::value;
      constexpr int kHalf = T::kNarrow ? T::kBoxes : T::kBoxes / 2;  // two groups, or one where there are three boxes
      constexpr int kGroup = kAll <= T::kBoxes ? kAll : kHalf;
      static_assert(kAll % kGroup == 0);
      send_boxes<decltype(fp32)::value, T::kBoxLine, kGroup, T::kBoxes / kGroup, 0, 0, kCount>(task, y_map, acc, row, column,
                                                                                               staging);
    };
    if (kWords || task.y) {
      send(std::false_type(), std::integral_constant<int, kCount / (T::kBoxLine / 4)>());
    } else if constexpr (!kWords) {
      send(std::true_type(), std::integral_constant<int, kCount / (T::kBoxLine / 8)>());
    }
  } else if (kWords || task.y) {
    write_bf16<T::kBoxLine, 0, kCount>(task, acc, row, row_end, column, staging);
  } else if constexpr (!kWords) {
    write_fp32<0, kCount>(task, acc, row, row_end, column);
  }
}

}  // namespace invar::cuda::tc::grouped
