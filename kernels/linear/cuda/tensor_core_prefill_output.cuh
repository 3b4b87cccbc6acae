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

// Asks for, or fetches, what a residual stream has where the warp's outputs of a tile will be: into its boxes, as outputs leave
// from them. One thread's work.
template <class T, class Each>
__device__ __forceinline__ void each_residual_box(const PrefillTask& task, int column, const Each& each) {
#pragma unroll
  for (int box = 0; box < T::kColumns * 2 / T::kBoxLine; ++box)
    if (column + box * (T::kBoxLine / 2) < task.y_columns) each(box, column + box * (T::kBoxLine / 2));
}

// RN(residual + bf(value)), which is left to be rounded.
template <class T>
__device__ __forceinline__ void add_residual(float (&values)[T::kValues], uint32_t boxes) {
  constexpr int kParts = T::kBoxLine / 32;  // of a line, 16 columns: four matrices of 8 x 8
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < T::kColumns / 16; ++part) {
    uint32_t residual[4];
    ptx::load_matrices(residual,
                       box_piece<T::kBoxLine>(boxes + part / kParts * T::kBoxBytes, lane % 16, part % kParts * 2 + lane / 16));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t y = word(values, part * 4 + i);
      float* sum = values + (part * 4 + i) * 2;
      sum[0] = numerics::add(numerics::bits_float(residual[i] << 16), numerics::bits_float(y << 16));
      sum[1] = numerics::add(numerics::bits_float(residual[i] & 0xffff0000u), numerics::bits_float(y & 0xffff0000u));
    }
  }
}

// Slab kSlab of the warpgroup's rows; the warp's boxes are free.
template <class T, int kSlab, class Value, int kSize, class Meanwhile = Nothing>
__device__ void write_slab(const PrefillTask& task, const CUtensorMap* y_map, const Value (&acc)[kSize], int row, int row_end,
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
    if (kValuesOf<Value> == 2 || task.y) {
      send(std::false_type(), std::integral_constant<int, kCount / (T::kBoxLine / 4)>());
    } else if constexpr (kValuesOf<Value> == 1) {
      send(std::true_type(), std::integral_constant<int, kCount / (T::kBoxLine / 8)>());
    }
  } else if (kValuesOf<Value> == 2 || task.y) {
    write_bf16<T::kBoxLine, kFirst, kCount>(task, acc, row, row_end, column, staging);
  } else if constexpr (kValuesOf<Value> == 1) {
    write_fp32<kFirst, kCount>(task, acc, row, row_end, column);
  }
}

}  // namespace invar::cuda::tc::prefill
