#include "kernels/linear/cuda/tensor_core_decode.cuh"
#include "kernels/linear/cuda/tensor_core_decode.h"

namespace invar::cuda::tc {

Chip chip_of(const Device& device) {
  return {.multiprocessors = device.cuda().multiprocessors, .block_shared = device.cuda().shared_memory};
}

void decode_column(const Device& device, const ColumnLinear& p, const LinearShape& shape, const DecodePlan& plan,
                   int64_t gated_width) {
  decode::DecodeTask task = decode::task_of(shape, plan);
  task.weights = p.weights->data();
  task.bias = p.bias;
  task.gated_width = static_cast<int>(gated_width);
  task.y = p.y;
  task.y_fp32 = p.y_fp32;
  task.y_stride = p.y_stride;
  decode::run<false, false>(device, p.x, p.x_stride, plan, task);
}

void decode_row(const Device& device, const RowLinear& p, const LinearShape& shape, const DecodePlan& plan) {
  decode::DecodeTask task = decode::task_of(shape, plan);
  task.weights = p.weights->data();
  task.tree = tree_delivery(p);
  task.partials = p.partials;
  task.node_stride = node_stride(p);
  task.targets = p.targets;
  if (p.targets.count) task.node_stride = p.rows * p.weights->outputs();
  decode::run<true, false>(device, p.x, p.x_stride, plan, task);
}

}  // namespace invar::cuda::tc
