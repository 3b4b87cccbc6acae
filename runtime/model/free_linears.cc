#include "runtime/model/free_linears.h"

#include <limits>
#include <utility>

#include "kernels/activation/activation.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/norm/residual_norm.h"
#include "runtime/model/step_parts.h"

namespace invar {
namespace {

constexpr size_t kMostSeen = 16;  // matrices of a shape that algorithms are timed over
constexpr int kProposals = 16;

FreeLinears* current = nullptr;

void refuse_bias(const Bf16* bias) {
  if (bias) throw DeviceFailure("free linears take no biases: choose a model without");
}

}  // namespace

// What the linker makes of the decoder's calls, and what it calls the functions that these replace.
void wrapped_column(const Device&, const ColumnLinear&) asm("__wrap__ZN5invar13linear_columnERKNS_6DeviceERKNS_12ColumnLinearE");
void wrapped_row(const Device&, const RowLinear&) asm("__wrap__ZN5invar10linear_rowERKNS_6DeviceERKNS_9RowLinearE");
void wrapped_gated(const Device&, const GatedLinear&) asm("__wrap__ZN5invar12linear_gatedERKNS_6DeviceERKNS_11GatedLinearE");
void wrapped_merge(const Device&,
                   const MergeResidualNorm&) asm("__wrap__ZN5invar19merge_residual_normERKNS_6DeviceERKNS_17MergeResidualNormE");
void own_column(const Device&, const ColumnLinear&) asm("__real__ZN5invar13linear_columnERKNS_6DeviceERKNS_12ColumnLinearE");
void own_row(const Device&, const RowLinear&) asm("__real__ZN5invar10linear_rowERKNS_6DeviceERKNS_9RowLinearE");
void own_gated(const Device&, const GatedLinear&) asm("__real__ZN5invar12linear_gatedERKNS_6DeviceERKNS_11GatedLinearE");
void own_merge(const Device&,
               const MergeResidualNorm&) asm("__real__ZN5invar19merge_residual_normERKNS_6DeviceERKNS_17MergeResidualNormE");

void wrapped_column(const Device& device, const ColumnLinear& p) {
  StepParts::run(p.y ? StepPart::kColumn : StepPart::kHead,
                 [&] { current ? current->column(device, p) : own_column(device, p); });
}
void wrapped_row(const Device& device, const RowLinear& p) {
  StepParts::run(StepPart::kRow, [&] { current ? current->row(device, p) : own_row(device, p); });
}
void wrapped_gated(const Device& device, const GatedLinear& p) {
  StepParts::run(StepPart::kGated, [&] { current ? current->gated(device, p) : own_gated(device, p); });
}
void wrapped_merge(const Device& device, const MergeResidualNorm& p) {
  StepParts::run(StepPart::kMerge, [&] { current ? current->merge(device, p) : own_merge(device, p); });
}

FreeLinears::FreeLinears(const Device& device) : device_(device) { current = this; }

FreeLinears::~FreeLinears() { current = nullptr; }

void FreeLinears::turn(bool on) {
  on_ = on;
  renewed_ = Buffer(device_, 16);  // an allocation: the decoder trusts no recorded step from before one
}

void FreeLinears::column(const Device& device, const ColumnLinear& p) {
  ++columns_;
  if (!on_) return own_column(device, p);
  refuse_bias(p.bias);
  if (p.rows == 0) return;
  multiply(p.rows, *p.weights, p.x, p.x_stride, p.y ? static_cast<void*>(p.y) : p.y_fp32, p.y_stride, p.y == nullptr);
}

void FreeLinears::row(const Device& device, const RowLinear& p) {
  ++rows_;
  unmerged_ += p.y == nullptr;
  if (!on_) return own_row(device, p);
  if (p.rows == 0) return;
  if (!root_alone(p.nodes)) throw DeviceFailure("free linears are those of one rank");
  refuse_bias(p.bias);
  multiply(p.rows, *p.weights, p.x, p.x_stride, p.y ? static_cast<void*>(p.y) : p.partials, p.weights->outputs(), false);
}

void FreeLinears::gated(const Device& device, const GatedLinear& p) {
  ++gated_;
  const PackedWeights& matrix = p.weights->matrix();
  if (!on_) return own_gated(device, p);
  refuse_bias(p.weights->bias());
  if (p.rows == 0) return;
  multiply(p.rows, matrix, p.x, p.x_stride, p.both, matrix.outputs(), false);
  silu_mul(device, {.rows = p.rows,
                    .width = p.weights->width(),
                    .x = p.both,
                    .x_stride = matrix.outputs(),
                    .run = p.weights->alternate() ? kGatedRun : 0,
                    .y = p.y,
                    .y_stride = p.y_stride});
}

void FreeLinears::merge(const Device& device, const MergeResidualNorm& p) {
  ++merges_;
  if (!on_) return own_merge(device, p);
  refuse_bias(p.merge.bias);
  residual_rms_norm(device, {.rows = p.merge.end / p.merge.outputs,
                             .width = p.merge.outputs,
                             .x = p.x,
                             .y = reinterpret_cast<const Bf16*>(p.merge.values[0]),
                             .weight = p.weight,
                             .epsilon = p.epsilon,
                             .normed = p.normed});
}

void FreeLinears::multiply(int64_t rows, const PackedWeights& weights, const Bf16* x, int64_t x_stride, void* y, int64_t y_stride,
                           bool fp32) {
  const ceilings::BlasShape shape{.rows = rows,
                                  .outputs = weights.outputs(),
                                  .inputs = weights.inputs(),
                                  .x_stride = x_stride,
                                  .y_stride = y_stride,
                                  .fp32_result = fp32};
  auto at = products_.find(shape);
  if (at == products_.end()) at = products_.emplace(shape, Product{ceilings::BlasProduct(device_, shape, kProposals)}).first;
  Product& p = at->second;
  const Call call{weights.data(), x, y};
  if (!p.timed && p.seen.size() < kMostSeen) p.seen.push_back(call);
  if (!p.product.run(p.chosen, call.weights, call.x, call.y)) throw DeviceFailure("cuBLASLt does not run what it proposes");
}

void FreeLinears::choose() {
  const ceilings::Stopwatch watch(device_);
  for (auto& [shape, p] : products_) {
    if (p.timed) continue;
    double best = std::numeric_limits<double>::infinity();
    for (size_t algorithm = 0; algorithm < p.product.algorithms(); ++algorithm) {
      const auto multiply = [&](int i) { return p.product.run(algorithm, p.seen[i].weights, p.seen[i].x, p.seen[i].y); };
      if (!multiply(0)) continue;
      const double time = watch.in_graph(multiply, static_cast<int>(p.seen.size()), 3);
      if (time < best) best = time, p.chosen = algorithm;
    }
    p.timed = true;
    p.seen.clear();
  }
}

}  // namespace invar
