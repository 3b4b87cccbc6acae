// Values of a tile leave a warp: 16 rows, `kCount` values a thread, from acc[kFirst] on. Row `row` is the warp's first one,
// column `column` that of the first value.
#pragma once

#include <type_traits>

#include "kernels/linear/cuda/tensor_core_prefill_tile.cuh"

namespace invar::cuda::tc::prefill {

template <int kSize>
__device__ void add_bias(const PrefillTask& task, float (&acc)[kSize], int column, int slabs) {
  const int lane = threadIdx.x % 32, values = kSize / slabs;
#pragma unroll
  for (int i = 0; i < kSize; i += 4) {
    const int n = column + i % values / 4 * 8 + lane % 4 * 2;
    const float b0 = numerics::widen(n < task.outputs ? task.bias[n] : Bf16{0});
    const float b1 = numerics::widen(n + 1 < task.outputs ? task.bias[n + 1] : Bf16{0});
    acc[i] = numerics::add(acc[i], b0);
    acc[i + 1] = numerics::add(acc[i + 1], b1);
    acc[i + 2] = numerics::add(acc[i + 2], b0);
    acc[i + 3] = numerics::add(acc[i + 3], b1);
  }
}

// Slab kSlab of the warpgroup's rows; the warp's boxes are free.
template <class T, int kSlab, int kSize, class Meanwhile = Nothing>
__device__ void write_slab(const PrefillTask& task, const CUtensorMap* y_map, const float (&acc)[kSize], int row, int row_end,
                           int column, uint32_t staging, const Meanwhile& meanwhile = {}) {
  constexpr int kFirst = kSlab * T::kSlabValues, kCount = T::kSlabValues;
  if (task.boxes && (!task.ragged || row + 16 <= row_end)) {
    const auto send = [&](auto fp32, auto boxes) {  // boxes: of a slab
      constexpr int kOfSlab = decltype(boxes)::value;
      constexpr int kHalf = T::kNarrow ? T::kBoxes : T::kBoxes / 2;  // two groups, or one where there are three boxes
      constexpr int kGroup = kOfSlab * T::kSlabs <= T::kBoxes ? kOfSlab : kHalf;
      static_assert(kOfSlab % kGroup == 0);
      send_boxes<decltype(fp32)::value, T::kBoxLine, kGroup, T::kBoxes / kGroup, kSlab * kOfSlab / kGroup, kFirst, kCount>(
          task, y_map, acc, row, column, staging, meanwhile);
    };
    if (task.y) {
      send(std::false_type(), std::integral_constant<int, kCount / (T::kBoxLine / 4)>());
    } else {
      send(std::true_type(), std::integral_constant<int, kCount / (T::kBoxLine / 8)>());
    }
  } else if (task.y) {
    write_bf16<T::kBoxLine, kFirst, kCount>(task, acc, row, row_end, column, staging);
  } else {
    write_fp32<kFirst, kCount>(task, acc, row, row_end, column);
  }
}

}  // namespace invar::cuda::tc::prefill
