// TreeAllReduce: partial sums of a row-parallel linear on each tp rank -> the whole bf16 result on every rank (clause 4).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/device.h"
#include "kernels/linear/linear.h"
#include "parallel/transport/group.h"
#include "parallel/transport/peer_memory.h"

namespace invar::parallel {

// Nodes for which a rank that owns segments [first, last) ships values: the maximal aligned subtrees. Under
// ControlArm::kRankOrderAllReduce each non-empty segment by itself, so that the ordinary left fold can be formed.
// RowLinear::nodes must come from here.
std::vector<numerics::TreeNode> shipped_nodes(ControlArm arm, const RowSegments& segments, int first, int last);

// Equal bits, different traffic. kAuto chooses by size.
enum class ReduceAlgorithm : uint8_t {
  kAuto,
  kGather,   // all-gather of the partials, then the whole tree on each rank: one round
  kScatter,  // each rank takes one slice of all partials, merges it, and the bf16 slices are all-gathered: two rounds
};
// From this many bytes of one fp32 partial on, kAuto scatters.
inline constexpr int64_t kScatterBytes = 64 << 10;
// The same over peer memory: of a reduction alone; and of one with what follows, where two GPUs gather twice as much as four. Up
// to kPeerUnitBytes values travel with their numbers.
inline constexpr int64_t kPeerScatterBytes = 768 << 10;
inline constexpr int64_t kPeerNormScatterBytes = 4 << 20;  // divided by ranks - 1
inline constexpr int64_t kPeerUnitBytes = 384 << 10;

// Where the linear queued right before left its values; the same on each rank.
enum class RowValues : uint8_t {
  kPartials,  // in RowReduction::partials
  kFinished,  // summed, in y (RowLinear::y; a group of one): what follows is all that is left
  kSent,      // in the targets()
  kDealt,     // in the owners()
};

struct RowReduction {
  int64_t rows = 0;  // equal on each rank
  int64_t outputs = 0;
  RowSegments segments;             // of the linear's K
  const float* partials = nullptr;  // [my nodes][rows][outputs], as RowLinear writes for segments_of(tp, index)
  const Bf16* bias = nullptr;       // [outputs] or null
  Bf16* y = nullptr;                // [rows][outputs] = bf(RN(root + bias)), on every rank
  RowValues values = RowValues::kPartials;
};

// What follows the reduction between two blocks of a decoder: x[r] = residual(x[r], y[r]), normed[r] = rms_norm(x[r]).
struct ResidualNorm {
  Bf16* x = nullptr;             // [rows][outputs]
  const Bf16* weight = nullptr;  // [outputs]
  float epsilon = 0;
  Bf16* normed = nullptr;  // [rows][outputs]
};

// Owns the scratch of one rank; grows to the largest problem seen. 1 to 8 ranks, segments_of() shares.
class TreeAllReduce {
 public:
  // With `peer`, the group's, values meet in GPU memory and nothing waits on the host; `tp` carries nothing then.
  TreeAllReduce(const Device& device, const Group& tp, ReduceAlgorithm algorithm = ReduceAlgorithm::kAuto,
                PeerMemory* peer = nullptr);
  // Where the linear of this problem may write its values itself, so that the reduction with what follows need not; with a count
  // of 0 it may not. The same answer on each rank: it looks at sizes and segments only. Values of one linear at a time: whoever
  // uses targets queues that linear and then the run() with what follows.
  RowTargets targets(const RowReduction& problem) const;
  // The same for many rows, whose values go to the rank that merges them while the linear multiplies.
  RowOwners owners(const RowReduction& problem) const;
  // Collective over the group. Throws PeerFailure.
  void run(const RowReduction& problem);
  // The same with what follows, in fewer passes: the bits of run(), residual_add() and rms_norm(). problem.y is scratch.
  void run(const RowReduction& problem, const ResidualNorm& next);

 private:
  struct Pieces;
  Pieces pieces_of(const RowReduction& problem);
  bool scatters(int64_t count) const;
  PeerWay norm_way(int64_t count) const;
  std::vector<const float*> gather_values(const RowReduction& problem, const Pieces& pieces);
  void scatter(const RowReduction& problem, const Pieces& pieces);
  void run_on_peers(const RowReduction& problem, const Pieces& pieces, const ResidualNorm* next);
  void merge(const RowReduction& problem, const Pieces& pieces, const std::vector<const float*>& values, int64_t begin,
             int64_t end);
  float* scratch(Buffer& buffer, int64_t floats);

  const Device* device_;
  Group tp_;
  ReduceAlgorithm algorithm_;
  PeerMemory* peer_;
  Buffer received_;
  Buffer folded_;  // control arm only
};

}  // namespace invar::parallel
