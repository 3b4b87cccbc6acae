#include "kernels/linear/tensor_core_check.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/linear.h"

namespace invar {
namespace {

// Exponents of a wide or a narrow range, subnormals and zeros among them; infinities and NaN are left out, they are no question
// of order.
std::vector<Bf16> values(int64_t count, uint64_t seed, int lowest, int range) {
  std::vector<Bf16> v(static_cast<size_t>(count));
  for (size_t i = 0; i < v.size(); ++i) {
    const uint64_t r = numerics::mix64(seed * 0x10001 + i);
    const auto exponent = static_cast<uint16_t>(lowest + static_cast<int>((r >> 8) % static_cast<uint64_t>(range)));
    v[i].bits = r % 32 == 0 ? 0 : static_cast<uint16_t>((r >> 63 << 15) | exponent << 7 | (r >> 16 & 127));
  }
  return v;
}

struct Case {
  int64_t rows, outputs, inputs;
  int lowest, range;  // exponent fields
};
// Decode and prefill schedules; ordinary numbers, wide exponents, and sums in and below the subnormal range.
constexpr Case kCases[] = {
    {4, 64, 1024, 120, 8}, {4, 64, 128, 90, 60}, {4, 64, 64, 40, 26}, {128, 128, 1024, 112, 16}, {128, 128, 64, 44, 24}};

}  // namespace

absl::Status check_tensor_cores(const Device& device) {
  const bool breaks = device.control_arm() != ControlArm::kNone;  // on purpose
  if (device.backend() != Backend::kCuda || device.profile() != Profile::kTc || breaks) return absl::OkStatus();
  const Device host({.profile = Profile::kTc});
  for (const Case& c : kCases) {
    const std::vector<Bf16> x = values(c.rows * c.inputs, 1, c.lowest, c.range),
                            w = values(c.outputs * c.inputs, 2, c.lowest, c.range);
    const auto pack = [&](const Device& d) {
      PackedWeights packed(d, c.outputs, c.inputs);
      packed.pack_rows(0, w.data(), c.outputs, c.inputs);
      return packed;
    };
    const PackedWeights here = pack(device), there = pack(host);
    const DeviceArray<Bf16> on_device(device, x);
    const DeviceArray<float> y(device, c.rows * c.outputs);
    linear_column(device, {.rows = c.rows,
                           .x = on_device.data(),
                           .x_stride = c.inputs,
                           .weights = &here,
                           .y_fp32 = y.data(),
                           .y_stride = c.outputs});
    std::vector<float> want(static_cast<size_t>(c.rows * c.outputs));
    linear_column(
        host,
        {.rows = c.rows, .x = x.data(), .x_stride = c.inputs, .weights = &there, .y_fp32 = want.data(), .y_stride = c.outputs});
    const std::vector<float> got = y.to_host(device);
    for (size_t i = 0; i < want.size(); ++i)
      if (numerics::float_bits(got[i]) != numerics::float_bits(want[i]))
        return absl::FailedPreconditionError(
            absl::StrFormat("--profile tc: the tensor cores of %s do not follow the rule L16.F25.RZ: %d x %d x %d, row %d, "
                            "output %d is %08x, the rule "
                            "gives %08x. Use --profile portable on this device",
                            device.describe(), c.rows, c.outputs, c.inputs, i / c.outputs, i % c.outputs,
                            numerics::float_bits(got[i]), numerics::float_bits(want[i])));
  }
  return absl::OkStatus();
}

}  // namespace invar
