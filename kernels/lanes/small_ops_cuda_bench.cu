// The small operators on a GPU: microseconds a call inside a chain of dependent launches (a CUDA graph, replayed; median), GB/s,
// and the share of a plain copy kernel that moves as many bytes in the same run. Many rows stream through memory; few rows stay
// in L2, as they do in a decode step, and show the cost of a launch.
// kernels_small_ops_cuda_bench [TEXT...]: all operators, or those whose names contain one of the texts
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/activation/cuda/activation.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/device_array.h"
#include "kernels/heads/heads.h"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/merge/cuda/merge.h"
#include "kernels/merge/merge.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/norm.h"
#include "kernels/norm/residual_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/rows/rows.h"

namespace invar {
namespace {

__global__ void __launch_bounds__(256) copy_pieces(const uint4* from, uint4* to, int64_t count) {
  cuda::let_successor_start();
  cuda::wait_for_predecessors();
  const int64_t first = int64_t{blockIdx.x} * 1024 + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (first + i * 256 < count) v[i] = from[first + i * 256];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (first + i * 256 < count) to[first + i * 256] = v[i];
}

// Values of a model's size: zeros and infinities take other paths through a division.
__global__ void fill(Bf16* x, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x)
    x[i] = numerics::bf(static_cast<float>(static_cast<int32_t>(numerics::mix64(i))) * 0x1p-31f);
}

struct Bench {
  const Device& device;
  std::vector<std::string> wanted;
  DeviceArray<Bf16> x, y, z, weight;
  DeviceArray<float> partials;

  // Microseconds of one call.
  double time_of(const std::function<void()>& f) {
    const cudaStream_t stream = device.cuda().stream;
    f();
    device.synchronize();
    const auto graph_of = [&](int calls) {
      cudaGraph_t graph;
      cudaGraphExec_t exec;
      cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      for (int i = 0; i < calls; ++i) f();
      cuda::check(cudaStreamEndCapture(stream, &graph));
      cuda::check(cudaGraphInstantiate(&exec, graph, 0));
      cuda::check(cudaGraphDestroy(graph));
      return exec;
    };
    cudaEvent_t begin, end;
    cuda::check(cudaEventCreate(&begin));
    cuda::check(cudaEventCreate(&end));
    const auto milliseconds = [&](cudaGraphExec_t exec) {
      cuda::check(cudaEventRecord(begin, stream));
      cuda::check(cudaGraphLaunch(exec, stream));
      cuda::check(cudaEventRecord(end, stream));
      cuda::check(cudaEventSynchronize(end));
      float ms;
      cuda::check(cudaEventElapsedTime(&ms, begin, end));
      return ms;
    };
    constexpr int kCalls = 40;
    const cudaGraphExec_t exec = graph_of(kCalls);
    std::vector<float> times;
    milliseconds(exec);
    for (int i = 0; i < 7; ++i) times.push_back(milliseconds(exec));
    std::sort(times.begin(), times.end());
    cuda::check(cudaGraphExecDestroy(exec));
    cuda::check(cudaEventDestroy(begin));
    cuda::check(cudaEventDestroy(end));
    return times[3] * 1e3 / kCalls;
  }
  double copy_time(int64_t bytes) {
    const int64_t pieces = std::max<int64_t>(bytes / 32, 1);
    const cuda::Launch shape{.grid = static_cast<unsigned>((pieces + 1023) / 1024), .block = 256, .dependent = true};
    return time_of([&] {
      cuda::launch(device, shape, copy_pieces, reinterpret_cast<const uint4*>(x.data()), reinterpret_cast<uint4*>(y.data()),
                   pieces);
    });
  }
  void report(const std::string& what, int64_t rows, int64_t bytes, const std::function<void()>& f) {
    const auto named = [&](const std::string& text) { return what.find(text) != std::string::npos; };
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(), named)) return;
    const double us = time_of(f), copy = copy_time(bytes);
    std::printf("  %-28s rows %6ld %9.2f us %8.1f GB/s   copy %9.2f us  share %4.0f %%\n", what.c_str(), static_cast<long>(rows),
                us, static_cast<double>(bytes) / us * 1e-3, copy, 100 * copy / us);
  }

  void run(int64_t rows, int64_t width) {
    const int64_t bytes = rows * width * 2;
    std::printf("width %ld\n", static_cast<long>(width));
    const RmsNorm norm{.rows = rows,
                       .width = width,
                       .x = x.data(),
                       .x_stride = width,
                       .weight = weight.data(),
                       .epsilon = 1e-6f,
                       .y = y.data(),
                       .y_stride = width};
    const ResidualRmsNorm residual_norm{.rows = rows,
                                        .width = width,
                                        .x = x.data(),
                                        .y = z.data(),
                                        .weight = weight.data(),
                                        .epsilon = 1e-6f,
                                        .normed = y.data()};
    for (const int lanes : {4, 8}) {
      const cuda::NormPlan plan{.schedule = cuda::NormPlan::Schedule::kRows, .lanes = lanes};
      const std::string by = ", lanes " + std::to_string(lanes);
      report("norm" + by, rows, 2 * bytes, [&] { cuda::rms_norm(device, norm, plan); });
      report("residual+norm" + by, rows, 4 * bytes, [&] { cuda::residual_rms_norm(device, residual_norm, plan); });
    }
    report("residual", rows, 3 * bytes, [&] { residual_add(device, x.data(), z.data(), rows * width); });
    for (const int nodes : {1, 2, 4, 8}) {
      if (rows * width * nodes > partials.size()) continue;
      const int level = nodes == 1 ? 3 : nodes == 2 ? 2 : nodes == 4 ? 1 : 0;
      std::vector<numerics::TreeNode> tree;
      MergeResidualNorm fused{.merge = {.outputs = width, .end = rows * width},
                              .x = x.data(),
                              .weight = weight.data(),
                              .epsilon = 1e-6f,
                              .normed = y.data()};
      for (int i = 0; i < nodes; ++i) tree.push_back({level, i}), fused.merge.values[i] = partials.data() + i * rows * width;
      fused.merge.nodes = tree;
      MergeNodes merge = fused.merge;
      merge.y = y.data();
      const std::string of = " of " + std::to_string(nodes);
      report("merge" + of, rows, bytes * (2 * nodes + 1), [&] { merge_nodes(device, merge); });
      report("merge+residual+norm" + of, rows, bytes * (2 * nodes + 3), [&] { merge_residual_norm(device, fused); });
    }
  }

  void run_heads(int64_t rows, int64_t heads, const RopeTable& table) {
    const int64_t width = heads * 128, stride = width + 1024, bytes = rows * width * 2;
    std::printf("%ld heads of 128\n", static_cast<long>(heads));
    report("q/k norm", rows, 2 * bytes, [&] {
      rms_norm(device, {.rows = rows,
                        .groups = heads,
                        .width = 128,
                        .x = x.data(),
                        .x_stride = stride,
                        .weight = weight.data(),
                        .epsilon = 1e-6f,
                        .y = x.data(),
                        .y_stride = stride});
    });
    std::vector<int32_t> host(rows);
    for (int64_t r = 0; r < rows; ++r) host[r] = static_cast<int32_t>(r % table.positions());
    const DeviceArray<int32_t> positions(device, host);
    report("rope", rows, 2 * bytes, [&] {
      rope(device, {.rows = rows,
                    .heads = heads,
                    .head_dim = 128,
                    .x = x.data(),
                    .x_stride = stride,
                    .positions = positions.data(),
                    .table = &table});
    });
  }

  void run_prepare(int64_t rows, const RopeTable& table) {
    constexpr int64_t kQuery = 32, kKv = 8, kDim = 128, kPageSize = 64;
    std::vector<int32_t> host_positions(rows);
    std::vector<int64_t> host_slots(rows);
    for (int64_t r = 0; r < rows; ++r) {
      host_positions[r] = static_cast<int32_t>(r % table.positions());
      host_slots[r] = r * 7 % (kPageSize * 128);
    }
    const DeviceArray<int32_t> positions(device, host_positions);
    const DeviceArray<int64_t> slots(device, host_slots);
    KvPages pages(device, 128, kPageSize, kKv, kDim);
    const PrepareHeads problem{.rows = rows,
                               .query_heads = kQuery,
                               .kv_heads = kKv,
                               .head_dim = kDim,
                               .qkv = x.data(),
                               .stride = (kQuery + 2 * kKv) * kDim,
                               .q_weight = weight.data(),
                               .k_weight = weight.data(),
                               .epsilon = 1e-6f,
                               .positions = positions.data(),
                               .table = &table,
                               .pages = &pages,
                               .slots = slots.data()};
    const int64_t bytes = rows * kDim * 2 * (2 * kQuery + 5 * kKv);
    report("norms, rope, cache: 1 launch", rows, bytes, [&] { prepare_heads(device, problem); });
    report("norms, rope, cache: 4", rows, bytes, [&] { prepare_heads_separately(device, problem); });
  }

  void run_silu(int64_t rows, int64_t width) {
    std::printf("width %ld\n", static_cast<long>(width));
    const SiluMul problem{.rows = rows, .width = width, .x = x.data(), .x_stride = 2 * width, .y = y.data(), .y_stride = width};
    for (const int piece : {2, 4, 8})
      report("silu_mul, piece " + std::to_string(piece), rows, 3 * rows * width * 2,
             [&] { cuda::silu_mul(device, problem, piece); });
  }

  void run_rows(int64_t rows, int64_t width) {
    std::printf("width %ld\n", static_cast<long>(width));
    std::vector<int32_t> host(rows);
    for (int64_t r = 0; r < rows; ++r) host[r] = static_cast<int32_t>(r * 7 % rows);
    const DeviceArray<int32_t> index(device, host);
    report("gather rows", rows, 2 * rows * width * 2, [&] {
      gather_rows(device, {rows, width * 2, x.data(), width * 2, index.data(), y.data(), width * 2});
    });
  }
};

}  // namespace
}  // namespace invar

int main(int count, char** arguments) {
  using namespace invar;
  const auto opened = Device::open({.backend = Backend::kCuda});
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", std::string(opened.status().message()).c_str());
    return 1;
  }
  const Device& device = **opened;
  constexpr int64_t kElements = int64_t{8192} * 2 * 12288;
  Bench bench{device,
              {arguments + 1, arguments + count},
              DeviceArray<Bf16>(device, kElements),
              DeviceArray<Bf16>(device, kElements),
              DeviceArray<Bf16>(device, kElements),
              DeviceArray<Bf16>(device, 16384),
              DeviceArray<float>(device, int64_t{8192} * 4096 * 2)};
  for (const DeviceArray<Bf16>* a : {&bench.x, &bench.y, &bench.z, &bench.weight})
    cuda::launch(device, {.grid = 1056, .block = 256}, fill, a->data(), static_cast<int64_t>(a->size()));
  RopeTable table = RopeTable::make({}, 1e6, 128, 8192).value();
  table.to_device(device);
  std::printf("%s\n", device.describe().c_str());
  for (const int64_t rows : {1, 64, 2048, 8192})
    for (const int64_t width : {2048, 4096, 8192}) bench.run(rows, width);
  for (const int64_t rows : {1, 8, 64, 512, 2048, 8192}) {
    bench.run_heads(rows, 40, table);
    bench.run_prepare(rows, table);
    bench.run_silu(rows, 12288);
    bench.run_rows(rows, 4096);
  }
}
