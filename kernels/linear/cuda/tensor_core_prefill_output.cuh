// Values of a tile leave a warp: 16 rows, `kCount` values a thread, from acc[kFirst] on. Row `row` is the warp's first one,
// column `column` that of the first value.
#pragma once

#include <type_traits>

#include "kernels/activation/cuda/silu_mul.cuh"
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

// As write_bf16 and write_fp32, by the copy engine, which goes on while the next tile is multiplied. kGroup boxes leave together;
// the warp has room for kGroups groups, kSent of this tile went before. Whole boxes, except where y ends.
template <bool kFp32, int kBoxLine, int kGroup, int kGroups, int kSent, int kFirst, int kCount, int kSize, class Meanwhile>
__device__ void send_boxes(const PrefillTask& task, const CUtensorMap* y_map, const float (&acc)[kSize], int row, int column,
                           uint32_t staging, const Meanwhile& meanwhile) {
  constexpr int kOfBox = kBoxLine / (kFp32 ? 8 : 4), kBoxBytes = 16 * kBoxLine;  // values of a thread
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int group = 0; group < kCount / kOfBox / kGroup; ++group) {
    const uint32_t place = staging + (kSent + group) % kGroups * (kGroup * kBoxBytes);
    if (group) meanwhile();
    if (kSent + group >= kGroups) {
      if (lane == 0) ptx::wait_stores_read<kGroups - 1>();
      __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const float* values = &acc[kFirst + (group * kGroup + i) * kOfBox];
      if constexpr (kFp32) {
        store_fp32_box<kBoxLine>(values, place + i * kBoxBytes);
      } else {
        store_bf16_box<kBoxLine>(values, place + i * kBoxBytes);
      }
    }
    ptx::fence_async_shared();
    __syncwarp();
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int from = column + (group * kGroup + i) * kOfBox * 2;
        if (from < task.y_columns) ptx::store_box(y_map, row, from, place + i * kBoxBytes);
      }
      ptx::commit_stores();  // also an empty group: whoever waits counts them
    }
  }
}

struct Nothing {
  __device__ void operator()() const {}
};

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

// Gate and up of a pair are eight columns apart, four values of a thread. What comes of them leaves as an accumulator of half as
// many columns, in boxes of 32 bf16; column: of y.
template <int kSize>
__device__ void write_gated(const PrefillTask& task, const CUtensorMap* y_map, const float (&acc)[kSize], int row, int row_end,
                            int column, uint32_t staging) {
  constexpr int kBoxLine = kLine / 2, kBoxBytes = 16 * kBoxLine, kBoxes = kSize / 32;
  const int lane = threadIdx.x % 32;
  const auto place = [&](int box, int line, int piece) { return box_piece<kBoxLine>(staging + box * kBoxBytes, line, piece); };
#pragma unroll
  for (int part = 0; part < kSize / 16; ++part) {  // 16 columns of y: four matrices of 8 x 8; two parts are a box
    uint32_t words[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int from = part * 16 + half * 8;
      float gate[4], up[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t pair = ptx::bf16_pair(acc[from + i], acc[from + i + 4]);
        gate[i] = numerics::bits_float(pair << 16);
        up[i] = numerics::bits_float(pair & 0xffff0000u);
      }
      silu_mul_values(gate, up, y);
      words[half * 2] = ptx::bf16_pair(y[0], y[1]);
      words[half * 2 + 1] = ptx::bf16_pair(y[2], y[3]);
    }
    ptx::store_matrices(place(part / 2, lane % 16, part % 2 * 2 + lane / 16), words);
  }
  if (task.boxes && (!task.ragged || row + 16 <= row_end)) {
    ptx::fence_async_shared();
    __syncwarp();
    if (lane == 0) {
#pragma unroll
      for (int box = 0; box < kBoxes; ++box)
        if (column + box * 32 < task.y_columns) ptx::store_box(y_map, row, column + box * 32, staging + box * kBoxBytes);
      ptx::commit_stores();
    }
    return;
  }
  __syncwarp();
#pragma unroll 1
  for (int i = lane; i < kBoxes * 64; i += 32) {
    const int box = i / 64, line = i / 4 % 16, piece = i % 4, m = row + line, n = column + box * 32 + piece * 8;
    if (m >= row_end) continue;
    write_piece(task, m, n, ptx::load_shared_words(place(box, line, piece)));
  }
  __syncwarp();
}

}  // namespace invar::cuda::tc::prefill
