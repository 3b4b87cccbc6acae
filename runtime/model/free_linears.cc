#include "runtime/model/free_linears.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/activation/activation.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/norm/residual_norm.h"
#include "runtime/model/step_parts.h"

namespace invar {
namespace {

constexpr size_t kMostSeen = 16;     // matrices of a shape that algorithms are timed over
constexpr size_t kFirstLook = 2;     // of them
constexpr size_t kMostExpected = 3;  // of a shape that was only expected
constexpr double kPromising = 1.15;  // of the fastest at first look
constexpr int kProposals = 16;

thread_local FreeLinears* current = nullptr;

void refuse_bias(const Bf16* bias) {
  if (bias) throw DeviceFailure("free linears take no biases: choose a model without");
}

}  // namespace

// What the linker makes of the decoder's calls, and what it calls the functions that these replace.
void wrapped_column(const Device&, const ColumnLinear&) asm("__wrap__ZN5invar13linear_columnERKNS_6DeviceERKNS_12ColumnLinearE");
void wrapped_row(const Device&, const RowLinear&) asm("__wrap__ZN5invar10linear_rowERKNS_6DeviceERKNS_9RowLinearE");
bool wrapped_adds(const Device&, const RowLinear&) asm("__wrap__ZN5invar17row_adds_residualERKNS_6DeviceERKNS_9RowLinearE");
void wrapped_gated(const Device&, const GatedLinear&) asm("__wrap__ZN5invar12linear_gatedERKNS_6DeviceERKNS_11GatedLinearE");
void wrapped_merge(const Device&,
                   const MergeResidualNorm&) asm("__wrap__ZN5invar19merge_residual_normERKNS_6DeviceERKNS_17MergeResidualNormE");
void own_column(const Device&, const ColumnLinear&) asm("__real__ZN5invar13linear_columnERKNS_6DeviceERKNS_12ColumnLinearE");
void own_row(const Device&, const RowLinear&) asm("__real__ZN5invar10linear_rowERKNS_6DeviceERKNS_9RowLinearE");
bool own_adds(const Device&, const RowLinear&) asm("__real__ZN5invar17row_adds_residualERKNS_6DeviceERKNS_9RowLinearE");
void own_gated(const Device&, const GatedLinear&) asm("__real__ZN5invar12linear_gatedERKNS_6DeviceERKNS_11GatedLinearE");
void own_merge(const Device&,
               const MergeResidualNorm&) asm("__real__ZN5invar19merge_residual_normERKNS_6DeviceERKNS_17MergeResidualNormE");
// Of a member function: the object comes first.
void wrapped_reduce(parallel::TreeAllReduce*, const parallel::RowReduction&, const parallel::ResidualNorm&) asm(
    "__wrap__ZN5invar8parallel13TreeAllReduce3runERKNS0_12RowReductionERKNS0_12ResidualNormE");
void own_reduce(parallel::TreeAllReduce*, const parallel::RowReduction&, const parallel::ResidualNorm&) asm(
    "__real__ZN5invar8parallel13TreeAllReduce3runERKNS0_12RowReductionERKNS0_12ResidualNormE");

void wrapped_column(const Device& device, const ColumnLinear& p) {
  StepParts::run(p.y ? StepPart::kColumn : StepPart::kHead,
                 [&] { current ? current->column(device, p) : own_column(device, p); });
}
void wrapped_row(const Device& device, const RowLinear& p) {
  StepParts::run(p.targets.count ? StepPart::kSent : StepPart::kRow,
                 [&] { current ? current->row(device, p) : own_row(device, p); });
}
bool wrapped_adds(const Device& device, const RowLinear& p) { return current ? current->adds(device, p) : own_adds(device, p); }
void wrapped_gated(const Device& device, const GatedLinear& p) {
  StepParts::run(StepPart::kGated, [&] { current ? current->gated(device, p) : own_gated(device, p); });
}
void wrapped_merge(const Device& device, const MergeResidualNorm& p) {
  StepParts::run(StepPart::kMerge, [&] { current ? current->merge(device, p) : own_merge(device, p); });
}

void wrapped_reduce(parallel::TreeAllReduce* all, const parallel::RowReduction& p, const parallel::ResidualNorm& next) {
  if (!current || !current->reduce(p, next)) own_reduce(all, p, next);
}

FreeLinears::FreeLinears(const Device& device, const parallel::NcclSum* sum) : device_(device), sum_(sum) { current = this; }

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
  if (!sum_ && !root_alone(p.nodes)) throw DeviceFailure("free linears of several ranks want a sum");
  refuse_bias(p.bias);
  multiply(p.rows, *p.weights, p.x, p.x_stride, p.y ? static_cast<void*>(p.y) : p.partials, p.weights->outputs(), false);
}

bool FreeLinears::adds(const Device& device, const RowLinear& p) {
  ++adds_;
  return !on_ && own_adds(device, p);
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
  follow(p.merge.end / p.merge.outputs, p.merge.outputs, reinterpret_cast<const Bf16*>(p.merge.values[0]),
         {p.x, p.weight, p.epsilon, p.normed});
}

void FreeLinears::follow(int64_t rows, int64_t width, const Bf16* y, const parallel::ResidualNorm& next) const {
  residual_rms_norm(
      device_,
      {.rows = rows, .width = width, .x = next.x, .y = y, .weight = next.weight, .epsilon = next.epsilon, .normed = next.normed});
}

bool FreeLinears::reduce(const parallel::RowReduction& p, const parallel::ResidualNorm& next) {
  ++sums_;
  if (!on_ || !sum_) return false;
  refuse_bias(p.bias);
  if (p.rows == 0) return true;
  StepParts::run(StepPart::kExchange, [&] { sum_->sum(reinterpret_cast<const Bf16*>(p.partials), p.y, p.rows * p.outputs); });
  follow(p.rows, p.outputs, p.y, next);
  return true;
}

void FreeLinears::multiply(int64_t rows, const PackedWeights& weights, const Bf16* x, int64_t x_stride, void* y, int64_t y_stride,
                           bool fp32) {
  const ceilings::BlasShape shape{.rows = rows,
                                  .outputs = weights.outputs(),
                                  .inputs = weights.inputs(),
                                  .x_stride = x_stride,
                                  .y_stride = y_stride,
                                  .fp32_result = fp32};
  Product& p = product(shape);
  const Call call{weights.data(), x, y};
  if (!p.timed && p.seen.size() < kMostSeen) p.seen.push_back(call);
  ceilings::BlasShape any = shape;
  any.rows = 0;
  Largest& largest = largest_[any];
  if (rows > largest.rows) largest = {rows, {}};
  if (rows == largest.rows && largest.calls.size() < kMostExpected) largest.calls.push_back(call);
  if (!p.product.run(p.chosen, call.weights, call.x, call.y)) throw DeviceFailure("cuBLASLt does not run what it proposes");
}

FreeLinears::Product& FreeLinears::product(const ceilings::BlasShape& shape) {
  auto at = products_.find(shape);
  if (at == products_.end()) at = products_.emplace(shape, Product{ceilings::BlasProduct(device_, shape, kProposals)}).first;
  return at->second;
}

void FreeLinears::expect(std::span<const int64_t> rows, std::span<const int64_t> logits) {
  for (const auto& [any, largest] : largest_)
    for (const int64_t n : any.fp32_result ? logits : rows) {
      if (n < 1 || n > largest.rows) continue;
      ceilings::BlasShape shape = any;
      shape.rows = n;
      Product& p = product(shape);
      if (!p.timed && p.seen.empty()) p.seen = largest.calls;
    }
}

// First a short look at all, then a longer one at those that may be the fastest: a load has hundreds of shapes.
void FreeLinears::choose() {
  const ceilings::Stopwatch watch(device_);
  for (auto& [shape, p] : products_) {
    if (p.timed) continue;
    const auto time = [&](size_t algorithm, size_t matrices, int replays) {
      const auto multiply = [&](int i) { return p.product.run(algorithm, p.seen[i].weights, p.seen[i].x, p.seen[i].y); };
      if (!multiply(0)) return std::numeric_limits<double>::infinity();
      return watch.in_graph(multiply, static_cast<int>(std::min(matrices, p.seen.size())), replays);
    };
    std::vector<double> first(p.product.algorithms());
    for (size_t i = 0; i < first.size(); ++i) first[i] = time(i, kFirstLook, 1);
    const double promising = kPromising * *std::min_element(first.begin(), first.end());
    double best = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < first.size(); ++i) {
      if (!(first[i] <= promising)) continue;
      const double again = time(i, kMostSeen, 3);
      if (again < best) best = again, p.chosen = i;
    }
    p.timed = true;
    p.seen.clear();
  }
  largest_.clear();  // its buffers may be gone when the next step comes
}

}  // namespace invar
