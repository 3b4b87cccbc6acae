#include "kernels/merge/merge.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/linear/row_tree.h"
#include "kernels/merge/cuda/merge.h"
#include "kernels/norm/residual_norm.h"

namespace invar {
namespace {

constexpr int64_t kBlock = 4096;  // elements handed to one worker: small enough to stay in its first cache
constexpr numerics::TreeNode kRoot{3, 0};
static_assert(1 << kRoot.level == numerics::kSegments);

// What an ordinary all-reduce does: left to right, whoever is there.
void add_in_order(const float* const* values, size_t terms, int64_t count, float* sum) {
  if (terms == 0)
    std::memset(sum, 0, count * sizeof(float));
  else if (sum != values[0])
    std::memcpy(sum, values[0], count * sizeof(float));
  for (size_t i = 1; i < terms; ++i)
    for (int64_t k = 0; k < count; ++k) sum[k] = numerics::add(sum[k], values[i][k]);
}

// A block may begin and end inside a row: the ragged ends are finished as shorter rows of their own.
void finish(const Device& device, const MergeNodes& p, const float* root, int64_t first, int64_t count) {
  for (int64_t at = 0; at < count;) {
    const int64_t column = (first + at) % p.outputs;
    const bool whole = column == 0 && count - at >= p.outputs;
    const int64_t rows = whole ? (count - at) / p.outputs : 1;
    const int64_t length = whole ? p.outputs : std::min(p.outputs - column, count - at);
    finish_row_linear(device, root + at, p.bias ? p.bias + column : nullptr, rows, length, p.y + first + at);
    at += rows * length;
  }
}

}  // namespace

void merge_nodes_reference(const MergeNodes& p) {
  const std::vector<numerics::TreeNode> nodes(p.nodes.begin(), p.nodes.end());
  for (int64_t e = p.begin; e < p.end; ++e) {
    std::vector<float> values;
    for (size_t i = 0; i < nodes.size(); ++i) values.push_back(p.values[i][e - p.begin]);
    float root = values.empty() ? 0.0f : values[0];
    if (p.listed_order)
      for (size_t i = 1; i < values.size(); ++i) root = numerics::add(root, values[i]);
    else
      root = merge_to_root(nodes, values.data(), 1);
    if (p.bias) root = numerics::add(root, numerics::widen(p.bias[e % p.outputs]));
    p.y[e] = numerics::bf(root);
  }
}

// A root lives for one block only, in cache: it is rounded to y before the next block is merged.
void merge_nodes(const Device& device, const MergeNodes& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::merge_nodes(device, p);
  const TreeMerge tree({p.nodes.begin(), p.nodes.end()}, kRoot);
  device.pool().run((p.end - p.begin + kBlock - 1) / kBlock, [&](int64_t block) {
    const int64_t first = p.begin + block * kBlock;
    const int64_t count = std::min(kBlock, p.end - first);
    std::array<const float*, numerics::kSegments> from{};
    for (size_t i = 0; i < p.nodes.size(); ++i) from[i] = p.values[i] + (first - p.begin);
    alignas(64) std::array<float, kBlock> root;
    if (p.listed_order)
      add_in_order(from.data(), p.nodes.size(), count, root.data());
    else
      tree.apply(from.data(), count, root.data());
    finish(device, p, root.data(), first, count);
  });
}

void add_listed(const Device& device, std::span<const float* const> values, int64_t count, float* sum) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::add_listed(device, values, count, sum);
  add_in_order(values.data(), values.size(), count, sum);
}

void merge_residual_norm(const Device& device, const MergeResidualNorm& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::merge_residual_norm(device, p);
  MergeNodes merge = p.merge;
  std::vector<Bf16> unread;
  if (!merge.y) {
    unread.resize(merge.end);
    merge.y = unread.data();
  }
  merge_nodes(device, merge);
  residual_rms_norm(device, {.rows = merge.end / merge.outputs,
                             .width = merge.outputs,
                             .x = p.x,
                             .y = merge.y,
                             .weight = p.weight,
                             .epsilon = p.epsilon,
                             .normed = p.normed});
}

}  // namespace invar
