// The tensor-core rule against what an H100 did, and the vector steps against the scalar one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <vector>

#include "kernels/device/device.h"
#include "kernels/linear/hostile_values.h"
#include "kernels/linear/tensor_core_step.h"

namespace invar {

void step_avx2(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count) {
  step_any<WordsAvx2>(rows, acc, groups, b, b_stride, count);
}

namespace {

using numerics::float_bits;
using numerics::tensor_core_step;

// tests/golden/README.md has the layout.
constexpr int kRegimes = 10, kTiles = 12;
struct Regime {
  Bf16 a[kTiles][16][16];
  Bf16 b[kTiles][8][16];
  float c[kTiles][16][8];
  float d[kTiles][16][8];
};

std::vector<Regime> golden() {
  std::vector<Regime> regimes(kRegimes);
  std::ifstream file(INVAR_SOURCE_DIR "/tests/golden/tensor_core_steps.bin", std::ios::binary);
  file.read(reinterpret_cast<char*>(regimes.data()), static_cast<std::streamsize>(regimes.size() * sizeof(Regime)));
  EXPECT_TRUE(file.good()) << "tests/golden/tensor_core_steps.bin is missing or short";
  return regimes;
}

struct VectorStep {
  Isa isa;
  int width;
  void (*step)(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count);
};
std::vector<VectorStep> vector_steps() {
  std::vector<VectorStep> steps;
  if (detect_isa() >= Isa::kAvx2) steps.push_back({Isa::kAvx2, 8, step_avx2});
  if (detect_isa() >= Isa::kAvx512) steps.push_back({Isa::kAvx512, 16, step_avx512});
  return steps;
}

TEST(TensorCoreGolden, ScalarStepIsTheH100) {
  for (const Regime& regime : golden())
    for (int t = 0; t < kTiles; ++t)
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j)
          ASSERT_EQ(float_bits(tensor_core_step(regime.c[t][i][j], regime.a[t][i], regime.b[t][j], 16)),
                    float_bits(regime.d[t][i][j]));
}

// Single steps around and below the smallest fp32 numbers, where the exponent that terms are aligned to has a floor.
struct SmallStep {
  Bf16 a[16], b[16];
  float c, d;
};
std::vector<SmallStep> small_steps() {
  std::vector<SmallStep> steps(2108);
  std::ifstream file(INVAR_SOURCE_DIR "/tests/golden/tensor_core_small_steps.bin", std::ios::binary);
  file.read(reinterpret_cast<char*>(steps.data()), static_cast<std::streamsize>(steps.size() * sizeof(SmallStep)));
  EXPECT_TRUE(file.good()) << "tests/golden/tensor_core_small_steps.bin is missing or short";
  return steps;
}

TEST(TensorCoreGolden, SmallStepsAreTheH100) {
  int64_t i = 0;
  for (const SmallStep& s : small_steps())
    ASSERT_EQ(float_bits(tensor_core_step(s.c, s.a, s.b, 16)), float_bits(s.d)) << "step " << i++;
}

TEST(TensorCoreGolden, SmallStepsThroughVectorsAreTheH100) {
  for (const VectorStep& v : vector_steps())
    for (const SmallStep& s : small_steps()) {
      TensorCoreGroup group;
      prepare_tensor_core_group(s.a, 16, &group);
      std::vector<float> acc(static_cast<size_t>(2 * v.width), s.c);
      std::vector<uint32_t> b(static_cast<size_t>(16 * v.width));
      for (int k = 0; k < 16; ++k)
        for (int lane = 0; lane < v.width; ++lane) b[k * v.width + lane] = s.b[k].bits | uint32_t{s.b[k].bits} << 16;
      v.step(1, acc.data(), &group, b.data(), v.width, 16);
      for (const float got : acc) ASSERT_EQ(float_bits(got), float_bits(s.d)) << name(v.isa);
    }
}

// The twin that must fail: terms aligned without the floor, so that what lies below it survives. Formed in double, which is exact
// enough here.
TEST(TensorCoreGolden, WithoutTheFloorSmallStepsDiffer) {
  int64_t different = 0;
  for (const SmallStep& s : small_steps()) {
    double sum = s.c;
    for (int k = 0; k < 16; ++k)
      sum += static_cast<double>(numerics::widen(s.a[k])) * static_cast<double>(numerics::widen(s.b[k]));
    float cut = static_cast<float>(sum);
    if (std::abs(static_cast<double>(cut)) > std::abs(sum)) cut = std::nextafter(cut, 0.0f);
    different += float_bits(cut) != float_bits(s.d);
  }
  EXPECT_GT(different, 200);
}

// The twin that must fail: an ordinary fma chain.
TEST(TensorCoreGolden, AFusedChainIsNotTheH100) {
  int64_t different = 0;
  for (const Regime& regime : golden())
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        float acc = regime.c[0][i][j];
        for (int k = 0; k < 16; ++k)
          acc = numerics::fma(numerics::widen(regime.a[0][i][k]), numerics::widen(regime.b[0][j][k]), acc);
        different += float_bits(acc) != float_bits(regime.d[0][i][j]);
      }
  EXPECT_GT(different, 200);
}

TEST(TensorCoreGolden, VectorStepsAreTheH100) {
  const std::vector<Regime> regimes = golden();
  for (const VectorStep& v : vector_steps()) {
    for (size_t g = 0; g < regimes.size(); ++g) {
      const Regime& regime = regimes[g];
      for (int t = 0; t < kTiles; ++t)
        for (int row = 0; row < 16; row += 4) {
          TensorCoreGroup groups[4];
          std::vector<float> acc(static_cast<size_t>(8 * v.width));
          std::vector<uint32_t> b(static_cast<size_t>(16 * v.width));
          const auto low = [](int lane) { return lane % 8; };
          const auto high = [](int lane) { return (lane * 3 + 1) % 8; };  // another output than the low half's
          for (int k = 0; k < 16; ++k)
            for (int lane = 0; lane < v.width; ++lane)
              b[k * v.width + lane] = regime.b[t][low(lane)][k].bits | uint32_t{regime.b[t][high(lane)][k].bits} << 16;
          for (int r = 0; r < 4; ++r) {
            prepare_tensor_core_group(regime.a[t][row + r], 16, &groups[r]);
            for (int lane = 0; lane < v.width; ++lane) {
              acc[2 * r * v.width + lane] = regime.c[t][row + r][low(lane)];
              acc[(2 * r + 1) * v.width + lane] = regime.c[t][row + r][high(lane)];
            }
          }
          v.step(4, acc.data(), groups, b.data(), v.width, 16);
          for (int r = 0; r < 4; ++r)
            for (int lane = 0; lane < v.width; ++lane) {
              ASSERT_EQ(float_bits(acc[2 * r * v.width + lane]), float_bits(regime.d[t][row + r][low(lane)]))
                  << name(v.isa) << " regime " << g << " tile " << t << " row " << row + r << " lane " << lane;
              ASSERT_EQ(float_bits(acc[(2 * r + 1) * v.width + lane]), float_bits(regime.d[t][row + r][high(lane)]))
                  << name(v.isa) << " regime " << g << " tile " << t << " row " << row + r << " lane " << lane;
            }
        }
    }
  }
}

// Every pair of kinds of operand, short groups, accumulators of any bits and those that matter: zero, -0, near the products.
TEST(TensorCoreVector, EqualsScalarOnHostileInputs) {
  for (const VectorStep& v : vector_steps()) {
    hostile::Values values(7);
    for (hostile::Kind kind_a : hostile::kKinds)
      for (hostile::Kind kind_b : hostile::kKinds)
        for (int repeat = 0; repeat < 40; ++repeat) {
          const int rows = 1 << values.below(3), count = repeat < 20 ? 16 : 1 + static_cast<int>(values.below(16));
          const ptrdiff_t stride = v.width + values.below(3);
          TensorCoreGroup groups[4];
          std::vector<Bf16> a[4];
          for (int r = 0; r < rows; ++r) {
            a[r] = values.vector(r == 3 && repeat % 3 == 0 ? hostile::Kind::kZeros : kind_a, 16);
            if (repeat % 7 == 0 && r == 1) a[r].assign(16, Bf16{0x8000});
            prepare_tensor_core_group(a[r].data(), count, &groups[r]);
          }
          std::vector<uint32_t> b(static_cast<size_t>(16 * stride));
          for (uint32_t& word : b) {
            const uint16_t low = values.bf16(kind_b, values.next()).bits;
            word = low | uint32_t{values.bf16(kind_b, values.next()).bits} << 16;
          }
          if (repeat % 5 == 0)
            for (int k = 0; k < count; ++k) b[k * stride + 3] &= 0x8000ffffu;  // a dead output
          std::vector<float> acc(static_cast<size_t>(2 * rows * v.width));
          for (float& x : acc) {
            const uint32_t r = values.next();
            const uint32_t bits = r % 5 == 0   ? r & 0x80000000u
                                  : r % 5 == 1 ? values.next()
                                               : (r & 0x80000000u) | (115 + (r >> 8) % 24) << 23 | (values.next() & 0x7fffffu);
            x = numerics::bits_float(r % 5 == 4 && kind_a == hostile::Kind::kFull ? (r & 0x80000000u) | 0x3fffffffu : bits);
          }
          std::vector<float> expected = acc;
          for (int r = 0; r < rows; ++r)
            for (int half = 0; half < 2; ++half)
              for (int lane = 0; lane < v.width; ++lane) {
                Bf16 column[16];
                for (int k = 0; k < count; ++k) column[k].bits = static_cast<uint16_t>(b[k * stride + lane] >> (16 * half));
                float& x = expected[(2 * r + half) * v.width + lane];
                x = tensor_core_step(x, a[r].data(), column, count);
              }
          v.step(rows, acc.data(), groups, b.data(), stride, count);
          for (size_t i = 0; i < acc.size(); ++i)
            ASSERT_EQ(float_bits(acc[i]), float_bits(expected[i]))
                << name(v.isa) << " a " << static_cast<int>(kind_a) << " b " << static_cast<int>(kind_b) << " count " << count
                << " at " << i;
        }
  }
}

// The one place where 32 bits are not enough for the sum: sixteen full products and a full accumulator of one sign.
TEST(TensorCoreVector, NoticesTheSumThatOverflows) {
  std::vector<Bf16> full(16, Bf16{0x3fff});
  for (const VectorStep& v : vector_steps())
    for (uint32_t sign : {0u, 0x8000u}) {
      std::vector<uint32_t> b(static_cast<size_t>(16 * v.width), 0x3fff3fffu ^ (sign | sign << 16));
      TensorCoreGroup group;
      prepare_tensor_core_group(full.data(), 16, &group);
      std::vector<float> acc(static_cast<size_t>(2 * v.width));
      for (size_t i = 0; i < acc.size(); ++i)
        acc[i] = numerics::bits_float((sign << 16) | (0x3fffffffu - static_cast<uint32_t>(i) * 0x20000u));
      std::vector<Bf16> column(16, Bf16{static_cast<uint16_t>(0x3fff ^ sign)});
      std::vector<float> expected = acc;
      for (float& x : expected) x = tensor_core_step(x, full.data(), column.data(), 16);
      v.step(1, acc.data(), &group, b.data(), v.width, 16);
      for (size_t i = 0; i < acc.size(); ++i) EXPECT_EQ(float_bits(acc[i]), float_bits(expected[i])) << name(v.isa) << " " << i;
    }
}

}  // namespace
}  // namespace invar
