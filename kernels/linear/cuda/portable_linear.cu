// Problem -> plan -> launch of the `portable` linears.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/portable_any_shape.cuh"
#include "kernels/linear/cuda/portable_linear.h"
#include "kernels/linear/cuda/portable_run.h"
#include "kernels/linear/cuda/portable_stream.cuh"
#include "kernels/linear/cuda/portable_tiles.cuh"

namespace invar::cuda::portable {

namespace {

const uint32_t* words_of(const Work& work) { return reinterpret_cast<const uint32_t*>(work.weights); }

void run_any_shape(const Device& device, const Work& work) {
  constexpr int64_t kMostRows = int64_t{65535} * kAnyShapeRows;  // a grid's second dimension has no more blocks
  for (int64_t first = 0; first < work.target.rows; first += kMostRows) {
    Target part = work.target;
    part.rows = std::min(part.rows - first, kMostRows);
    if (part.y) part.y += first * part.y_stride;
    if (part.y_fp32) part.y_fp32 += first * part.y_stride;
    if (part.partials) part.partials += first * part.outputs;
    const dim3 grid(static_cast<unsigned>(panels(part.outputs)),
                    static_cast<unsigned>((part.rows + kAnyShapeRows - 1) / kAnyShapeRows));
    launch(device, {.grid = grid, .block = kAnyShapeRows * 64, .dependent = true}, any_shape, work.order, part,
           work.x + first * work.x_stride, work.x_stride, words_of(work), work.inputs);
  }
}

void run_stream(const Device& device, const Work& work, const Plan& plan) {
  const bool grouped = work.groups > 0;
  const auto kernel = grouped ? (plan.pass_rows <= 2   ? stream<2, true>
                                 : plan.pass_rows == 4 ? stream<4, true>
                                 : plan.pass_rows == 8 ? stream<8, true>
                                                       : stream<16, true>)
                              : (plan.pass_rows == 1   ? stream<1, false>
                                 : plan.pass_rows == 2 ? stream<2, false>
                                 : plan.pass_rows == 4 ? stream<4, false>
                                 : plan.pass_rows == 8 ? stream<8, false>
                                                       : stream<16, false>);
  const StreamProblem problem{work.x,      work.x_stride, words_of(work),     work.inputs,
                              plan.stages, plan.clusters, work.group_weights, work.offsets};
  launch(device,
         {.grid = dim3(static_cast<unsigned>(plan.clusters * plan.cluster),
                       static_cast<unsigned>(grouped ? work.groups : plan.passes)),
          .block = static_cast<unsigned>(plan.warps * 32),
          .shared = plan.shared,
          .cluster = static_cast<unsigned>(plan.cluster),
          .dependent = true},
         kernel, work.order, work.target, problem);
}

void run_tiles(const Device& device, const Work& work, const Plan& plan) {
  const Target& target = work.target;
  const bool wide = target.y && target.y_stride % 4 == 0 && reinterpret_cast<uintptr_t>(target.y) % 8 == 0;
  const TileProblem problem{work.x, work.x_stride, words_of(work), work.inputs, wide};
  const dim3 grid(static_cast<unsigned>((target.outputs + kTileOutputs - 1) / kTileOutputs),
                  static_cast<unsigned>((target.rows + plan.tile_rows - 1) / plan.tile_rows));
  const auto kernel = plan.tile_rows == 256 ? tiles<16, 4> : tiles<8, 8>;
  launch(device, {.grid = grid, .block = kTileThreads, .shared = plan.shared, .dependent = true}, kernel, work.order, target,
         problem);
}

Work work_of(const PackedWeights& weights, const Bf16* x, int64_t x_stride, int64_t rows) {
  Work work;
  work.weights = weights.data();
  work.inputs = weights.inputs();
  work.x = x;
  work.x_stride = x_stride;
  work.aligned = x_stride % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  work.target.rows = rows;
  work.target.outputs = weights.outputs();
  return work;
}

void run(const Device& device, const Work& work) {
  if (work.target.rows == 0 || work.target.outputs == 0) return;
  run(device, work, make_plan(machine_of(device), work.order, work.target, work.aligned));
}

}  // namespace

void set_nodes(const RowSegments& segments, int first, int last, const std::vector<TreeNode>& nodes, float* partials,
               int64_t node_stride, Target* target) {
  target->row_parallel = true;
  target->partials = partials;
  target->node_stride = node_stride;
  for (int s = first; s < last; ++s) target->held |= static_cast<uint32_t>(!segments.empty(s, s + 1)) << s;
  for (const TreeNode& node : nodes) {
    target->level[target->nodes] = static_cast<int8_t>(node.level);
    target->index[target->nodes++] = static_cast<int8_t>(node.index);
  }
  for (int segment = first; segment < last; ++segment)
    for (int level = 0, index = segment; level <= 3; ++level, index /= 2) {
      uint32_t action = index % 2 == 0 ? kWait : kAdd;
      if (!(target->held & segments_of(level, index ^ 1))) action = kPass;
      for (size_t i = 0; i < nodes.size(); ++i)
        if (nodes[i].level == level && nodes[i].index == index) action = kStore + static_cast<uint32_t>(i);
      target->climb[segment] |= static_cast<uint16_t>(action << (4 * level));
      if (action == kWait || action >= kStore) break;
    }
}

Machine machine_of(const Device& device) { return {device.cuda().multiprocessors, device.cuda().shared_memory}; }

Work work_of(const Device& device, const ColumnLinear& p) {
  Work work = work_of(*p.weights, p.x, p.x_stride, p.rows);
  work.order = column_leaves(device.control_arm(), p.rows, p.weights->inputs());
  work.target.bias = p.bias;
  work.target.y = p.y;
  work.target.y_fp32 = p.y_fp32;
  work.target.y_stride = p.y_stride;
  return work;
}

Work work_of(const Device& device, const RowLinear& p) {
  Work work = work_of(*p.weights, p.x, p.x_stride, p.rows);
  work.order = row_leaves(device.control_arm(), p.rows, p.segments, p.first, p.last);
  set_nodes(p.segments, p.first, p.last, p.nodes, p.partials, node_stride(p), &work.target);
  return work;
}

void run(const Device& device, const Work& work, const Plan& plan) {
  switch (plan.schedule) {
    case Schedule::kStream:
      return run_stream(device, work, plan);
    case Schedule::kTiles:
      return run_tiles(device, work, plan);
    case Schedule::kAnyShape:
      return run_any_shape(device, work);
  }
}

void linear_column(const Device& device, const ColumnLinear& p) { run(device, work_of(device, p)); }
void linear_row(const Device& device, const RowLinear& p) {
  if (!p.nodes.empty()) run(device, work_of(device, p));
}

}  // namespace invar::cuda::portable
