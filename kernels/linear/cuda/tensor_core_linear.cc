#include "kernels/linear/cuda/tensor_core_linear.h"

#include <stdexcept>

#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_decode.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_prefill.h"

namespace invar::cuda::tc {
namespace {

bool one_order(const Device& device) {
  return device.control_arm() != ControlArm::kSwappedGroups && device.control_arm() != ControlArm::kFixedSplitCount;
}

// The fast schedules fetch x through tensor maps and know one order.
bool fast(const Device& device, const Bf16* x, int64_t x_stride) {
  return reinterpret_cast<uintptr_t>(x) % 16 == 0 && x_stride % 8 == 0 && one_order(device);
}

bool decode(const Device& device, const RowLinear& p) {
  const auto shape = linear_shape(p);
  if (shape) decode_row(device, p, *shape, decode_plan(*shape, chip_of(device)));
  return shape.has_value();
}

struct Launch {
  LinearShape shape;
  PrefillPlan plan;
};
// A launch for each node: equal shares of 1, 2, 4 or 8 ranks have one. None where the prefill schedule does not take the share.
std::vector<Launch> prefill_launches(const Device& device, const RowLinear& p) {
  std::vector<Launch> launches;
  if (p.rows <= kMostDecodeRows || !fast(device, p.x, p.x_stride)) return launches;
  for (const TreeNode& node : p.nodes) {
    const auto shape = linear_shape(p.rows, p.weights->outputs(), p.segments, p.first, node);
    const auto plan = shape ? prefill_plan(*shape, chip_of(device)) : std::nullopt;
    if (!plan) return {};
    launches.push_back({*shape, *plan});
  }
  return launches;
}

}  // namespace

void linear_column(const Device& device, const ColumnLinear& p) {
  const int64_t outputs = p.weights->outputs();
  if (p.rows == 0 || outputs == 0) return;
  if (fast(device, p.x, p.x_stride)) {
    if (const auto shape = linear_shape(p.rows, outputs, p.weights->inputs())) {
      if (p.rows <= kMostDecodeRows) return decode_column(device, p, *shape, decode_plan(*shape, chip_of(device)));
      if (const auto plan = prefill_plan(*shape, chip_of(device))) return prefill_column(device, p, *shape, *plan);
    }
  }
  generic_column(device, p);
}

bool linear_gated(const Device& device, const GatedLinear& p) {
  const PackedWeights& w = p.weights->matrix();
  const auto shape = fast(device, p.x, p.x_stride) ? linear_shape(p.rows, w.outputs(), w.inputs()) : std::nullopt;
  if (!shape || p.rows == 0) return false;
  const ColumnLinear column{.rows = p.rows,
                            .x = p.x,
                            .x_stride = p.x_stride,
                            .weights = &w,
                            .bias = p.weights->bias(),
                            .y = p.y,
                            .y_stride = p.y_stride};
  if (p.rows <= kMostDecodeRows) {
    decode_column(device, column, *shape, decode_plan(*shape, chip_of(device), 2 * kGatedRun), p.weights->width());
  } else {
    prefill_column(device, column, *shape, *prefill_plan(*shape, chip_of(device), true), p.weights->width());
  }
  return true;
}

void linear_row(const Device& device, const RowLinear& p) {
  if (p.rows == 0 || p.weights->outputs() == 0 || p.nodes.empty()) return;
  const std::vector<Launch> launches = prefill_launches(device, p);
  if (p.adds && (launches.empty() || !row_adds_residual(p)))
    throw std::logic_error("a row-parallel linear that adds to a residual stream, which row_adds_residual() denies");
  for (size_t i = 0; i < launches.size(); ++i) prefill_row(device, p, static_cast<int>(i), launches[i].shape, launches[i].plan);
  if (!launches.empty()) return;
  if (p.owners.count) throw std::logic_error("a row-parallel linear with owners that row_deals() does not know");
  if (p.rows > kMostDecodeRows || !fast(device, p.x, p.x_stride) || !decode(device, p)) {
    if (p.targets.count) throw std::logic_error("a row-parallel linear with targets that row_sends() does not know");
    generic_row(device, p);
  }
  if (p.y) cuda::finish_row_linear(device, p.partials, p.bias, p.rows, p.weights->outputs(), p.y);
}

bool row_finishes(const Device& device, const RowLinear& p) { return !prefill_launches(device, p).empty(); }

// The stream comes through the copy engine.
bool row_adds_residual(const RowLinear& p) { return reinterpret_cast<uintptr_t>(p.y) % 16 == 0 && p.weights->outputs() % 8 == 0; }

bool row_sends(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
               const std::vector<TreeNode>& nodes) {
  constexpr int64_t kPiece = 8;  // outputs: what leaves a tile is whole pieces, and x is aligned wherever a share begins
  if (rows > kMostDecodeRows || outputs % kPiece || nodes.empty() || !one_order(device)) return false;
  return linear_shape(rows, outputs, segments, first, last, nodes).has_value();
}

bool row_deals(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first,
               const TreeNode& node) {
  constexpr int64_t kPiece = 8;  // outputs: rows that the copy engine writes, and x is aligned wherever a share begins
  if (rows <= kMostDecodeRows || outputs % kPiece || !one_order(device)) return false;
  const auto shape = linear_shape(rows, outputs, segments, first, node);
  return shape && prefill_plan(*shape, chip_of(device));
}

}  // namespace invar::cuda::tc
