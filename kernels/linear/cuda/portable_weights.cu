// Packing and unpacking of the `portable` layout.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/portable_layout.h"
#include "kernels/linear/cuda/portable_linear.h"

namespace invar::cuda::portable {

namespace {

constexpr size_t kStagingBytes = size_t{16} << 20;
constexpr int kThreads = 256;

// Thread = word; neighbours are outputs, so lines are written whole.
__global__ void pack_words(uint32_t* packed, int64_t inputs, int64_t first_output, const uint16_t* rows, int64_t count) {
  const int64_t n = blockIdx.x * int64_t{64} + threadIdx.x % 64, pairs = (inputs + 1) / 2;
  if (n >= count) return;
  const uint16_t* row = rows + n * inputs;
  for (int64_t pair = blockIdx.y * int64_t{kThreads / 64} + threadIdx.x / 64; pair < pairs;
       pair += gridDim.y * int64_t{kThreads / 64}) {
    const uint32_t low = row[pair * 2], high = pair * 2 + 1 < inputs ? row[pair * 2 + 1] : 0;
    packed[word_of(inputs, first_output + n, pair * 2)] = low | high << 16;
  }
}

__global__ void unpack_rows(const uint32_t* packed, int64_t outputs, int64_t inputs, const int32_t* ids, int64_t first_id,
                            Bf16* y, int64_t y_stride) {
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int64_t output = ids[blockIdx.x] - first_id;
  if (output < 0 || output >= outputs) return;
  Bf16* to = y + blockIdx.x * y_stride;
  for (int64_t k = threadIdx.x; k < inputs; k += blockDim.x)
    to[k] = Bf16{static_cast<uint16_t>(packed[word_of(inputs, output, k)] >> (k % 2 * 16))};
}

}  // namespace

size_t packed_bytes(int64_t outputs, int64_t inputs) {
  return static_cast<size_t>(panels(outputs) * panel_words(inputs)) * sizeof(uint32_t);
}

void pack_rows(const Device& device, std::byte* packed, int64_t, int64_t inputs, int64_t first_output, const Bf16* host_rows,
               int64_t count, int64_t row_stride) {
  const size_t row_bytes = static_cast<size_t>(inputs) * sizeof(Bf16);
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(kStagingBytes / row_bytes));
  check(cudaSetDevice(device.cuda().index));  // threads that load may be new to the device
  void* staging = nullptr;
  check(cudaMallocAsync(&staging, static_cast<size_t>(std::min(count, most)) * row_bytes, device.cuda().stream));
  for (int64_t r = 0; r < count; r += most) {
    const int64_t n = std::min(most, count - r);
    const Bf16* from = host_rows + r * row_stride;
    if (row_stride == inputs) {
      device.upload(staging, from, static_cast<size_t>(n) * row_bytes);
    } else {
      check(cudaMemcpy2DAsync(staging, row_bytes, from, static_cast<size_t>(row_stride) * sizeof(Bf16), row_bytes, n,
                              cudaMemcpyHostToDevice, device.cuda().stream));
      device.synchronize();  // from pinned memory the copy may still be reading
    }
    const auto steps = static_cast<unsigned>(std::clamp<int64_t>((inputs + 63) / 64, 1, 64));
    launch(device, {.grid = dim3(static_cast<unsigned>((n + 63) / 64), steps), .block = kThreads}, pack_words,
           reinterpret_cast<uint32_t*>(packed), inputs, first_output + r, static_cast<const uint16_t*>(staging), n);
  }
  check(cudaFreeAsync(staging, device.cuda().stream));
}

void gather_rows(const Device& device, const std::byte* packed, int64_t outputs, int64_t inputs, const int32_t* ids,
                 int64_t first_id, int64_t count, Bf16* y, int64_t y_stride) {
  launch(device, {.grid = static_cast<unsigned>(count), .block = kThreads, .dependent = true}, unpack_rows,
         reinterpret_cast<const uint32_t*>(packed), outputs, inputs, ids, first_id, y, y_stride);
}

}  // namespace invar::cuda::portable
