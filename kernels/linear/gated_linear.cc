#include "kernels/linear/gated_linear.h"

#include <cassert>

#include "kernels/activation/activation.h"
#include "kernels/linear/cuda/tensor_core_linear.h"

namespace invar {
namespace {

// In a wgmma accumulator the values of outputs (or columns) n and n + 8 are one thread's.
bool alternates(const Device& device) { return device.backend() == Backend::kCuda && device.profile() == Profile::kTc; }

int64_t outputs(bool alternate, int64_t width) {
  return 2 * (alternate ? (width + kGatedRun - 1) / kGatedRun * kGatedRun : width);
}

}  // namespace

GatedWeights::GatedWeights(const Device& device, int64_t width, int64_t inputs)
    : matrix_(device, outputs(alternates(device), width), inputs), width_(width), alternate_(alternates(device)) {}

int64_t GatedWeights::place_of(int64_t first, bool up) const {
  assert(!alternate_ || first % kGatedRun == 0);
  return alternate_ ? 2 * first + (up ? kGatedRun : 0) : first + (up ? width_ : 0);
}

void GatedWeights::pack_gate(int64_t first, const Bf16* rows, int64_t count, int64_t row_stride) {
  matrix_.pack_rows(place_of(first, false), rows, count, row_stride, alternate_ ? kGatedRun : 0);
}

void GatedWeights::pack_up(int64_t first, const Bf16* rows, int64_t count, int64_t row_stride) {
  matrix_.pack_rows(place_of(first, true), rows, count, row_stride, alternate_ ? kGatedRun : 0);
}

void GatedWeights::set_bias(const Device& device, const std::vector<Bf16>& gate, const std::vector<Bf16>& up) {
  assert(static_cast<int64_t>(gate.size()) == width_ && gate.size() == up.size());
  std::vector<Bf16> all(static_cast<size_t>(matrix_.outputs()));
  for (int64_t j = 0; j < width_; ++j) {
    const int64_t run = j / kGatedRun * kGatedRun;
    all[place_of(run, false) + j - run] = gate[j];
    all[place_of(run, true) + j - run] = up[j];
  }
  bias_ = DeviceArray<Bf16>(device, all);
}

void linear_gated(const Device& device, const GatedLinear& p) {
  const GatedWeights& w = *p.weights;
  if (p.rows == 0 || w.width() == 0) return;
  if constexpr (kCudaBuilt)
    if (w.alternate() && cuda::tc::linear_gated(device, p)) return;
  const int64_t both = w.matrix().outputs();
  linear_column(device, {.rows = p.rows,
                         .x = p.x,
                         .x_stride = p.x_stride,
                         .weights = &w.matrix(),
                         .bias = w.bias(),
                         .y = p.both,
                         .y_stride = both});
  silu_mul(device, {.rows = p.rows,
                    .width = w.width(),
                    .x = p.both,
                    .x_stride = both,
                    .run = w.alternate() ? kGatedRun : 0,
                    .y = p.y,
                    .y_stride = p.y_stride});
}

}  // namespace invar
