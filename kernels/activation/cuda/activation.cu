#include "kernels/activation/cuda/activation.h"
#include "kernels/activation/cuda/silu_mul.cuh"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;

// A run is eight: a piece of up to eight elements that begins at a multiple of its size lies in one.
__device__ inline int64_t gate_at(const SiluMul& p, int64_t i) { return p.run ? i + i / 8 * 8 : i; }
__device__ inline int64_t up_behind(const SiluMul& p) { return p.run ? 8 : p.width; }

// blockIdx.y is the row. kCount elements a thread: few make a small problem wide, eight make a large one stream.
template <int kCount>
__global__ void __launch_bounds__(kBlock) silu_mul_pieces(const __grid_constant__ SiluMul p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t i = (int64_t{blockIdx.x} * kBlock + threadIdx.x) * kCount;
  if (i >= p.width) return;
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const Bf16* gate = p.x + row * p.x_stride + gate_at(p, i);
    const Bf16Piece<kCount> g = load_piece<kCount>(gate), u = load_piece<kCount>(gate + up_behind(p));
    float a[kCount], b[kCount];
    widen_piece(g, a);
    widen_piece(u, b);
#pragma unroll
    for (int k = 0; k < kCount; ++k) a[k] = silu_mul_value(a[k], b[k]);
    store_piece(p.y + row * p.y_stride + i, narrow_piece(a));
  }
}

__global__ void __launch_bounds__(kBlock) silu_mul_elements(SiluMul p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t count = p.rows * p.width;
  for (int64_t at = int64_t{blockIdx.x} * kBlock + threadIdx.x; at < count; at += int64_t{gridDim.x} * kBlock) {
    const int64_t row = at / p.width, i = at - row * p.width;
    const Bf16* gate = p.x + row * p.x_stride + gate_at(p, i);
    p.y[row * p.y_stride + i] = numerics::silu_mul(gate[0], gate[up_behind(p)]);
  }
}

// The first `pieces` pieces by 16 bytes, what is left of `count` by elements. y may be x.
__global__ void __launch_bounds__(kBlock) residual(Bf16* x, const Bf16* y, int64_t pieces, int64_t count) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t thread = int64_t{blockIdx.x} * kBlock + threadIdx.x, threads = int64_t{gridDim.x} * kBlock;
  for (int64_t i = thread; i < pieces; i += threads)
    store_piece(x + i * kPiece, residual_piece(load_piece(x + i * kPiece), load_piece(y + i * kPiece)));
  for (int64_t i = pieces * kPiece + thread; i < count; i += threads) x[i] = numerics::residual(x[i], y[i]);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

int silu_mul_piece(int multiprocessors, const SiluMul& p) {
  const bool whole =
      aligned(p.x) && aligned(p.y) && p.width % kPiece == 0 && p.x_stride % kPiece == 0 && p.y_stride % kPiece == 0;
  if (!whole) return 1;
  const int64_t elements = p.rows * p.width, threads = int64_t{multiprocessors} * 1024;
  return elements <= 2 * threads ? 2 : elements <= 16 * threads ? 4 : 8;
}

void silu_mul(const Device& device, const SiluMul& p) { silu_mul(device, p, silu_mul_piece(device.cuda().multiprocessors, p)); }

void silu_mul(const Device& device, const SiluMul& p, int piece) {
  if (p.rows == 0 || p.width == 0) return;
  if (piece > 1) {
    const auto across = static_cast<unsigned>((p.width / piece + kBlock - 1) / kBlock);
    const auto down = static_cast<unsigned>(std::min<int64_t>(p.rows, 65535));
    const auto kernel = piece == 2 ? silu_mul_pieces<2> : piece == 4 ? silu_mul_pieces<4> : silu_mul_pieces<8>;
    return launch(device, {.grid = dim3(across, down), .block = kBlock, .dependent = true}, kernel, p);
  }
  const int64_t blocks = (p.rows * p.width + kBlock - 1) / kBlock;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(blocks, int64_t{device.cuda().multiprocessors} * 8));
  launch(device, {.grid = grid, .block = kBlock, .dependent = true}, silu_mul_elements, p);
}

void residual_add(const Device& device, Bf16* x, const Bf16* y, int64_t count) {
  if (count == 0) return;
  const int64_t pieces = aligned(x) && aligned(y) ? count / kPiece : 0;
  const int64_t blocks = (std::max(pieces, count - pieces * kPiece) + kBlock - 1) / kBlock;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(blocks, int64_t{device.cuda().multiprocessors} * 32));
  launch(device, {.grid = grid, .block = kBlock, .dependent = true}, residual, x, y, pieces, count);
}

}  // namespace invar::cuda
