#include "kernels/device/cuda/context.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda/memory.h"

namespace invar::cuda {
namespace {

// No kernel of ours runs for long; a device that is silent for this long is lost.
constexpr std::chrono::seconds kDeadline{120};

std::atomic<uint64_t> allocation_count{0};

}  // namespace

void check(cudaError_t error, std::source_location where) {
  if (error == cudaSuccess) return;
  throw DeviceFailure(absl::StrCat(where.file_name(), ":", where.line(), " ", where.function_name(), ": ",
                                   cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

absl::StatusOr<CudaContext*> open(int index) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess)
    return absl::NotFoundError(absl::StrCat("--device cuda: no GPU can be used: ", cudaGetErrorString(found)));
  if (index < 0 || index >= count)
    return absl::NotFoundError(absl::StrCat("--device cuda: GPU ", index, " of ", count, " does not exist"));
  cudaDeviceProp p;
  check(cudaSetDevice(index));
  check(cudaGetDeviceProperties(&p, index));
  if (p.major != 9)
    return absl::FailedPreconditionError(absl::StrCat("--device cuda: GPU ", index, " (", p.name, ") has compute capability ",
                                                      p.major, ".", p.minor, "; this build runs on 9.0 (H100, H200)"));
  auto context = std::make_unique<CudaContext>();
  context->index = index;
  context->multiprocessors = p.multiProcessorCount;
  context->shared_memory = static_cast<int>(p.sharedMemPerBlockOptin);
  context->name = p.name;
  check(cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking));
  cudaDriverEntryPointQueryResult result;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", reinterpret_cast<void**>(&context->encode_tensor_map), 12000,
                                         cudaEnableDefault, &result));
  check(cudaMalloc(&context->taken, sizeof(uint32_t)));
  check(cudaMemsetAsync(context->taken, 0, sizeof(uint32_t), context->stream));
  return context.release();
}

void close(CudaContext* context) {
  // Errors are not looked at: the process may be ending because the device failed.
  cudaStreamDestroy(context->stream);
  cudaFree(context->taken);
  delete context;
}

std::string describe(const CudaContext& context) { return absl::StrCat("cuda:", context.index, " ", context.name); }

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Device::Memory memory(const Device& device) {
  check(cudaSetDevice(device.cuda().index));
  Device::Memory m;
  check(cudaMemGetInfo(&m.free, &m.total));
  return m;
}

std::byte* allocate(const Device& device, size_t bytes) {
  check(cudaSetDevice(device.cuda().index));
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky: clear it
    throw DeviceFailure(
        absl::StrCat(device.describe(), ": out of memory: ", bytes, " bytes wanted, ", device.memory().free, " free"));
  }
  check(error);
  ++allocation_count;
  check(cudaMemsetAsync(p, 0, bytes, device.cuda().stream));
  return static_cast<std::byte*>(p);
}

std::byte* allocate_host(const Device& device, size_t bytes) {
  check(cudaSetDevice(device.cuda().index));
  void* p = nullptr;
  check(cudaHostAlloc(&p, bytes, cudaHostAllocDefault));
  std::memset(p, 0, bytes);
  return static_cast<std::byte*>(p);
}

void release(std::byte* p) { cudaFree(p); }
void release_host(std::byte* p) { cudaFreeHost(p); }

void upload(const Device& device, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  // From pageable memory this returns when the bytes have been taken; from pinned memory it may not have, so it waits.
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device.cuda().stream));
  cudaPointerAttributes a;
  check(cudaPointerGetAttributes(&a, from));
  if (a.type == cudaMemoryTypeHost) synchronize(device);
}

void download(const Device& device, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, device.cuda().stream));
  synchronize(device);
}

void copy(const Device& device, void* to, const void* from, size_t bytes) {
  // Which side either pointer is on the driver knows (unified addressing).
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, device.cuda().stream));
}

void synchronize(const Device& device) {
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t polls = 0;; ++polls) {
    const cudaError_t state = cudaStreamQuery(device.cuda().stream);
    if (state == cudaSuccess) {
      // Work that gave up waiting for a peer has ended like any other: what it left must not be taken for a result.
      device.ask_monitors(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      return;
    }
    if (state != cudaErrorNotReady) check(state);
    if (polls % 1024 == 1023) {
      std::this_thread::yield();
      const auto waited = std::chrono::steady_clock::now() - begin;
      device.ask_monitors(std::chrono::duration<double>(waited).count());
      if (waited > kDeadline)
        throw DeviceFailure(
            absl::StrCat(device.describe(), ": work queued on it has not finished within ", kDeadline.count(), " s"));
    }
  }
}

std::shared_ptr<void> record(const Device& device, const std::function<void()>& work) {
  const cudaStream_t stream = device.cuda().stream;
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);  // the stream must not stay in capture
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t runnable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&runnable, graph, 0);
  cudaGraphDestroy(graph);
  check(made);
  return std::shared_ptr<void>(runnable, [](void* p) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(p)); });
}

void run(const Device& device, void* graph) { check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), device.cuda().stream)); }

uint64_t allocations() { return allocation_count; }

CUtensorMap tensor_map(const Device& device, const Bf16* base, int64_t rows, int64_t columns, int64_t stride, int box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * sizeof(Bf16)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  const CUresult result =
      device.cuda().encode_tensor_map(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bf16*>(base), sizes, strides, box,
                                      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw DeviceFailure(absl::StrCat("cuTensorMapEncodeTiled: error ", static_cast<int>(result), " for [", rows, "][", columns,
                                     "], stride ", stride, ", box ", box_rows));
  return map;
}

}  // namespace invar::cuda
