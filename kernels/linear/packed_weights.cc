#include <algorithm>
#include <cassert>
#include <mutex>

#include "kernels/linear/cuda/portable_linear.h"
#include "kernels/linear/cuda/tensor_core_linear.h"
#include "kernels/linear/gather_rows.h"
#include "kernels/linear/packing.h"

namespace invar {

namespace {

size_t packed_bytes(const Device& device, int64_t outputs, int64_t inputs) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) {
      const bool tc = device.profile() == Profile::kTc;
      return tc ? cuda::tc::packed_bytes(outputs, inputs) : cuda::portable::packed_bytes(outputs, inputs);
    }
  return static_cast<size_t>(packing::panels(outputs) * packing::panel_words(inputs)) * sizeof(uint32_t);
}

// A device has one stream and is used by one thread at a time, so threads that load take turns.
std::mutex& upload_turn() {
  static std::mutex mutex;
  return mutex;
}

void gather_on_cuda(const Device& device, const PackedWeights& w, const int32_t* ids, int64_t first_id, int64_t rows, Bf16* y,
                    int64_t y_stride) {
  if constexpr (kCudaBuilt) {
    const bool tc = device.profile() == Profile::kTc;
    (tc ? cuda::tc::gather_rows : cuda::portable::gather_rows)(device, w.data(), w.outputs(), w.inputs(), ids, first_id, rows, y,
                                                               y_stride);
  }
}

}  // namespace

PackedWeights::PackedWeights(const Device& device, int64_t outputs, int64_t inputs)
    : device_(device.backend() == Backend::kCuda ? &device : nullptr),
      buffer_(Buffer::lasting(device, packed_bytes(device, outputs, inputs))),
      outputs_(outputs),
      inputs_(inputs) {}

void PackedWeights::pack_rows(int64_t first_output, const Bf16* rows, int64_t count, int64_t row_stride, int64_t run) {
  assert(first_output >= 0 && first_output + count <= outputs_);
  assert(run == 0 || (device_ && device_->profile() == Profile::kTc));
  if constexpr (kCudaBuilt)
    if (device_) {
      if (count == 0 || inputs_ == 0) return;
      const std::lock_guard lock(upload_turn());
      if (device_->profile() == Profile::kTc)
        return cuda::tc::pack_rows(*device_, buffer_.data(), outputs_, inputs_, first_output, rows, count, row_stride, run);
      return cuda::portable::pack_rows(*device_, buffer_.data(), outputs_, inputs_, first_output, rows, count, row_stride);
    }
  constexpr int64_t kBlock = 64;  // k at a time: 64 lines stay in the first cache while the rows of a panel fill them
  auto* halves = buffer_.as<uint16_t>();
  for (int64_t n = first_output; n < first_output + count;) {
    const int64_t panel = n / packing::kPanel;
    const int64_t end = std::min(first_output + count, (panel + 1) * packing::kPanel);
    uint16_t* out = halves + panel * packing::panel_words(inputs_) * 2;
    for (int64_t k0 = 0; k0 < inputs_; k0 += kBlock) {
      const int64_t k1 = std::min(inputs_, k0 + kBlock);
      for (int64_t row = n; row < end; ++row) {
        const Bf16* from = rows + (row - first_output) * row_stride;
        uint16_t* to = out + packing::half_in_line(row % packing::kPanel);
        for (int64_t k = k0; k < k1; ++k) to[k * packing::kPanel] = from[k].bits;
      }
    }
    n = end;
  }
}

Bf16 PackedWeights::at(int64_t output, int64_t input) const {
  if constexpr (kCudaBuilt)
    if (device_) {
      const Buffer id(*device_, sizeof(int32_t));  // zero: the one row wanted is id 0
      const Buffer row(*device_, static_cast<size_t>(inputs_) * sizeof(Bf16));
      gather_on_cuda(*device_, *this, id.as<int32_t>(), -output, 1, row.as<Bf16>(), inputs_);
      Bf16 value;
      device_->download(&value, row.as<Bf16>() + input, sizeof(value));
      return value;
    }
  const int64_t panel = output / packing::kPanel;
  return Bf16{buffer_.as<uint16_t>()[panel * packing::panel_words(inputs_) * 2 + input * packing::kPanel +
                                     packing::half_in_line(output % packing::kPanel)]};
}

void gather_rows(const Device& device, const GatherRows& p) {
  if (p.rows == 0 || p.weights->inputs() == 0) return;
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return gather_on_cuda(device, *p.weights, p.ids, p.first_id, p.rows, p.y, p.y_stride);
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t output = p.ids[r] - p.first_id;
    if (output < 0 || output >= p.weights->outputs()) continue;
    const auto* halves = reinterpret_cast<const Bf16*>(packing::panel(*p.weights, output / packing::kPanel)) +
                         packing::half_in_line(output % packing::kPanel);
    Bf16* y = p.y + r * p.y_stride;
    for (int64_t k = 0; k < p.weights->inputs(); ++k) y[k] = halves[k * packing::kPanel];
  }
}

}  // namespace invar
