// The MLPs of the experts a rank holds, over ragged groups of rows (clause 10): bf rows in, row-parallel partials out.
#pragma once

#include <span>

#include "kernels/device/device_array.h"
#include "kernels/linear/gated_linear.h"
#include "kernels/linear/linear.h"

namespace invar {

struct ExpertWeights {
  GatedWeights gate_up;  // [local intermediate][hidden] twice
  PackedWeights down;    // [hidden][local intermediate]
};

// The experts of a rank's layer as one launch for all of them finds their weights. Made once the weights are there; moving an
// ExpertWeights later leaves its memory where it is.
class ExpertTable {
 public:
  ExpertTable() = default;
  ExpertTable(const Device& device, std::span<const ExpertWeights* const> experts);
  // Device memory, [experts] each.
  const std::byte* const* gate_up() const { return gate_up_.data(); }
  const std::byte* const* down() const { return down_.data(); }

 private:
  DeviceArray<const std::byte*> gate_up_, down_;
};

// Rows of expert e are [offsets[e], offsets[e + 1]) of x. partials[(i * rows + m) * hidden + n] for node i, as RowLinear.
struct ExpertMlp {
  // Exactly one of the two: offsets on the host, on every backend, or where the device has them (order_by_expert).
  std::span<const int64_t> offsets;            // experts + 1
  const int64_t* offsets_on_device = nullptr;  // [experts + 1]
  int64_t rows = 0;                            // of x; read with offsets_on_device only, otherwise the last offset
  std::span<const ExpertWeights* const> experts;
  // With it a GPU takes all experts in three launches where the shape allows. Without, or else, it takes them one by one, for
  // which it reads offsets_on_device back: that cannot be part of a CUDA graph.
  const ExpertTable* table = nullptr;
  const Bf16* x = nullptr;  // [rows][hidden]
  // [rows], where the device finds it: row i is row index[i] of x instead, so that nobody has to gather rows where the schedule
  // fetches them one by one. With offsets_on_device.
  const int32_t* index = nullptr;
  int64_t hidden = 0;
  RowSegments segments;
  int first = 0;
  int last = numerics::kSegments;
  std::vector<TreeNode> nodes;
  float* partials = nullptr;
  // Only where `nodes` is the root alone: the experts' rows, bf(root), [rows][hidden], instead. What lies in `partials` then
  // means nothing.
  Bf16* y = nullptr;
  // Memory for what lies between the linears; grows to what a call needs. Whoever calls often keeps one. Null: allocated for the
  // call, which on a GPU waits for it.
  Buffer* scratch = nullptr;
};
void expert_mlp(const Device& device, const ExpertMlp& problem);

}  // namespace invar
