#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/rows/cuda/rows.h"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kUnroll = 4;  // units of a thread that are under way together
constexpr int kShards = 8;

// A block moves kBlock * kUnroll units of one row; blockIdx.y strides over the rows.
template <class Unit, bool kGather>
__global__ void __launch_bounds__(kBlock) move_rows(MoveRows p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t units = p.row_bytes / static_cast<int64_t>(sizeof(Unit)),
                first = int64_t{blockIdx.x} * kBlock * kUnroll + threadIdx.x;
  for (int64_t i = blockIdx.y; i < p.count; i += gridDim.y) {
    const int64_t named = p.index[i];
    if (named < 0) continue;
    const auto* from = reinterpret_cast<const Unit*>(static_cast<const char*>(p.from) + (kGather ? named : i) * p.from_stride);
    auto* to = reinterpret_cast<Unit*>(static_cast<char*>(p.to) + (kGather ? i : named) * p.to_stride);
    Unit held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (first + u * kBlock < units) held[u] = from[first + u * kBlock];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (first + u * kBlock < units) to[first + u * kBlock] = held[u];
  }
}

template <bool kGather>
void move(const Device& device, const MoveRows& p) {
  if (p.count == 0 || p.row_bytes == 0) return;
  const uint64_t bits = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to) |
                        static_cast<uint64_t>(p.row_bytes) | static_cast<uint64_t>(p.from_stride) |
                        static_cast<uint64_t>(p.to_stride);
  const auto go = [&]<class Unit>(void (*kernel)(MoveRows)) {
    const int64_t units = p.row_bytes / static_cast<int64_t>(sizeof(Unit));
    const auto across = static_cast<unsigned>((units + kBlock * kUnroll - 1) / (kBlock * kUnroll));
    const auto down = static_cast<unsigned>(std::min<int64_t>(p.count, 65535));
    launch(device, {.grid = dim3(across, down), .block = kBlock, .dependent = true}, kernel, p);
  };
  if (bits % 16 == 0)
    go.template operator()<uint4>(move_rows<uint4, kGather>);
  else if (bits % 4 == 0)
    go.template operator()<uint32_t>(move_rows<uint32_t, kGather>);
  else
    go.template operator()<uint8_t>(move_rows<uint8_t, kGather>);
}

struct Shards {
  const float* from[kShards];
  int64_t width[kShards];
  int64_t begin[kShards];  // column in y
  float* y;
  int64_t rows;
  int64_t stride;
};

// blockIdx.z is the shard.
__global__ void __launch_bounds__(kBlock) join(const __grid_constant__ Shards p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t width = p.width[blockIdx.z], first = int64_t{blockIdx.x} * kBlock * kUnroll + threadIdx.x;
  const float* shard = p.from[blockIdx.z];
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const float* from = shard + row * width;
    float* to = p.y + row * p.stride + p.begin[blockIdx.z];
    float held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (first + u * kBlock < width) held[u] = from[first + u * kBlock];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (first + u * kBlock < width) to[first + u * kBlock] = held[u];
  }
}

}  // namespace

void gather_rows(const Device& device, const MoveRows& problem) { move<true>(device, problem); }
void scatter_rows(const Device& device, const MoveRows& problem) { move<false>(device, problem); }

void join_shards(const Device& device, const JoinShards& p) {
  Shards shards{.y = p.y, .rows = p.rows};
  int64_t widest = 0;
  for (size_t s = 0; s < p.shards.size(); ++s) {
    shards.from[s] = p.shards[s];
    shards.width[s] = p.widths[s];
    shards.begin[s] = shards.stride;
    shards.stride += p.widths[s];
    widest = std::max(widest, p.widths[s]);
  }
  if (p.rows == 0 || widest == 0) return;
  const auto across = static_cast<unsigned>((widest + kBlock * kUnroll - 1) / (kBlock * kUnroll));
  const auto down = static_cast<unsigned>(std::min<int64_t>(p.rows, 65535));
  launch(device, {.grid = dim3(across, down, static_cast<unsigned>(p.shards.size())), .block = kBlock, .dependent = true}, join,
         shards);
}

}  // namespace invar::cuda
