// Linear layers: y[m][n] = sum over k of x[m][k] * w[n][k], in the order of the contract (README.md, clauses 3 and 4).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/device.h"
#include "kernels/linear/row_tree.h"

namespace invar {

// Weights of one linear on a device: [outputs][inputs] bf16, packed once at load for streaming. The packing is the backend's own.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(const Device& device, int64_t outputs, int64_t inputs);
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  size_t bytes() const { return buffer_.size(); }
  // Copies `count` rows of [inputs] bf16 of host memory, row r at rows + r * row_stride, to outputs [first_output, first_output +
  // count). Different outputs may be packed from different threads. The rows may be changed when the call returns. With a run,
  // which only Backend::kCuda's `tc` layout takes, as many outputs are left out after each `run` rows (gated_linear.h).
  void pack_rows(int64_t first_output, const Bf16* rows, int64_t count, int64_t row_stride, int64_t run = 0);
  const std::byte* data() const { return buffer_.data(); }
  // For references and tests; with Backend::kCuda a launch and a download each time.
  Bf16 at(int64_t output, int64_t input) const;

 private:
  const Device* device_ = nullptr;  // kCuda: the device that holds the weights and outlives them; null on the CPU
  Buffer buffer_;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
};

// Column-parallel: each output is whole on its rank. Leaves of column_leaf(profile) in k (0: one), folded left; bias added once
// (RN).
// Exactly one of y (rounded to bf16) and y_fp32 is set. Strides in elements.
struct ColumnLinear {
  int64_t rows = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  const PackedWeights* weights = nullptr;
  const Bf16* bias = nullptr;  // [outputs] or null
  Bf16* y = nullptr;
  float* y_fp32 = nullptr;
  int64_t y_stride = 0;
};
void linear_column(const Device& device, const ColumnLinear& problem);
void linear_column_reference(Profile profile, const ColumnLinear& problem);

// Where a row-parallel linear's values go instead of `partials`: to places that others read while it still runs, in the memory of
// several GPUs. Each place is two areas that take turns, [nodes of this problem][rows][outputs] in each. What reads them is told
// by the words themselves: one that is not there yet is `absent`, a NaN that is written as another one.
struct RowTargets {
  static constexpr int kMost = 8;
  int count = 0;                   // 0: values go to `partials`
  float* values[kMost] = {};       // in the first area of each, 16-byte aligned
  int64_t area = 0;                // floats from the first area to the second
  const uint64_t* turn = nullptr;  // of the device, read behind all earlier kernels: an even number is the second area's turn
  uint32_t absent = 0;
};

// Where a row-parallel linear of many rows writes its one node's values instead of `partials`: blocks of kBlock rows by turns to
// `count` places in the memory of several GPUs, block b's to values[b % count] + b / count * kBlock * outputs, a row of `outputs`
// behind the other. Whoever reads them waits for the linear's end.
struct RowOwners {
  static constexpr int kMost = 8, kBlock = 128;
  int count = 0;              // 2, 4 or 8; 0: values go to `partials`
  float* values[kMost] = {};  // 16-byte aligned

  // Rows of owner `owner` among `rows`, and which row of all its `i`-th one is.
  INVAR_HD static int64_t held(int64_t rows, int count, int owner) {
    const int64_t turns = rows / (kBlock * count), rest = rows % (kBlock * count) - int64_t{owner} * kBlock;
    return turns * kBlock + (rest < 0 ? 0 : rest < kBlock ? rest : kBlock);
  }
  INVAR_HD static int64_t row_of(int count, int owner, int64_t i) { return (i / kBlock * count + owner) * kBlock + i % kBlock; }
};

// Row-parallel: the rank holds k of segments [first, last), i.e. weights.inputs() == begin[last] - begin[first] and x starts at
// begin[first]. Writes one fp32 value per output and node: partials[i * node_stride + m * outputs + n] for node i of `nodes`.
struct RowLinear {
  int64_t rows = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  const PackedWeights* weights = nullptr;
  RowSegments segments;
  int first = 0;
  int last = numerics::kSegments;
  std::vector<TreeNode> nodes;  // maximal_subtrees(segments, first, last)
  float* partials = nullptr;
  int64_t node_stride = 0;  // elements from one node's values to the next one's; 0: rows * outputs, one behind the other
  // Only where `nodes` is the root alone: the result instead of the root's values, y = bf(RN(root + bias)) or bf(root),
  // [rows][outputs]. What lies in `partials` then means nothing.
  Bf16* y = nullptr;
  const Bf16* bias = nullptr;  // [outputs] or null
  // Only where row_adds_residual(): y is a residual stream that the result is added to, y = residual(y, what y would be).
  bool adds = false;
  // Only where row_sends(): the kernel behind this one may read them before this one has ended. It begins behind all that was
  // queued before this one.
  RowTargets targets;
  RowOwners owners;  // only where row_deals()
};
void linear_row(const Device& device, const RowLinear& problem);
void linear_row_reference(Profile profile, const RowLinear& problem);
// Does linear_row write y in one pass? If not, it writes the root and rounds it in a second one, which a caller who merges nodes
// together with his next step does not need. Looks at everything but y and bias.
bool row_finishes(const Device& device, const RowLinear& problem);
// Does it so when y is a residual stream, too? Looks at y, but not at bias and adds. On a GPU only for more rows than those of a
// decode step, which has less to do if the addition is left to the norm that follows.
bool row_adds_residual(const Device& device, const RowLinear& problem);
// Can linear_row write to targets, for a rank that holds segments [first, last) and ships `nodes`? The same answer on each rank
// that asks about the same share.
bool row_sends(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
               const std::vector<TreeNode>& nodes);
// Can it write to owners, for a rank whose x begins with segment `first` and who ships that node alone? Likewise.
bool row_deals(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, const TreeNode& node);
inline bool root_alone(const std::vector<TreeNode>& nodes) {
  return nodes.size() == 1 && 1 << nodes[0].level == numerics::kSegments;
}

inline int64_t node_stride(const RowLinear& p) { return p.node_stride ? p.node_stride : p.rows * p.weights->outputs(); }

// y = bf(RN(root + bias)), or bf(root) without bias. `outputs` elements a row, rows contiguous.
void finish_row_linear(const Device& device, const float* root, const Bf16* bias, int64_t rows, int64_t outputs, Bf16* y);

}  // namespace invar
