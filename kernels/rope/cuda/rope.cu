#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/rope/cuda/rope.h"
#include "kernels/rope/cuda/rotation.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;

struct Rows {
  Bf16* x;
  int64_t x_stride;
  const int32_t* positions;
  const float* table;  // [position][2][half]: cosines, then sines
  unsigned pieces;     // threads of a row: heads * threads of a head
  unsigned pieces_a_head;
  int rows;
  int half;
  int head_dim;
};

// A thread takes eight pairs: a piece of each half of a head.
__global__ void __launch_bounds__(kBlock) rotate_pieces(Rows p) {
  let_successor_start();
  wait_for_predecessors();
  const unsigned item = blockIdx.x * kBlock + threadIdx.x, row = item / p.pieces, rest = item - row * p.pieces;
  if (row >= p.rows) return;
  const unsigned head = rest / p.pieces_a_head, i = (rest - head * p.pieces_a_head) * kPiece;
  Bf16* at = p.x + row * p.x_stride + head * p.head_dim + i;
  const float* angle = p.table + int64_t{p.positions[row]} * 2 * p.half + i;
  const Bf16Piece<kPiece> first = load_piece(at), second = load_piece(at + p.half);
  const FloatPiece<kPiece> c = load_piece(angle), s = load_piece(angle + p.half);
  float x1[kPiece], x2[kPiece];
  widen_piece(first, x1);
  widen_piece(second, x2);
  float y1[kPiece], y2[kPiece];
#pragma unroll
  for (int k = 0; k < kPiece; ++k) {
    y1[k] = first_rotated(x1[k], x2[k], c.v[k], s.v[k]);
    y2[k] = second_rotated(x1[k], x2[k], c.v[k], s.v[k]);
  }
  store_piece(at, narrow_piece(y1));
  store_piece(at + p.half, narrow_piece(y2));
}

// A pair a thread: any half, alignment and stride.
__global__ void __launch_bounds__(kBlock) rotate_pairs(Rows p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t items = int64_t{p.rows} * p.pieces;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < items; item += int64_t{gridDim.x} * kBlock) {
    const int64_t row = item / p.pieces;
    const auto rest = static_cast<unsigned>(item - row * p.pieces);
    const unsigned head = rest / p.pieces_a_head, i = rest - head * p.pieces_a_head;
    Bf16* at = p.x + row * p.x_stride + head * p.head_dim + i;
    const float* angle = p.table + int64_t{p.positions[row]} * 2 * p.half + i;
    const float x1 = numerics::widen(at[0]), x2 = numerics::widen(at[p.half]), c = angle[0], s = angle[p.half];
    at[0] = numerics::bf(first_rotated(x1, x2, c, s));
    at[p.half] = numerics::bf(second_rotated(x1, x2, c, s));
  }
}

}  // namespace

void rope(const Device& device, const Rope& p) {
  const int64_t half = p.table->half();
  if (p.rows == 0 || p.heads == 0 || half == 0) return;
  Rows rows{.x = p.x,
            .x_stride = p.x_stride,
            .positions = p.positions,
            .table = p.table->on_device(),
            .rows = static_cast<int>(p.rows),
            .half = static_cast<int>(half),
            .head_dim = static_cast<int>(p.head_dim)};
  const bool aligned = reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && p.x_stride % kPiece == 0 && p.head_dim % kPiece == 0;
  const bool pieces = aligned && half % kPiece == 0 && p.rows * p.heads * half < int64_t{1} << 34;
  rows.pieces_a_head = static_cast<unsigned>(pieces ? half / kPiece : half);
  rows.pieces = rows.pieces_a_head * static_cast<unsigned>(p.heads);
  const int64_t blocks = (p.rows * rows.pieces + kBlock - 1) / kBlock;
  if (pieces)
    return launch(device, {.grid = static_cast<unsigned>(blocks), .block = kBlock, .dependent = true}, rotate_pieces, rows);
  const auto grid = static_cast<unsigned>(std::min<int64_t>(blocks, int64_t{device.cuda().multiprocessors} * 8));
  launch(device, {.grid = grid, .block = kBlock, .dependent = true}, rotate_pairs, rows);
}

}  // namespace invar::cuda
