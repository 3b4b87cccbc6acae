#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/finish.h"

namespace invar::cuda {
namespace {

constexpr int kThreads = 256;

// `Width` outputs a thread, all of one row.
template <int Width>
__global__ void finish_values(const float* root, const Bf16* bias, int64_t count, int64_t outputs, Bf16* y) {
  ptx::let_next_kernel_start();
  ptx::wait_for_earlier_kernels();
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * Width;
  if (i >= count) return;
  struct alignas(sizeof(float) * Width) Wide {
    float value[Width];
  } values = *reinterpret_cast<const Wide*>(root + i);
  struct alignas(sizeof(Bf16) * Width) Narrow {
    Bf16 value[Width];
  } rounded;
#pragma unroll
  for (int j = 0; j < Width; ++j) {
    const float v = bias ? numerics::add(values.value[j], numerics::widen(bias[i % outputs + j])) : values.value[j];
    rounded.value[j] = numerics::bf(v);
  }
  *reinterpret_cast<Narrow*>(y + i) = rounded;
}

}  // namespace

void finish_row_linear(const Device& device, const float* root, const Bf16* bias, int64_t rows, int64_t outputs, Bf16* y) {
  const int64_t count = rows * outputs;
  if (count == 0) return;
  const bool wide = outputs % 4 == 0 && reinterpret_cast<uintptr_t>(root) % 16 == 0 && reinterpret_cast<uintptr_t>(y) % 8 == 0;
  const int64_t threads = wide ? count / 4 : count;
  launch(device, {.grid = static_cast<unsigned>((threads + kThreads - 1) / kThreads), .block = kThreads, .dependent = true},
         wide ? finish_values<4> : finish_values<1>, root, bias, count, outputs, y);
}

}  // namespace invar::cuda
