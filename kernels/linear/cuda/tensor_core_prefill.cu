#include <stdexcept>

#include "kernels/linear/cuda/tensor_core_prefill.cuh"
#include "kernels/linear/cuda/tensor_core_prefill.h"

namespace invar::cuda::tc {

void prefill_column(const Device& device, const ColumnLinear& p, const LinearShape& shape, const PrefillPlan& plan,
                    int64_t gated_width) {
  if (gated_width > 0 && !prefill_gates(plan.merge, plan.columns))
    throw std::logic_error("a gated linear by tiles that write gate and up apart: " + plan.describe());
  prefill::PrefillTask task = prefill::task_of(shape, plan);
  task.gate(gated_width);
  task.weights = p.weights->data();
  task.bias = p.bias;
  task.y = p.y;
  task.y_fp32 = p.y_fp32;
  task.y_stride = p.y_stride;
  prefill::run(device, p.x, p.x_stride, p.weights->inputs(), shape, plan, task);
}

void prefill_row(const Device& device, const RowLinear& p, int node, const LinearShape& shape, const PrefillPlan& plan) {
  prefill::PrefillTask task = prefill::task_of(shape, plan);
  task.weights = p.weights->data();
  if (p.y) {
    task.y = p.y;
    task.bias = p.bias;
    task.adds = p.adds;
  } else if (p.owners.count) {
    task.y_fp32 = p.owners.values[0];
  } else {
    task.y_fp32 = p.partials + node * node_stride(p);
  }
  task.y_stride = p.weights->outputs();
  prefill::run(device, p.x, p.x_stride, p.weights->inputs(), shape, plan, task, p.owners);
}

}  // namespace invar::cuda::tc
