// A warp computes 16 outputs of 8 * kTiles rows, operands straight from global memory into the fragments of mma.sync.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_order.h"

namespace invar::cuda::tc {
namespace {

using numerics::kSegments;

constexpr int kWarps = 4;
constexpr int kTiles = 2;  // of 8 rows
constexpr int kWarpOutputs = 16, kWarpRows = 8 * kTiles;

struct Operands {
  const Bf16* x;
  int64_t x_stride, rows;
  const Bf16* weights;
  int64_t outputs, padded;  // outputs behind the last one are zeros
};

__device__ uint32_t pair_of(Bf16 low, Bf16 high) { return low.bits | uint32_t{high.bits} << 16; }

// What this lane holds of both operands in one k16 group; +0 behind `end` and behind the last row.
struct Fragments {
  uint32_t weights[4];
  uint32_t x[kTiles][2];

  __device__ void load(const Operands& p, int64_t output, int64_t row, int64_t begin, int64_t end) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t n = output + g + (i & 1) * 8, k = begin + 2 * t + (i >> 1) * 8;
      weights[i] = pair_of(weight(p, n, k, end), weight(p, n, k + 1, end));
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int64_t m = row + tile * 8 + g, k = begin + 2 * t + i * 8;
        x[tile][i] = pair_of(activation(p, m, k, end), activation(p, m, k + 1, end));
      }
  }

 private:
  static __device__ Bf16 weight(const Operands& p, int64_t n, int64_t k, int64_t end) {
    return k < end ? p.weights[packed_element(p.padded, n, k)] : Bf16{0};
  }
  static __device__ Bf16 activation(const Operands& p, int64_t m, int64_t k, int64_t end) {
    return k < end && m < p.rows ? p.x[m * p.x_stride + k] : Bf16{0};
  }
};

using Values = float[kTiles][4];

// The fold of a span's leaves.
__device__ void fold_span(const Operands& p, const SpanOrder& order, int span, int64_t output, int64_t row, Values& folded) {
  const int64_t leaves = leaf_count(order, span);
  bool first = true;
  for (int64_t i = 0; i < leaves; ++i) {
    const LeafRange leaf = leaf_range(order, span, i);
    if (leaf.begin == leaf.end) continue;
    Values acc = {};
    const int64_t groups = (leaf.end - leaf.begin + numerics::kTensorCoreGroup - 1) / numerics::kTensorCoreGroup;
    for (int64_t group = 0; group < groups; ++group) {
      Fragments fragments;
      fragments.load(p, output, row, group_begin(order, leaf, group), leaf.end);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        ptx::multiply_16x8x16(acc[tile], fragments.weights, fragments.x[tile][0], fragments.x[tile][1]);
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int j = 0; j < 4; ++j) folded[tile][j] = first ? acc[tile][j] : numerics::add(folded[tile][j], acc[tile][j]);
    first = false;
  }
}

// f(tile, j, row, output) for each value of this lane that exists.
template <class F>
__device__ void for_each_value(const Operands& p, int64_t output, int64_t row, const F& f) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t n = output + g + (j >> 1) * 8, m = row + tile * 8 + 2 * t + (j & 1);
      if (n < p.outputs && m < p.rows) f(tile, j, m, n);
    }
}

__device__ int64_t warp_output() { return (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * kWarpOutputs; }
__device__ int64_t warp_row() { return int64_t{blockIdx.y} * kWarpRows; }

__global__ void __launch_bounds__(kWarps * 32)
    column_kernel(const Operands p, const SpanOrder order, const Bf16* bias, Bf16* y, float* y_fp32, int64_t y_stride) {
  ptx::let_next_kernel_start();
  ptx::wait_for_earlier_kernels();
  const int64_t output = warp_output(), row = warp_row();
  if (output >= p.outputs) return;
  Values value = {};
  fold_span(p, order, 0, output, row, value);
  for_each_value(p, output, row, [&](int tile, int j, int64_t m, int64_t n) {
    float v = value[tile][j];
    if (bias) v = numerics::add(v, numerics::widen(bias[n]));
    if (y) y[m * y_stride + n] = numerics::bf(v);
    if (y_fp32) y_fp32[m * y_stride + n] = v;
  });
}

__global__ void __launch_bounds__(kWarps * 32)
    row_kernel(const Operands p, const SpanOrder order, const TreeDelivery tree, float* partials, int64_t node_stride) {
  ptx::let_next_kernel_start();
  ptx::wait_for_earlier_kernels();
  const int64_t output = warp_output(), row = warp_row();
  if (output >= p.outputs) return;
  Values segment[kSegments] = {};
#pragma unroll
  for (int i = 0; i < kSegments; ++i) {
    const int span = i - order.first_slot;
    if (span >= 0 && span < order.spans) fold_span(p, order, span, output, row, segment[i]);
  }
  for_each_value(p, output, row, [&](int tile, int j, int64_t m, int64_t n) {
    float values[kSegments];
#pragma unroll
    for (int i = 0; i < kSegments; ++i) values[i] = segment[i][tile][j];
    merge_segments(tree, values, [&](int place, float value) { partials[place * node_stride + m * p.outputs + n] = value; });
  });
}

Operands operands(const PackedWeights& weights, const Bf16* x, int64_t x_stride, int64_t rows) {
  return {.x = x,
          .x_stride = x_stride,
          .rows = rows,
          .weights = reinterpret_cast<const Bf16*>(weights.data()),
          .outputs = weights.outputs(),
          .padded = padded_outputs(weights.outputs())};
}

Launch launch_shape(const Operands& p) {
  constexpr int64_t kBlockOutputs = kWarps * kWarpOutputs;
  return {.grid = {static_cast<unsigned>((p.outputs + kBlockOutputs - 1) / kBlockOutputs),
                   static_cast<unsigned>((p.rows + kWarpRows - 1) / kWarpRows)},
          .block = kWarps * 32,
          .dependent = true};
}

}  // namespace

void generic_column(const Device& device, const ColumnLinear& p) {
  const Operands o = operands(*p.weights, p.x, p.x_stride, p.rows);
  launch(device, launch_shape(o), column_kernel, o, column_spans(device.control_arm(), p.rows, p.weights->inputs()), p.bias, p.y,
         p.y_fp32, p.y_stride);
}

void generic_row(const Device& device, const RowLinear& p) {
  const Operands o = operands(*p.weights, p.x, p.x_stride, p.rows);
  launch(device, launch_shape(o), row_kernel, o, row_spans(device.control_arm(), p.rows, p.segments, p.first, p.last),
         tree_delivery(p), p.partials, node_stride(p));
}

}  // namespace invar::cuda::tc
