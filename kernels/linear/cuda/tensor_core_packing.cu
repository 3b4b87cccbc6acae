// Rows into and out of the packed layout.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_linear.h"

namespace invar::cuda::tc {
namespace {

constexpr int kThreads = 256;
constexpr size_t kStagedBytes = 32 << 20;  // rows that are on their way at once

// One 16-byte piece a thread. `rows` has whole pieces: `pitch` elements a row, a multiple of 8.
// `done` rows were packed before; with a run, as many outputs are left out after each `run` rows.
__global__ void pack_pieces(const Bf16* rows, int64_t pitch, int64_t count, int64_t inputs, Bf16* packed, int64_t padded,
                            int64_t first_output, int64_t done, int64_t run) {
  const int64_t pieces = input_blocks(inputs) * 8, i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count * pieces) return;
  const int64_t row = i / pieces, piece = i % pieces, filled = inputs - piece * 8;
  union {
    uint4 words;
    Bf16 values[8];
  };
  words = filled > 0 ? *reinterpret_cast<const uint4*>(rows + row * pitch + piece * 8) : uint4{};
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (j >= filled) values[j].bits = 0;
  const int64_t before = done + row, output = first_output + before + (run ? before / run * run : 0);
  *reinterpret_cast<uint4*>(packed + packed_piece(padded, output, piece / 8, piece % 8)) = words;
}

template <bool Aligned>
__global__ void gather_pieces(const Bf16* packed, int64_t outputs, int64_t padded, int64_t inputs, const int32_t* ids,
                              int64_t first_id, Bf16* y, int64_t y_stride) {
  ptx::let_next_kernel_start();
  ptx::wait_for_earlier_kernels();
  const int64_t output = ids[blockIdx.x] - first_id;
  if (output < 0 || output >= outputs) return;
  const int64_t pieces = (inputs + 7) / 8;
  for (int64_t piece = threadIdx.x; piece < pieces; piece += kThreads) {
    union {
      uint4 words;
      Bf16 values[8];
    };
    words = *reinterpret_cast<const uint4*>(packed + packed_piece(padded, output, piece / 8, piece % 8));
    Bf16* to = y + blockIdx.x * y_stride + piece * 8;
    if constexpr (Aligned) {
      *reinterpret_cast<uint4*>(to) = words;
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (piece * 8 + j < inputs) to[j] = values[j];
    }
  }
}

}  // namespace

size_t packed_bytes(int64_t outputs, int64_t inputs) {
  return static_cast<size_t>(input_blocks(inputs) * padded_outputs(outputs) * kBlockInputs) * sizeof(Bf16);
}

void pack_rows(const Device& device, std::byte* packed, int64_t outputs, int64_t inputs, int64_t first_output,
               const Bf16* host_rows, int64_t count, int64_t row_stride, int64_t run) {
  if (count == 0 || inputs == 0) return;
  const cudaStream_t stream = device.cuda().stream;
  const int64_t pitch = (inputs + 7) / 8 * 8;
  const size_t pitch_bytes = static_cast<size_t>(pitch) * sizeof(Bf16);
  const int64_t rows_at_once = std::clamp<int64_t>(static_cast<int64_t>(kStagedBytes / pitch_bytes), 1, count);
  // A model has tens of thousands of matrices: memory for each call would take longer than the copies. One a thread, so that two
  // devices of different threads do not meet in it; the synchronisation below keeps those of one thread apart.
  thread_local Buffer staged;
  thread_local int staged_on = -1;
  const size_t bytes = static_cast<size_t>(rows_at_once) * pitch_bytes;
  if (staged.size() < bytes || staged_on != device.cuda().index) {
    staged = Buffer(device, std::max(bytes, std::min(kStagedBytes, packed_bytes(outputs, inputs))));
    staged_on = device.cuda().index;
  }
  for (int64_t done = 0; done < count; done += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, count - done);
    check(cudaMemcpy2DAsync(staged.data(), pitch_bytes, host_rows + done * row_stride,
                            static_cast<size_t>(row_stride) * sizeof(Bf16), static_cast<size_t>(inputs) * sizeof(Bf16),
                            static_cast<size_t>(rows), cudaMemcpyHostToDevice, stream));
    const int64_t pieces = rows * input_blocks(inputs) * 8;
    launch(device, {.grid = static_cast<unsigned>((pieces + kThreads - 1) / kThreads), .block = kThreads}, pack_pieces,
           staged.as<Bf16>(), pitch, rows, inputs, reinterpret_cast<Bf16*>(packed), padded_outputs(outputs), first_output, done,
           run);
    device.synchronize();
  }
}

void gather_rows(const Device& device, const std::byte* packed, int64_t outputs, int64_t inputs, const int32_t* ids,
                 int64_t first_id, int64_t count, Bf16* y, int64_t y_stride) {
  if (count == 0 || inputs == 0) return;
  const bool aligned = inputs % 8 == 0 && y_stride % 8 == 0 && reinterpret_cast<uintptr_t>(y) % 16 == 0;
  launch(device, {.grid = static_cast<unsigned>(count), .block = kThreads, .dependent = true},
         aligned ? gather_pieces<true> : gather_pieces<false>, reinterpret_cast<const Bf16*>(packed), outputs,
         padded_outputs(outputs), inputs, ids, first_id, y, y_stride);
}

}  // namespace invar::cuda::tc
