// What the tests of the tc profile's linears on the GPU share: rows and weights on both sides, and how results are compared.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/hostile_values.h"
#include "kernels/linear/linear.h"

namespace invar {

using hostile::Kind;
using hostile::Values;
using numerics::canonical_bits;
using numerics::kSegments;

inline Device cpu(ControlArm arm = ControlArm::kNone) {
  return Device({.profile = Profile::kTc,
                 .threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
                 .control_arm = arm});
}

// Rows of x on the host and the device; the gap behind each holds NaN and infinity, and so does what lies before the first.
class Rows {
 public:
  Rows(const Device& device, Values* values, Kind kind, int64_t count, int64_t width, int64_t gap)
      : stride_(width + gap), host_(static_cast<size_t>(count * stride_)) {
    for (int64_t m = 0; m < count; ++m)
      for (int64_t k = 0; k < stride_; ++k)
        host_[m * stride_ + k] = k < width ? values->bf16(kind, k) : Bf16{static_cast<uint16_t>(k & 1 ? 0x7fff : 0xff80)};
    device_ = DeviceArray<Bf16>(device, host_);
  }
  template <class Value>
  Rows(const Device& device, int64_t count, int64_t width, const Value& value)
      : stride_(width), host_(static_cast<size_t>(count * width)) {
    for (Bf16& v : host_) v = value();
    device_ = DeviceArray<Bf16>(device, host_);
  }
  const Bf16* host(int64_t row) const { return host_.data() + row * stride_; }
  const Bf16* device(int64_t row) const { return device_.data() + row * stride_; }
  int64_t stride() const { return stride_; }

 private:
  int64_t stride_;
  std::vector<Bf16> host_;
  DeviceArray<Bf16> device_;
};

struct Weights {
  PackedWeights host, device;
  Weights(const Device& gpu, const std::vector<Bf16>& rows, int64_t row_stride, int64_t outputs, int64_t inputs)
      : host(cpu(), outputs, inputs), device(gpu, outputs, inputs) {
    host.pack_rows(0, rows.data(), outputs, row_stride);
    const int64_t half = outputs / 2;  // in two calls, as shards of a file come
    device.pack_rows(half, rows.data() + half * row_stride, outputs - half, row_stride);
    device.pack_rows(0, rows.data(), half, row_stride);
  }
};

// The first element that differs, or nothing.
inline std::string difference(const std::vector<float>& got, const std::vector<float>& want, int64_t width) {
  for (size_t i = 0; i < want.size(); ++i)
    if (canonical_bits(got[i]) != canonical_bits(want[i])) {
      char text[160];
      std::snprintf(text, sizeof(text), "at row %lld, output %lld: %08x (%g), wanted %08x (%g)",
                    static_cast<long long>(i / width), static_cast<long long>(i % width), numerics::float_bits(got[i]), got[i],
                    numerics::float_bits(want[i]), want[i]);
      return text;
    }
  return "";
}
inline std::string difference(const std::vector<Bf16>& got, const std::vector<Bf16>& want, int64_t width) {
  for (size_t i = 0; i < want.size(); ++i)
    if (got[i].bits != want[i].bits) {
      char text[160];
      std::snprintf(text, sizeof(text), "at row %lld, output %lld: %04x, wanted %04x", static_cast<long long>(i / width),
                    static_cast<long long>(i % width), got[i].bits, want[i].bits);
      return text;
    }
  return "";
}

inline std::string kind_name(Kind kind) { return "kind " + std::to_string(static_cast<int>(kind)); }

class TensorCoreLinearCuda : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!IsSkipped()) tc_ = open(Profile::kTc);
  }
  const Device& tc() const { return *tc_; }

  using Column = std::function<void(const Device&, const ColumnLinear&)>;
  using Row = std::function<void(const Device&, const RowLinear&)>;

  struct ColumnCase {
    const Weights& weights;
    const Rows& x;
    const std::vector<Bf16>* bias;
    std::vector<float> expected;  // of all rows, with bias
  };
  // Rows [first, first + m) as fp32 and as bf16, with a gap behind each row of y that must stay.
  void expect_column(const Column& schedule, const ColumnCase& c, int64_t first, int64_t m, int64_t y_gap,
                     const std::string& where) {
    const int64_t n = c.weights.device.outputs(), y_stride = n + y_gap;
    DeviceArray<Bf16> bias;
    if (c.bias) bias = DeviceArray<Bf16>(tc(), *c.bias);
    ColumnLinear problem{.rows = m,
                         .x = c.x.device(first),
                         .x_stride = c.x.stride(),
                         .weights = &c.weights.device,
                         .bias = c.bias ? bias.data() : nullptr,
                         .y_stride = y_stride};
    std::vector<float> want(m * y_stride, 77.0f);
    std::vector<Bf16> want_rounded(m * y_stride, Bf16{0x1234});
    const DeviceArray<float> y_fp32(tc(), want);
    const DeviceArray<Bf16> y(tc(), want_rounded);
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j < n; ++j) {
        want[r * y_stride + j] = c.expected[(first + r) * n + j];
        want_rounded[r * y_stride + j] = numerics::bf(c.expected[(first + r) * n + j]);
      }
    problem.y_fp32 = y_fp32.data();
    schedule(tc(), problem);
    EXPECT_EQ(difference(y_fp32.to_host(tc()), want, y_stride), "") << where << ", fp32";
    problem.y_fp32 = nullptr;
    problem.y = y.data();
    schedule(tc(), problem);
    EXPECT_EQ(difference(y.to_host(tc()), want_rounded, y_stride), "") << where << ", bf16";
  }

  std::vector<float> cpu_column(const Weights& weights, const Rows& x, int64_t rows, const std::vector<Bf16>* bias,
                                ControlArm arm = ControlArm::kNone) {
    std::vector<float> y(rows * weights.host.outputs());
    linear_column(cpu(arm), {.rows = rows,
                             .x = x.host(0),
                             .x_stride = x.stride(),
                             .weights = &weights.host,
                             .bias = bias ? bias->data() : nullptr,
                             .y_fp32 = y.data(),
                             .y_stride = weights.host.outputs()});
    return y;
  }

  // Of the first `rows` rows, with bias, by the generic schedule.
  std::vector<float> generic_column(const Weights& weights, const Rows& x, const std::vector<Bf16>& bias, int64_t rows) {
    const int64_t outputs = weights.device.outputs();
    const DeviceArray<Bf16> device_bias(tc(), bias);
    const DeviceArray<float> y(tc(), rows * outputs);
    cuda::tc::generic_column(tc(), {.rows = rows,
                                    .x = x.device(0),
                                    .x_stride = x.stride(),
                                    .weights = &weights.device,
                                    .bias = device_bias.data(),
                                    .y_fp32 = y.data(),
                                    .y_stride = outputs});
    return y.to_host(tc());
  }

 private:
  std::unique_ptr<Device> tc_;
};

}  // namespace invar
