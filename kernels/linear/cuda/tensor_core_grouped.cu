#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_decode.cuh"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/linear/cuda/tensor_core_grouped_prefill.cuh"

namespace invar::cuda::tc {
namespace {

// Groups of up to this many rows on average go through the decode schedule, in tiles of as many rows as the average has.
constexpr int64_t kDecodeRows = 48;

int64_t average_rows(const GroupedLinear& p) { return (p.rows + p.groups - 1) / p.groups; }

bool plain(const Device& device, const GroupedLinear& p) {
  return p.groups <= kMostGroups && p.rows / grouped::kTileRows + p.groups <= grouped::kMostRowTiles &&
         reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && p.x_stride % 8 == 0 &&
         device.control_arm() != ControlArm::kSwappedGroups && device.control_arm() != ControlArm::kFixedSplitCount;
}

Groups groups_of(const GroupedLinear& p) { return {.weights = p.weights, .offsets = p.offsets, .count = p.groups}; }

// A tile never holds rows of two groups; the last tile of a group is often nearly empty.
int64_t tile_rows(const GroupedLinear& p) { return std::min<int64_t>(kMostDecodeRows, 2 * average_rows(p)); }

// Outputs of a tile, a multiple of 16, so that few experts' tiles are as many as blocks, or nearly.
int tile_outputs(const GroupedLinear& p, int blocks) {
  const int64_t touched = std::min<int64_t>(p.groups, p.rows);  // at most
  int best = 64;
  double used = 0;
  for (int outputs : {64, 48, 32}) {
    const int64_t tiles = touched * ((p.outputs + outputs - 1) / outputs), rounds = (tiles + blocks - 1) / blocks;
    const double share = static_cast<double>(tiles) / static_cast<double>(rounds * blocks);
    if (share < used + 0.05) continue;
    best = outputs;
    used = share;
  }
  return best;
}

DecodePlan grouped_plan(const GroupedLinear& p, const LinearShape& shape, const Chip& chip) {
  for (int k_groups : {1, 2, 4})  // a k group more where one has too many segments to merge
    for (int resident : {2, 1}) {
      const int blocks = chip.multiprocessors * resident;
      if (auto plan =
              decode_plan(shape, {.tile_outputs = tile_outputs(p, blocks), .k_groups = k_groups, .resident = resident}, chip)) {
        plan->grid = blocks;
        return *plan;
      }
    }
  DecodePlan plan = *decode_plan(shape, {.tile_outputs = 16}, chip);
  plan.grid = chip.multiprocessors;
  return plan;
}

bool many_rows(const GroupedLinear& p) { return p.many_rows || average_rows(p) > kDecodeRows; }

void prefill_groups(const Device& device, const GroupedLinear& p, const LinearShape& shape, int64_t gated_width, Bf16* y,
                    float* y_fp32, int64_t y_stride) {
  grouped::GroupedTask task{};
  task.groups = groups_of(p);
  task.rows = shape.rows;
  task.outputs = shape.outputs;
  task.padded = static_cast<int>(padded_outputs(shape.outputs));
  task.leaves = shape.leaves();
  task.first_block = shape.leaf_begin.front();
  task.last_block = shape.leaf_begin.back();
  task.by_segments = shape.by_segments;
  if (shape.by_segments) std::copy(shape.leaf_begin.begin(), shape.leaf_begin.end(), task.leaf_begin);
  task.gated = gated_width > 0;
  task.y_columns = task.gated ? static_cast<int>(gated_width) : task.outputs;
  task.x = p.x;
  task.x_stride = p.x_stride;
  task.index = p.index;
  task.y = y;
  task.y_fp32 = y_fp32;
  task.y_stride = y_stride;
  using enum PrefillMerge;
  const bool rounds = y && task.last_block - task.first_block >= grouped::kMostBeside;
  if (shape.leaves() == 1 && rounds) return grouped::run<kChain, 256>(device, p.inputs, task);
  if (shape.by_segments && shape.leaves() == 8) return grouped::run<kTree, 128, 8>(device, p.inputs, task);
  if (shape.by_segments && shape.leaves() == 4) return grouped::run<kTree, 128, 4>(device, p.inputs, task);
  grouped::run<kFold, 192>(device, p.inputs, task);
}

void column(const Device& device, const GroupedLinear& p, int64_t gated_width, Bf16* y, int64_t y_stride) {
  if (p.rows == 0 || p.groups == 0 || p.outputs == 0) return;
  if (many_rows(p)) {
    const LinearShape shape = *linear_shape(p.rows, p.outputs, p.inputs);
    return prefill_groups(device, p, shape, gated_width, y, nullptr, y_stride);
  }
  const LinearShape shape = *linear_shape(tile_rows(p), p.outputs, p.inputs);
  const DecodePlan plan = grouped_plan(p, shape, chip_of(device));
  decode::DecodeTask task = decode::task_of(shape, plan);
  task.groups = groups_of(p);
  task.settled = p.settled;
  task.index = p.index;
  task.rows = static_cast<int>(p.rows);
  task.gated_width = static_cast<int>(gated_width);
  task.y = y;
  task.y_stride = y_stride;
  decode::run<false, true>(device, p.x, p.x_stride, plan, task);
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
    if (!shape || (shape->leaves() & (shape->leaves() - 1))) return false;
  }
  return true;
}

void grouped_column(const Device& device, const GroupedLinear& p, Bf16* y, int64_t y_stride) {
  column(device, p, 0, y, y_stride);
}

void grouped_gated(const Device& device, const GroupedLinear& p, int64_t width, Bf16* y, int64_t y_stride) {
  column(device, p, width, y, y_stride);
}

bool grouped_gated_takes_index(const GroupedLinear& p) { return many_rows(p) || tile_rows(p) <= 8; }

void grouped_row(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
                 const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride, Bf16* y) {
  if (p.rows == 0 || p.groups == 0 || p.outputs == 0) return;
  const Chip chip = chip_of(device);
  if (!many_rows(p)) {
    const LinearShape shape = *linear_shape(tile_rows(p), p.outputs, segments, first, last, nodes);
    const DecodePlan plan = grouped_plan(p, shape, chip);
    const bool rounds = y && plan.subtrees;
    decode::DecodeTask task = decode::task_of(shape, plan);
    task.groups = groups_of(p);
    task.settled = p.settled;
    task.rows = static_cast<int>(p.rows);
    if (rounds) task.y = y;
    task.tree = tree_delivery(segments, first, last, nodes);
    task.partials = partials;
    task.node_stride = node_stride;
    decode::run<true, true>(device, p.x, p.x_stride, plan, task);
    if (y && !rounds) cuda::finish_row_linear(device, partials, nullptr, p.rows, p.outputs, y);
    return;
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const LinearShape shape = *linear_shape(p.rows, p.outputs, segments, first, nodes[i]);
    float* node = partials + static_cast<int64_t>(i) * node_stride;
    prefill_groups(device, p, shape, 0, y, y ? nullptr : node, p.outputs);
  }
}

}  // namespace invar::cuda::tc
