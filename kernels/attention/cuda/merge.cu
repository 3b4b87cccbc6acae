// States of the splits of a row become its output: a thread takes four elements, splits in ascending order.
#include "kernels/attention/cuda/kernels.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda {
namespace {

constexpr int kThreads = 128;

// Elements d .. d + 3 of a row and head from the states of its splits, in ascending order.
__device__ __forceinline__ void merge_four(const AttentionParameters& p, const PlanMerge& merge, int head, int d) {
  constexpr int kAhead = 8;  // states loaded before the first of them is needed
  const int first = first_visible(merge.position, p.window) / kSplit, last = merge.position / kSplit;
  const float* state = state_of(p, merge.states, merge.rows, first, merge.tile_row, head);
  const int64_t next = int64_t{merge.rows} * p.query_heads * (p.head_dim + kStateExtra);
  float reference = 0, l = 0, o[4] = {};
  for (int split = first; split <= last; split += kAhead) {
    float4 part[kAhead];
    float2 scalars[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (split + a > last) break;
      const float* from = state + (split - first + a) * next;
      scalars[a] = *reinterpret_cast<const float2*>(from + p.head_dim);
      part[a] = *reinterpret_cast<const float4*>(from + d);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (split + a > last) break;
      const float of_part[4] = {part[a].x, part[a].y, part[a].z, part[a].w};
      if (split + a == first) {
        reference = scalars[a].x;
        l = scalars[a].y;
#pragma unroll
        for (int i = 0; i < 4; ++i) o[i] = of_part[i];
        continue;
      }
      const float r = fmaxf(reference, scalars[a].x);
      const float wa = attention_order::rescale(reference, r), wb = attention_order::rescale(scalars[a].x, r);
      reference = r;
      l = numerics::fma(scalars[a].y, wb, numerics::mul(l, wa));
#pragma unroll
      for (int i = 0; i < 4; ++i) o[i] = numerics::fma(of_part[i], wb, numerics::mul(o[i], wa));
    }
  }
  const float reciprocal = reciprocal_of(l);
  ushort4 out;
  out.x = output_of(o[0], reciprocal).bits;
  out.y = output_of(o[1], reciprocal).bits;
  out.z = output_of(o[2], reciprocal).bits;
  out.w = output_of(o[3], reciprocal).bits;
  *reinterpret_cast<ushort4*>(p.y + merge.row * p.y_stride + head * p.head_dim + d) = out;
}

__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ AttentionParameters p, PlanList list) {
  ptx::let_next_kernel_start();  // it waits itself
  const PlanView plan{p.block};
  const unsigned per_head = p.head_dim / 4, per_row = p.query_heads * per_head;
  const PlanMerge* merges = plan.merges() + (list == PlanList::kDecode ? 0 : plan.header().decode_merges);
  const int rows = list == PlanList::kDecode ? plan.header().decode_merges : plan.header().merges - plan.header().decode_merges;
  // 32 bits: a 64-bit division is as long as a merge of two states.
  const unsigned count = static_cast<unsigned>(rows) * per_row;
  unsigned i = blockIdx.x * kThreads + threadIdx.x;
  PlanMerge merge;
  int head = 0, d = 0;
  const auto find = [&] {
    if (i >= count) return;
    const unsigned row = i / per_row, at = i - row * per_row;
    head = static_cast<int>(at / per_head), d = static_cast<int>(at % per_head) * 4;
    merge = merges[row];
  };
  find();
  // A kernel behind this one relies on those before it having ended when this one has: one block stays and waits in any case.
  if (blockIdx.x * kThreads >= count && blockIdx.x > 0) return;
  ptx::wait_for_earlier_kernels();
  while (i < count) {
    merge_four(p, merge, head, d);
    i += gridDim.x * kThreads;
    find();
  }
}

}  // namespace

void launch_merge(const Device& device, const AttentionParameters& p, PlanList list) {
  launch(device, {.grid = static_cast<unsigned>(device.cuda().multiprocessors * 8), .block = kThreads, .dependent = true},
         merge_kernel, p, list);
}

}  // namespace invar::cuda
