#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_decode.cuh"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/linear/cuda/tensor_core_prefill.cuh"

namespace invar::cuda::tc {
namespace {

// Groups of up to this many rows on average go through the decode schedule, in tiles of as many rows as the average has.
constexpr int64_t kDecodeRows = 48;

int64_t average_rows(const GroupedLinear& p) { return (p.rows + p.groups - 1) / p.groups; }

bool plain(const Device& device, const GroupedLinear& p) {
  return p.groups <= kMostGroups && reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && p.x_stride % 8 == 0 &&
         device.control_arm() != ControlArm::kSwappedGroups && device.control_arm() != ControlArm::kFixedSplitCount;
}

Groups groups_of(const GroupedLinear& p) { return {.weights = p.weights, .offsets = p.offsets, .count = p.groups}; }

// A tile never holds rows of two groups; the last tile of a group is often nearly empty.
int64_t tile_rows(const GroupedLinear& p) { return std::min<int64_t>(kMostDecodeRows, 2 * average_rows(p)); }

DecodePlan grouped_plan(const LinearShape& shape, const Chip& chip) {
  for (int k_groups : {1, 2, 4})  // a k group more where one has too many segments to merge
    for (int resident : {2, 1})
      if (auto plan = decode_plan(shape, {.k_groups = k_groups, .resident = resident}, chip)) {
        plan->grid = chip.multiprocessors * resident;
        return *plan;
      }
  DecodePlan plan = *decode_plan(shape, {.tile_outputs = 16}, chip);
  plan.grid = chip.multiprocessors;
  return plan;
}

PrefillPlan prefill_plan(const LinearShape& shape, const GroupedTile& tile, const Chip& chip) {
  const PrefillMerge merge = shape.leaves() == 1                       ? PrefillMerge::kChain
                             : shape.by_segments && shape.leaves() > 2 ? PrefillMerge::kTree
                                                                       : PrefillMerge::kFold;
  auto plan = prefill_plan(shape, merge, merge == PrefillMerge::kChain ? 256 : tile.columns, 1, chip);
  plan->lead = tile.lead;
  plan->grid = chip.multiprocessors;
  return *plan;
}

bool many_rows(const GroupedLinear& p) { return p.tile || average_rows(p) > kDecodeRows; }

void prefill_groups(const Device& device, const GroupedLinear& p, int64_t gated_width, Bf16* y, int64_t y_stride) {
  const LinearShape shape = *linear_shape(p.rows, p.outputs, p.inputs);
  const PrefillPlan plan = prefill_plan(shape, p.tile ? *p.tile : GroupedTile{.columns = 192}, chip_of(device));
  prefill::PrefillTask task = prefill::task_of(shape, plan);
  task.groups = groups_of(p);
  task.gate(gated_width);
  task.y = y;
  task.y_stride = y_stride;
  prefill::run<true>(device, p.x, p.x_stride, p.inputs, plan, task);
}

}  // namespace

bool grouped_column_fits(const Device& device, const GroupedLinear& p) {
  return plain(device, p) && linear_shape(1, p.outputs, p.inputs).has_value();
}

bool grouped_row_fits(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
                      const std::vector<TreeNode>& nodes) {
  if (!plain(device, p) || !linear_shape(1, p.outputs, segments, first, last, nodes)) return false;
  for (const TreeNode& node : nodes) {
    const auto shape = linear_shape(1, p.outputs, segments, first, node);
    if (!shape || !prefill_plan(*shape, {})) return false;
  }
  return true;
}

void grouped_column(const Device& device, const GroupedLinear& p, Bf16* y, int64_t y_stride) {
  if (p.rows == 0 || p.groups == 0 || p.outputs == 0) return;
  if (many_rows(p)) return prefill_groups(device, p, 0, y, y_stride);
  const Chip chip = chip_of(device);
  const LinearShape shape = *linear_shape(tile_rows(p), p.outputs, p.inputs);
  const DecodePlan plan = grouped_plan(shape, chip);
  decode::DecodeTask task = decode::task_of(shape, plan);
  task.groups = groups_of(p);
  task.rows = static_cast<int>(p.rows);
  task.y = y;
  task.y_stride = y_stride;
  decode::run<false, true>(device, p.x, p.x_stride, plan, task);
}

bool grouped_gated(const Device& device, const GroupedLinear& p, int64_t width, Bf16* y, int64_t y_stride) {
  if (!many_rows(p)) return false;
  prefill_groups(device, p, width, y, y_stride);
  return true;
}

void grouped_row(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
                 const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride, Bf16* y) {
  if (p.rows == 0 || p.groups == 0 || p.outputs == 0) return;
  const Chip chip = chip_of(device);
  if (!many_rows(p)) {
    const LinearShape shape = *linear_shape(tile_rows(p), p.outputs, segments, first, last, nodes);
    const DecodePlan plan = grouped_plan(shape, chip);
    decode::DecodeTask task = decode::task_of(shape, plan);
    task.groups = groups_of(p);
    task.rows = static_cast<int>(p.rows);
    task.tree = tree_delivery(segments, first, last, nodes);
    task.partials = partials;
    task.node_stride = node_stride;
    decode::run<true, true>(device, p.x, p.x_stride, plan, task);
    if (y) cuda::finish_row_linear(device, partials, nullptr, p.rows, p.outputs, y);
    return;
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const LinearShape shape = *linear_shape(p.rows, p.outputs, segments, first, nodes[i]);
    const PrefillPlan plan = prefill_plan(shape, p.tile ? *p.tile : GroupedTile{.columns = 128, .lead = 1}, chip);
    prefill::PrefillTask task = prefill::task_of(shape, plan);
    task.groups = groups_of(p);
    if (y) {
      task.y = y;
    } else {
      task.y_fp32 = partials + static_cast<int64_t>(i) * node_stride;
    }
    task.y_stride = p.outputs;
    prefill::run<true>(device, p.x, p.x_stride, p.inputs, plan, task);
  }
}

}  // namespace invar::cuda::tc
