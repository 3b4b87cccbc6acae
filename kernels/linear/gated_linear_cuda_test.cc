// The gated linear on a GPU against the reference linear and silu_mul, bit for bit: pairs must find each other wherever the
// schedule puts them.
#include <gtest/gtest.h>

#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/activation/activation.h"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/linear/gated_linear.h"

namespace invar {
namespace {

using namespace test_rows;

struct Data {
  int64_t width, inputs;
  std::vector<Bf16> gate, up, gate_bias, up_bias;
  Data(int64_t width, int64_t inputs, Kind kind)
      : width(width),
        inputs(inputs),
        gate(bf16_data(width * inputs, kind, 1)),
        up(bf16_data(width * inputs, kind, 2)),
        gate_bias(bf16_data(width, Kind::kOrdinary, 3)),
        up_bias(bf16_data(width, Kind::kOrdinary, 4)) {}
  GatedWeights pack(const Device& device, bool bias) const {
    GatedWeights w(device, width, inputs);
    const int64_t half = width / 2 / kGatedRun * kGatedRun;  // in two calls each, as a loader does
    w.pack_gate(0, gate.data(), half, inputs);
    w.pack_up(0, up.data(), half, inputs);
    w.pack_gate(half, gate.data() + half * inputs, width - half, inputs);
    w.pack_up(half, up.data() + half * inputs, width - half, inputs);
    if (bias) w.set_bias(device, gate_bias, up_bias);
    return w;
  }
};

// Gate and up apart, by the CPU backend, which linear_test.cc holds against the reference.
std::vector<Bf16> expected(const Device& cpu, const Data& d, const std::vector<Bf16>& x, int64_t rows, int64_t x_stride,
                           bool bias) {
  std::vector<Bf16> both(static_cast<size_t>(rows * 2 * d.width)), y(static_cast<size_t>(rows * d.width));
  for (const auto& [matrix, add, at] : {std::tuple{&d.gate, &d.gate_bias, int64_t{0}}, {&d.up, &d.up_bias, d.width}}) {
    PackedWeights w(cpu, d.width, d.inputs);
    w.pack_rows(0, matrix->data(), d.width, d.inputs);
    linear_column(cpu, {.rows = rows,
                        .x = x.data(),
                        .x_stride = x_stride,
                        .weights = &w,
                        .bias = bias ? add->data() : nullptr,
                        .y = both.data() + at,
                        .y_stride = 2 * d.width});
  }
  silu_mul_reference(
      {.rows = rows, .width = d.width, .x = both.data(), .x_stride = 2 * d.width, .y = y.data(), .y_stride = d.width});
  return y;
}

std::vector<Bf16> run(const Device& device, const GatedWeights& w, const std::vector<Bf16>& x, int64_t rows, int64_t x_stride,
                      int64_t gap) {
  const int64_t y_stride = w.width() + gap;
  const DeviceArray<Bf16> there(device, x), both(device, rows * w.matrix().outputs());
  const DeviceArray<Bf16> y(device, std::vector<Bf16>(static_cast<size_t>(rows * y_stride), Bf16{0xabcd}));
  linear_gated(device, {.rows = rows,
                        .x = there.data(),
                        .x_stride = x_stride,
                        .weights = &w,
                        .both = both.data(),
                        .y = y.data(),
                        .y_stride = y_stride});
  const std::vector<Bf16> all = y.to_host(device);
  std::vector<Bf16> out;
  for (int64_t r = 0; r < rows; ++r) {
    out.insert(out.end(), all.begin() + r * y_stride, all.begin() + r * y_stride + w.width());
    for (int64_t i = w.width(); i < y_stride; ++i) EXPECT_EQ(all[r * y_stride + i].bits, 0xabcd) << "written behind row " << r;
  }
  return out;
}

using GatedLinearCuda = CudaTest;

class GatedShapesCuda : public CudaTest, public testing::WithParamInterface<std::pair<int64_t, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(WidthAndInputs, GatedShapesCuda,
                         testing::Values(std::pair(8, 64), std::pair(13, 72), std::pair(96, 512), std::pair(176, 576),
                                         std::pair(72, 4160), std::pair(768, 2048), std::pair(1536, 576), std::pair(171, 2304),
                                         std::pair(683, 576)),
                         [](const auto& info) { return absl::StrCat(info.param.first, "x", info.param.second); });

TEST_P(GatedShapesCuda, GiveTheReferenceBits) {
  const auto [width, inputs] = GetParam();
  for (const Profile profile : {Profile::kTc, Profile::kPortable}) {
    const Device cpu({.profile = profile, .threads = 16});
    const auto gpu = open(profile);
    for (const bool bias : {false, true}) {
      const Data d(width, inputs, bias ? Kind::kWideExponents : Kind::kOrdinary);
      const GatedWeights w = d.pack(*gpu, bias);
      for (const int64_t rows : {1, 2, 7, 8, 16, 33, 64, 65, 130, 256}) {
        const int64_t x_stride = (inputs + 7) / 8 * 8;
        const std::vector<Bf16> x = bf16_data(rows * x_stride, Kind::kOrdinary, static_cast<uint64_t>(rows));
        const std::vector<Bf16> want = expected(cpu, d, x, rows, x_stride, bias);
        for (const int64_t gap : {int64_t{0}, int64_t{3}, 8 - width % 8})
          ASSERT_TRUE(same_bits(run(*gpu, w, x, rows, x_stride, gap), want))
              << name(profile) << ", rows " << rows << ", gap " << gap << (bias ? ", bias" : "");
      }
    }
  }
}

// Widths and inputs of real models, as many rows as their prompts have: what the planner then takes, against gate and up apart.
TEST_F(GatedLinearCuda, RealShapesOfManyRowsEqualTwoPasses) {
  const auto gpu = open(Profile::kTc);
  for (const auto& [width, inputs] : {std::pair<int64_t, int64_t>{1536, 576},
                                      {4864, 896},
                                      {3072, 1024},
                                      {8960, 1536},
                                      {8192, 2048},
                                      {3072, 4096},
                                      {1536, 4096},
                                      {3584, 8192}}) {
    const Data d(width, inputs, Kind::kSpread);
    const GatedWeights w = d.pack(*gpu, true);
    const int64_t both = w.matrix().outputs();
    for (const int64_t rows : {65, 700, 1199, 2048, 4100}) {
      const std::vector<Bf16> x = bf16_data(rows * inputs, Kind::kOrdinary, static_cast<uint64_t>(rows));
      const DeviceArray<Bf16> there(*gpu, x), apart(*gpu, rows * both), y(*gpu, rows * width);
      linear_column(*gpu, {.rows = rows,
                           .x = there.data(),
                           .x_stride = inputs,
                           .weights = &w.matrix(),
                           .bias = w.bias(),
                           .y = apart.data(),
                           .y_stride = both});
      silu_mul(*gpu, {.rows = rows,
                      .width = width,
                      .x = apart.data(),
                      .x_stride = both,
                      .run = kGatedRun,
                      .y = y.data(),
                      .y_stride = width});
      ASSERT_TRUE(same_bits(run(*gpu, w, x, rows, inputs, 0), y.to_host(*gpu))) << width << " x " << inputs << ", " << rows;
    }
  }
}

// Control: gate and up that change places must show.
TEST_F(GatedLinearCuda, GateAndUpAreNotTheSame) {
  const auto gpu = open(Profile::kTc);
  Data d(96, 512, Kind::kOrdinary);
  const std::vector<Bf16> x = bf16_data(4 * 512, Kind::kOrdinary, 9);
  const std::vector<Bf16> y = run(*gpu, d.pack(*gpu, false), x, 4, 512, 0);
  std::swap(d.gate, d.up);
  EXPECT_FALSE(same_bits(run(*gpu, d.pack(*gpu, false), x, 4, 512, 0), y));
}

}  // namespace
}  // namespace invar
