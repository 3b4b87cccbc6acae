#include "kernels/linear/cuda/portable_grouped.h"

#include "kernels/linear/cuda/portable_layout.h"
#include "kernels/linear/cuda/portable_run.h"

namespace invar::cuda::portable {

namespace {

Work work_of(const GroupedLinear& p) {
  Work work;
  work.inputs = p.inputs;
  work.x = p.x;
  work.x_stride = p.x_stride;
  work.aligned = p.x_stride % 8 == 0 && reinterpret_cast<uintptr_t>(p.x) % 16 == 0;
  work.groups = p.groups;
  work.group_weights = p.weights;
  work.offsets = p.offsets;
  work.target.rows = p.rows;
  work.target.outputs = p.outputs;
  return work;
}

Work column_work(const Device& device, const GroupedLinear& p, Bf16* y, int64_t y_stride) {
  Work work = work_of(p);
  work.order = column_leaves(device.control_arm(), p.rows, p.inputs);
  work.target.y = y;
  work.target.y_stride = y_stride;
  return work;
}

Work row_work(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
              const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride) {
  Work work = work_of(p);
  work.order = row_leaves(device.control_arm(), p.rows, segments, first, last);
  set_nodes(segments, first, last, nodes, partials, node_stride, &work.target);
  return work;
}

// How the rows are spread over the groups is not known here: passes of about twice their average, several blocks on a
// multiprocessor, one for each panel, so that groups without rows cost nothing but their launch.
Plan plan_of(const Device& device, const Work& work) {
  if (!work.aligned || work.groups == 0 || work.groups > 65535) return Plan{};
  int pass_rows = 2;
  while (pass_rows < kMostPassRows && pass_rows * work.groups < 2 * work.target.rows) pass_rows *= 2;
  Target pass = work.target;
  pass.rows = pass_rows;
  for (const int resident : {4, 2, 1})
    for (const int cluster : {1, 2, 4, 8}) {
      Plan plan = stream_plan(machine_of(device), work.order, pass, pass_rows, cluster, resident, 0);
      if (plan.schedule != Schedule::kStream) continue;
      plan.clusters = static_cast<int>(panels(work.target.outputs));
      return plan;
    }
  return Plan{};
}

}  // namespace

bool grouped_column_fits(const Device& device, const GroupedLinear& p) {
  return plan_of(device, column_work(device, p, nullptr, 0)).schedule == Schedule::kStream;
}

bool grouped_row_fits(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
                      const std::vector<TreeNode>& nodes) {
  return plan_of(device, row_work(device, p, segments, first, last, nodes, nullptr, 0)).schedule == Schedule::kStream;
}

void grouped_column(const Device& device, const GroupedLinear& p, Bf16* y, int64_t y_stride) {
  if (p.rows == 0) return;
  const Work work = column_work(device, p, y, y_stride);
  run(device, work, plan_of(device, work));
}

void grouped_row(const Device& device, const GroupedLinear& p, const RowSegments& segments, int first, int last,
                 const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride) {
  if (p.rows == 0 || nodes.empty()) return;
  const Work work = row_work(device, p, segments, first, last, nodes, partials, node_stride);
  run(device, work, plan_of(device, work));
}

}  // namespace invar::cuda::portable
