// The order clause in plain scalar code, with numerics.h and nothing else. Slow; every schedule must give these bits.
#include <algorithm>
#include <vector>

#include "kernels/linear/linear.h"

namespace invar {

using numerics::kSegments;

namespace {

float chain(Profile profile, const Bf16* x, const Bf16* w, int64_t count) {
  float acc = 0.0f;
  if (profile == Profile::kPortable) {
    for (int64_t k = 0; k < count; ++k) acc = numerics::fma(numerics::widen(x[k]), numerics::widen(w[k]), acc);
  } else {
    for (int64_t k = 0; k < count; k += numerics::kTensorCoreGroup)
      acc = numerics::tensor_core_step(acc, x + k, w + k,
                                       static_cast<int>(std::min<int64_t>(count - k, numerics::kTensorCoreGroup)));
  }
  return acc;
}

// Leaves of `leaf` (0 = all of it is one), folded left.
float fold(Profile profile, const Bf16* x, const Bf16* w, int64_t count, int64_t leaf) {
  if (leaf == 0) leaf = std::max<int64_t>(count, 1);
  float y = 0.0f;
  for (int64_t k = 0; k < count; k += leaf) {
    const float v = chain(profile, x + k, w + k, std::min(leaf, count - k));
    y = k == 0 ? v : numerics::add(y, v);
  }
  return y;
}

std::vector<Bf16> output_weights(const PackedWeights& weights, int64_t n) {
  std::vector<Bf16> w(static_cast<size_t>(weights.inputs()));
  for (int64_t k = 0; k < weights.inputs(); ++k) w[k] = weights.at(n, k);
  return w;
}

// Value of a node; false when all its segments are empty.
bool node_value(const std::vector<float>& segment, const RowSegments& segments, TreeNode node, float* value) {
  if (segments.empty(node.index << node.level, (node.index + 1) << node.level)) return false;
  if (node.level == 0) {
    *value = segment[node.index];
    return true;
  }
  float left = 0, right = 0;
  const bool has_left = node_value(segment, segments, {node.level - 1, node.index * 2}, &left);
  const bool has_right = node_value(segment, segments, {node.level - 1, node.index * 2 + 1}, &right);
  *value = has_left && has_right ? numerics::add(left, right) : has_left ? left : right;
  return true;
}

}  // namespace

void linear_column_reference(Profile profile, const ColumnLinear& p) {
  const PackedWeights& weights = *p.weights;
  for (int64_t n = 0; n < weights.outputs(); ++n) {
    const std::vector<Bf16> w = output_weights(weights, n);
    for (int64_t m = 0; m < p.rows; ++m) {
      float y = fold(profile, p.x + m * p.x_stride, w.data(), weights.inputs(), numerics::column_leaf(profile));
      if (p.bias) y = numerics::add(y, numerics::widen(p.bias[n]));
      if (p.y) p.y[m * p.y_stride + n] = numerics::bf(y);
      if (p.y_fp32) p.y_fp32[m * p.y_stride + n] = y;
    }
  }
}

void linear_row_reference(Profile profile, const RowLinear& p) {
  const PackedWeights& weights = *p.weights;
  const int64_t origin = p.segments.begin[p.first];
  for (int64_t n = 0; n < weights.outputs(); ++n) {
    const std::vector<Bf16> w = output_weights(weights, n);
    for (int64_t m = 0; m < p.rows; ++m) {
      std::vector<float> segment(kSegments, 0.0f);
      for (int i = p.first; i < p.last; ++i) {
        const int64_t begin = p.segments.begin[i] - origin, end = p.segments.begin[i + 1] - origin;
        segment[i] = fold(profile, p.x + m * p.x_stride + begin, w.data() + begin, end - begin, numerics::row_leaf(profile));
      }
      for (size_t i = 0; i < p.nodes.size(); ++i) {
        float value = 0;
        node_value(segment, p.segments, p.nodes[i], &value);
        if (p.y) {
          Bf16& y = p.y[m * weights.outputs() + n];
          const Bf16 rounded = numerics::bf(p.bias ? numerics::add(value, numerics::widen(p.bias[n])) : value);
          y = p.adds ? numerics::residual(y, rounded) : rounded;
          continue;
        }
        p.partials[static_cast<int64_t>(i) * node_stride(p) + m * weights.outputs() + n] = value;
      }
    }
  }
}

}  // namespace invar
