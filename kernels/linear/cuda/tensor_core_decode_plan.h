// How a linear with at most 64 rows is laid over the GPU: pure arithmetic, tested without one. Any plan gives the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/linear/cuda/tensor_core_shape.h"

namespace invar::cuda::tc {

inline constexpr int64_t kMostDecodeRows = 64;

// The free choices. Weights are the 64-row side of wgmma; a warpgroup that has fewer outputs reads rubbish behind them and
// throws those results away.
struct DecodeChoice {
  int tile_outputs = 64;  // of a block: a multiple of 8; a warpgroup for each 64 begun, all with one copy of x
  int k_groups = 1;       // such sets of warpgroups behind each other in k: of segments only, a column is one chain
  int cluster = 1;        // blocks behind each other in k, likewise
  int resident = 1;       // blocks meant to share a multiprocessor: of this call, or the next call's, which fetch weights already
  int ahead = 0;          // KB of weights that a block asks the second cache for, beyond its rings
  int row_tiles = 1;      // 1, 2 or 4 blocks side by side in the rows, of the same outputs: each takes in fewer bytes of x
  int producers = 1;      // 1 or 2 warps that fill a k group's ring: where few bytes make a stage, one is what chains wait for
  int depth = 1;          // slabs of 64 inputs of a stage: 1, 2 or 4. Chains of thin matrices wait for the steps of a stage
};

struct DecodePlan {
  DecodeChoice choice;
  int tokens = 8;      // rows of a tile, rounded up to what wgmma has: 8, 16, 32 or 64
  int row_groups = 1;  // warpgroups side by side in the outputs
  int tiles = 1;
  int stages = 2;         // of the ring of each k group
  bool subtrees = false;  // segments of one slice are merged before they leave it
  int slots = 0;          // values that meet for one output; 0: a warpgroup has the
                          // whole output to itself
  int share = 0;          // sixteen-byte pieces of a slot that one block of a cluster merges
  int ahead = 0;          // stages that a k group asks the second cache for, beyond its ring
  int next_at = -1;       // loads that a k group has left when the next kernel's blocks may start beside this call's; -1: at
                          // once. They fetch weights at once: early ones take bandwidth that this call still needs and then
                          // wait with full rings, late ones leave the memory idle while this call ends
  int grid = 1;
  int threads = 0;
  int shared = 0;  // bytes
  std::string describe() const;
};

inline constexpr int kMostCluster = 8;
// Stages of all rings of a block: their barriers share one kilobyte.
inline constexpr int kMostDecodeStages = 60;
// Accumulators of many rows need registers: fewer threads, and at most four segments merged in them.
inline constexpr int kMostTokensOfEightSegments = 32;
constexpr int most_decode_tokens(int depth) { return depth == 1 ? 64 : depth == 2 ? 32 : 16; }
constexpr int most_decode_threads(int tokens, bool by_segments) {
  return tokens <= 16 ? 640 : tokens <= 32 && !by_segments ? 544 : 416;
}

// Nothing where the choice does not fit the shape or the chip.
std::optional<DecodePlan> decode_plan(const LinearShape& shape, const DecodeChoice& choice, const Chip& chip);
// Tiles are multiples of `unit` outputs (8 or 16).
DecodePlan decode_plan(const LinearShape& shape, const Chip& chip, int unit = 8);
// Every plan worth a measurement.
std::vector<DecodePlan> decode_plans(const LinearShape& shape, const Chip& chip);

}  // namespace invar::cuda::tc
