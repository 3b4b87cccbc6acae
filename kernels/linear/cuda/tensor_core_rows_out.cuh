// How a warp's accumulators become rows of y, for the schedules of many rows. A task has y or y_fp32, y_stride, y_columns,
// outputs, wide_y (rows of y begin where wide stores may), boxes (the copy engine may write y) and ragged (behind a tile's last
// row lie other tiles' rows, which a box of sixteen would write over).
#pragma once

#include <type_traits>

#include "kernels/activation/cuda/silu_mul.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"

namespace invar::cuda::tc {

constexpr int kLine = 128;  // bytes of a wide line of shared memory

// How y can be written. The copy engine writes whole pieces of 16 bytes, zeros behind the last column, and what lies there may be
// another rank's.
template <class Task>
void know_outputs(Task* task) {
  const auto aligned = [&](const void* y, int64_t size, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(y) % bytes == 0 && static_cast<uintptr_t>(task->y_stride * size) % bytes == 0;
  };
  task->wide_y = task->y ? aligned(task->y, sizeof(Bf16), 16) : aligned(task->y_fp32, sizeof(float), 8);
  task->boxes =
      task->y ? task->wide_y && task->y_columns % 8 == 0 : aligned(task->y_fp32, sizeof(float), 16) && task->y_columns % 4 == 0;
}

// Each value at its own place.
template <int kFirst, int kCount, class Task, int kSize>
__device__ void write_fp32(const Task& task, const float (&acc)[kSize], int row, int row_end, int column) {
  const int lane = threadIdx.x % 32;
  const bool pairs = task.wide_y;
#pragma unroll
  for (int i = 0; i < kCount; i += 2) {
    const int m = row + lane / 4 + (i & 2) * 4, n = column + i / 4 * 8 + lane % 4 * 2;
    if (m >= row_end) continue;
    float* to = task.y_fp32 + m * task.y_stride + n;
    if (pairs && n + 1 < task.outputs) {
      *reinterpret_cast<float2*>(to) = {acc[kFirst + i], acc[kFirst + i + 1]};
    } else {
      if (n < task.outputs) to[0] = acc[kFirst + i];
      if (n + 1 < task.outputs) to[1] = acc[kFirst + i + 1];
    }
  }
}

// Where a 16-byte piece of a line of a box lies: swizzled as the copy engine does it.
template <int kBoxLine>
__device__ inline uint32_t box_piece(uint32_t box, int line, int piece) {
  return box + line * kBoxLine + ((kBoxLine == kLine ? piece ^ (line & 7) : piece ^ (line >> 1 & 3)) << 4);
}

// Values of a thread, or words of two that are rounded already: values 2 i and 2 i + 1, of a gated linear 8 i / 4 + i % 4 and
// that plus 4, which is gate and up of a pair.
__device__ inline uint32_t word(const float* values, int i) { return ptx::bf16_pair(values[2 * i], values[2 * i + 1]); }
__device__ inline uint32_t word(const uint32_t* words, int i) { return words[i]; }
__device__ inline uint32_t gate_and_up(const float* values, int i) {
  return ptx::bf16_pair(values[i / 4 * 8 + i % 4], values[i / 4 * 8 + i % 4 + 4]);
}
__device__ inline uint32_t gate_and_up(const uint32_t* words, int i) { return words[i]; }
// All of them, so that they leave from half as many registers.
template <int kSize>
__device__ __forceinline__ void round_values(const float (&values)[kSize], bool gated, uint32_t (&words)[kSize / 2]) {
  if (gated) {
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) words[i] = gate_and_up(values, i);
  } else {
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) words[i] = word(values, i);
  }
}
template <class Value>
constexpr int kValuesOf = std::is_same_v<Value, uint32_t> ? 2 : 1;

// kBoxLine / 4 values of a thread as 16 rows of bf16 in shared memory.
template <int kBoxLine, class Value>
__device__ inline void store_bf16_box(const Value* values, uint32_t to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < kBoxLine / 32; ++part) {  // 16 columns: four matrices of 8 x 8
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = word(values, part * 4 + i);
    ptx::store_matrices(box_piece<kBoxLine>(to, lane % 16, part * 2 + lane / 16), words);
  }
}

// kBoxLine / 8 values of a thread as 16 rows of fp32.
template <int kBoxLine>
__device__ inline void store_fp32_box(const float* values, uint32_t to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kBoxLine / 8; i += 2)
    ptx::store_shared_float2(box_piece<kBoxLine>(to, lane / 4 + (i & 2) * 4, i / 4 * 2 + lane % 4 / 2) + lane % 2 * 8,
                             {values[i], values[i + 1]});
}

// Eight outputs of row m, where y has them.
template <class Task>
__device__ void write_piece(const Task& task, int m, int n, uint4 words) {
  union {
    uint4 words;
    Bf16 values[8];
  } piece = {words};
  Bf16* to = task.y + m * task.y_stride + n;
  if (task.wide_y && n + 8 <= task.y_columns) {
    *reinterpret_cast<uint4*>(to) = words;
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (n + j < task.y_columns) to[j] = piece.values[j];
  }
}

// Through the warp's own shared memory, so that whole lines go to memory.
template <int kBoxLine, int kFirst, int kCount, class Task, class Value, int kSize>
__device__ void write_bf16(const Task& task, const Value (&acc)[kSize], int row, int row_end, int column, uint32_t staging) {
  constexpr int kOfBox = kBoxLine / 4, kPieces = kBoxLine / 16;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int box = 0; box < kCount / kOfBox; ++box) {
    __syncwarp();
    store_bf16_box<kBoxLine>(&acc[(kFirst + box * kOfBox) / kValuesOf<Value>], staging);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kPieces / 2; ++i) {
      const int line = (i * 32 + lane) / kPieces, piece = lane % kPieces, m = row + line,
                n = column + box * kOfBox * 2 + piece * 8;
      if (m < row_end) write_piece(task, m, n, ptx::load_shared_words(box_piece<kBoxLine>(staging, line, piece)));
    }
  }
}

// Behind it the warp's boxes may be written again.
__device__ inline void boxes_are_free() {
  if (threadIdx.x % 32 == 0) ptx::wait_stores_read<0>();
  __syncwarp();
}

struct Nothing {
  __device__ void operator()() const {}
};

// As write_bf16 and write_fp32, by the copy engine, which goes on while the next tile is multiplied. kGroup boxes leave together;
// the warp has room for kGroups groups, kSent of this tile went before. Whole boxes, except where y ends.
template <bool kFp32, int kBoxLine, int kGroup, int kGroups, int kSent, int kFirst, int kCount, class Task, class Value,
          int kSize, class Meanwhile = Nothing>
__device__ void send_boxes(const Task& task, const CUtensorMap* y_map, const Value (&acc)[kSize], int row, int column,
                           uint32_t staging, const Meanwhile& meanwhile = {}) {
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
      const Value* values = &acc[(kFirst + (group * kGroup + i) * kOfBox) / kValuesOf<Value>];
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

// Gate and up of a pair are eight columns apart, four values of a thread. What comes of them leaves as an accumulator of half as
// many columns, in boxes of 32 bf16; column: of y. meanwhile() comes once for 16 columns of y, but not behind the last ones.
template <class Task, class Value, int kSize, class Meanwhile = Nothing>
__device__ void write_gated(const Task& task, const CUtensorMap* y_map, const Value (&acc)[kSize], int row, int row_end,
                            int column, uint32_t staging, const Meanwhile& meanwhile = {}) {
  constexpr int kValues = kSize * kValuesOf<Value>;
  constexpr int kBoxLine = kLine / 2, kBoxBytes = 16 * kBoxLine, kBoxes = kValues / 32;
  const int lane = threadIdx.x % 32;
  const auto place = [&](int box, int line, int piece) { return box_piece<kBoxLine>(staging + box * kBoxBytes, line, piece); };
#pragma unroll
  for (int part = 0; part < kValues / 16; ++part) {  // 16 columns of y: four matrices of 8 x 8; two parts are a box
    if (part) meanwhile();
    uint32_t words[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float gate[4], up[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t pair = gate_and_up(acc, part * 8 + half * 4 + i);
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

}  // namespace invar::cuda::tc
