#include "kernels/linear/cuda/tensor_core_linear.h"

#include "kernels/linear/cuda/tensor_core_decode.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_prefill.h"

namespace invar::cuda::tc {
namespace {

// The fast schedules fetch x through tensor maps and know one order.
bool fast(const Device& device, const Bf16* x, int64_t x_stride) {
  return reinterpret_cast<uintptr_t>(x) % 16 == 0 && x_stride % 8 == 0 && device.control_arm() != ControlArm::kSwappedGroups &&
         device.control_arm() != ControlArm::kFixedSplitCount;
}

bool decode(const Device& device, const RowLinear& p) {
  const auto shape = linear_shape(p);
  if (shape) decode_row(device, p, *shape, decode_plan(*shape, chip_of(device)));
  return shape.has_value();
}

// A launch for each node: equal shares of 1, 2, 4 or 8 ranks have one.
bool prefill(const Device& device, const RowLinear& p) {
  struct Launch {
    LinearShape shape;
    PrefillPlan plan;
  };
  std::vector<Launch> launches;
  for (const TreeNode& node : p.nodes) {
    const auto shape = linear_shape(p.rows, p.weights->outputs(), p.segments, p.first, node);
    const auto plan = shape ? prefill_plan(*shape, chip_of(device)) : std::nullopt;
    if (!plan) return false;
    launches.push_back({*shape, *plan});
  }
  for (size_t i = 0; i < launches.size(); ++i) prefill_row(device, p, static_cast<int>(i), launches[i].shape, launches[i].plan);
  return true;
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

bool linear_gated(const Device&, const GatedLinear&) { return false; }

void linear_row(const Device& device, const RowLinear& p) {
  if (p.rows == 0 || p.weights->outputs() == 0 || p.nodes.empty()) return;
  if (fast(device, p.x, p.x_stride) && (p.rows <= kMostDecodeRows ? decode(device, p) : prefill(device, p))) return;
  generic_row(device, p);
}

}  // namespace invar::cuda::tc
