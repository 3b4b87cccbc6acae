// Which schedule of `portable` a problem takes, and its numbers. Pure; equal bits whatever comes out.
#pragma once

#include <cstdint>

#include "kernels/linear/cuda/portable_order.h"
#include "kernels/linear/cuda/portable_target.h"

namespace invar::cuda::portable {

enum class Schedule : uint8_t {
  kStream,    // few rows: warps stream leaves of the weights, a leaf for each half of a warp
  kTiles,     // many rows: tiles of outputs in registers, K in one go
  kAnyShape,  // whatever the others do not take
};

struct Plan {
  Schedule schedule = Schedule::kAnyShape;
  // kStream
  int pass_rows = 0;  // rows a warp carries at once: 1, 2, 4, 8 or 16; more rows are more passes
  int passes = 0;
  int cluster = 1;   // blocks that share a panel's leaves
  int warps = 0;     // of a block; warp w of block r has leaves 2 (r * warps + w) and the next
  int stages = 0;    // of a warp's ring
  int clusters = 0;  // of a pass: each takes every clusters-th panel
  // kTiles
  int tile_rows = 0;  // 128 or 256
  // Both
  size_t shared = 0;  // bytes of a block
};

// A stage of a warp's ring: 8 k of both leaves.
inline constexpr int kStageK = 8;
inline constexpr int kStageBytes = 2 * kStageK / 2 * 64 * 4;
inline constexpr int kLeastStages = 3;  // filled before the previous kernel has ended; the others after x has been asked for
inline constexpr int kMostStages = 16;
inline constexpr int kMostPassRows = 16;
// Warps of the largest block, which bounds the registers of a thread: more rows need more of them.
INVAR_HD constexpr int stream_warps(int pass_rows) { return pass_rows <= 2 ? 20 : pass_rows == 4 ? 16 : pass_rows == 8 ? 12 : 8; }
// Rows whose leaves' values meet in shared memory at a time.
INVAR_HD constexpr int fold_rows(int pass_rows) { return pass_rows < 8 ? pass_rows : 8; }

// Shared memory of a stream block: barriers | rings | x of every leaf | values of every leaf.
struct StreamShared {
  size_t rings, x, values, bytes;
};
INVAR_HD StreamShared stream_shared(int pass_rows, int warps, int stages) {
  StreamShared s{};
  s.rings = size_t{8} * stream_warps(1) * (kMostStages + 1) + 96;  // 16-byte pieces from here on
  s.rings = s.rings / 128 * 128;
  s.x = s.rings + size_t{1} * warps * stages * kStageBytes;
  s.values = s.x + size_t{1} * warps * 2 * pass_rows * numerics::kColumnLeafPortable * sizeof(Bf16);
  s.bytes = s.values + size_t{1} * warps * 2 * fold_rows(pass_rows) * 64 * sizeof(float);
  return s;
}

// Shared memory of a tile's block: two stages of 16 k | slots of fp32 values.
inline constexpr int kTileThreads = 256;
inline constexpr int kTileOutputs = 128;
inline constexpr int kTileK = 16;
INVAR_HD size_t tile_stage_bytes(int tile_rows) { return size_t{1} * (tile_rows + kTileOutputs) * kTileK * sizeof(float); }
INVAR_HD size_t tile_slot_bytes(int tile_rows) { return size_t{1} * tile_rows * kTileOutputs * sizeof(float); }

struct Machine {
  int multiprocessors = 132;
  int shared_memory = 227 * 1024;  // that one block may ask for
};
// `aligned`: rows of x begin at multiples of 16 bytes.
Plan make_plan(const Machine& machine, const LeafOrder& order, const Target& target, bool aligned);

// The plans among which make_plan chooses. kAnyShape comes back where the schedule does not take the problem or memory is short.
// `resident`: blocks on a multiprocessor at once, at most. stages 0: as many as pay.
Plan stream_plan(const Machine& machine, const LeafOrder& order, const Target& target, int pass_rows, int cluster, int resident,
                 int stages);
Plan tile_plan(const Machine& machine, const LeafOrder& order, const Target& target, int tile_rows);
// About how many clock cycles a plan takes.
double predicted_cycles(const Machine& machine, const LeafOrder& order, const Target& target, const Plan& plan);

}  // namespace invar::cuda::portable
