// TreeAllReduce: partial sums of a row-parallel linear on each tp rank -> the whole bf16 result on every rank (clause 4).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/device.h"
#include "kernels/linear/linear.h"
#include "parallel/transport/group.h"

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

struct RowReduction {
  int64_t rows = 0;  // equal on each rank
  int64_t outputs = 0;
  RowSegments segments;             // of the linear's K
  const float* partials = nullptr;  // [my nodes][rows][outputs], as RowLinear writes for segments_of(tp, index)
  const Bf16* bias = nullptr;       // [outputs] or null
  Bf16* y = nullptr;                // [rows][outputs] = bf(RN(root + bias)), on every rank
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
  TreeAllReduce(const Device& device, const Group& tp, ReduceAlgorithm algorithm = ReduceAlgorithm::kAuto);
  // Collective over the group. Throws PeerFailure.
  void run(const RowReduction& problem);
  // The same with what follows, in fewer passes: the bits of run(), residual_add() and rms_norm(). problem.y is scratch.
  void run(const RowReduction& problem, const ResidualNorm& next);

 private:
  struct Pieces;
  Pieces pieces_of(const RowReduction& problem);
  bool scatters(int64_t count) const;
  std::vector<const float*> gather_values(const RowReduction& problem, const Pieces& pieces);
  void scatter(const RowReduction& problem, const Pieces& pieces);
  void merge(const RowReduction& problem, const Pieces& pieces, const std::vector<const float*>& values, int64_t begin, int64_t end);
  float* scratch(Buffer& buffer, int64_t floats);

  const Device* device_;
  Group tp_;
  ReduceAlgorithm algorithm_;
  Buffer received_;
  Buffer folded_;  // control arm only
};

}  // namespace invar::parallel
