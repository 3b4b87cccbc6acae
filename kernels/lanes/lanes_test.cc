#include <gtest/gtest.h>

#include <vector>

#include "kernels/lanes/probe.h"
#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

struct Probe {
  Isa isa;
  void (*exp2)(const float*, int64_t, float*);
  void (*bf)(const float*, int64_t, numerics::Bf16*, float*);
  float (*halve)(const float*);
  int width;
};

std::vector<Probe> probes() {
  std::vector<Probe> all = {{Isa::kAvx2, lanes_probe::exp2_avx2, lanes_probe::bf_avx2, lanes_probe::halve_avx2, 8},
                            {Isa::kAvx512, lanes_probe::exp2_avx512, lanes_probe::bf_avx512, lanes_probe::halve_avx512, 16}};
  std::erase_if(all, [](const Probe& p) { return p.isa > detect_isa(); });
  return all;
}

// Every exponent and sign with scattered fractions, and each border of a rule with both its neighbours.
std::vector<float> arguments() {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 8191) x.push_back(numerics::bits_float(static_cast<uint32_t>(bits)));
  for (uint32_t high = 0; high < 0x10000; ++high)  // bf16 ties: exactly half way, and one off
    for (const uint32_t low : {0x0000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) x.push_back(numerics::bits_float(high << 16 | low));
  for (int n = -300; n <= 300; ++n)  // exp2: -126 and 128 among them, and the half-way points of its own rounding
    for (const uint32_t near : {0xffffffffu, 0u, 1u})
      x.push_back(numerics::bits_float(numerics::float_bits(static_cast<float>(n) * 0.5f) + (n ? near : 0u)));
  x.push_back(0.25f);  // an odd length: the last vector is a partial one
  return x;
}

TEST(Lanes, Exp2_HasTheBitsOfTheContract) {
  std::vector<float> x = arguments();
  std::erase_if(x, [](float v) { return v != v; });  // of a NaN it may be anything
  std::vector<float> want(x.size()), got(x.size());
  for (size_t i = 0; i < x.size(); ++i) want[i] = numerics::exp2(x[i]);
  for (const Probe& probe : probes()) {
    std::fill(got.begin(), got.end(), -1.0f);
    probe.exp2(x.data(), static_cast<int64_t>(x.size()), got.data());
    EXPECT_TRUE(same_bits(got, want)) << name(probe.isa);
  }
  EXPECT_EQ(numerics::exp2(-126.0f), 0x1p-126f);  // the borders are where the contract puts them
  EXPECT_EQ(numerics::exp2(numerics::bits_float(numerics::float_bits(-126.0f) + 1)), 0.0f);
  EXPECT_EQ(numerics::exp2(0.0f), 1.0f);
}

TEST(Lanes, Rounding_HasTheBitsOfTheContract) {
  const std::vector<float> x = arguments();
  std::vector<Bf16> want(x.size()), got(x.size());
  std::vector<float> want_wide(x.size()), got_wide(x.size());
  for (size_t i = 0; i < x.size(); ++i) want[i] = numerics::bf(x[i]), want_wide[i] = numerics::widen(want[i]);
  for (const Probe& probe : probes()) {
    probe.bf(x.data(), static_cast<int64_t>(x.size()), got.data(), got_wide.data());
    EXPECT_TRUE(same_bits(got, want)) << name(probe.isa);
    EXPECT_TRUE(same_bits(got_wide, want_wide)) << name(probe.isa);
  }
}

TEST(Lanes, Halving_TakesTheStridesOfTheContract) {
  int neighbours = 0;
  for (const Probe& probe : probes())
    for (uint64_t seed = 0; seed < 200; ++seed) {
      std::vector<float> lane = float_data(probe.width, Kind::kOrdinary, seed), pairs = lane;
      const float got = probe.halve(lane.data());
      for (int stride = probe.width / 2; stride > 0; stride /= 2)
        for (int j = 0; j < stride; ++j) lane[j] = numerics::add(lane[j], lane[j + stride]);
      EXPECT_EQ(numerics::float_bits(got), numerics::float_bits(lane[0])) << name(probe.isa);
      for (int step = 1; step < probe.width; step *= 2)
        for (int j = 0; j < probe.width; j += 2 * step) pairs[j] = numerics::add(pairs[j], pairs[j + step]);
      neighbours += numerics::float_bits(got) != numerics::float_bits(pairs[0]);
    }
  EXPECT_TRUE(probes().empty() || neighbours > 50);  // control: neighbours first is another sum
}

}  // namespace
}  // namespace invar
