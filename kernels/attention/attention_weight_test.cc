// The attention's weights and references, on every float where that matters.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "kernels/attention/attention_order.h"

namespace invar {
namespace {

using namespace attention_order;
using numerics::bits_float;
using numerics::float_bits;
using numerics::kAttentionOutside;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool inside(float t) { return (t >= 2.0f) & (t < 3.0f); }
bool subnormal(uint32_t bits) { return (bits & 0x7f800000u) == 0 && (bits & 0x7fffffffu) != 0; }

// Counts the bit patterns in [first, last) for which `wrong` holds, and names one.
template <class Wrong>
uint64_t count(uint64_t first, uint64_t last, uint32_t* example, const Wrong& wrong) {
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> pool;
  std::atomic<uint64_t> total = 0;
  for (unsigned i = 0; i < threads; ++i) {
    pool.emplace_back([&, i] {
      const uint64_t begin = first + (last - first) * i / threads, end = first + (last - first) * (i + 1) / threads;
      for (uint64_t part = begin; part < end; part += 1 << 20) {
        const auto size = static_cast<uint32_t>(std::min<uint64_t>(1 << 20, end - part));
        uint32_t n = 0;
        for (uint32_t k = 0; k < size; ++k) n += wrong(static_cast<uint32_t>(part) + k);
        if (n == 0) continue;
        total += n;
        for (uint32_t k = 0; k < size; ++k)
          if (wrong(static_cast<uint32_t>(part) + k)) *example = static_cast<uint32_t>(part) + k;
      }
    });
  }
  for (std::thread& t : pool) t.join();
  return total;
}
constexpr uint64_t kAllFloats = uint64_t{1} << 32;

TEST(AttentionWeight, BitsOfEveryFloatSayWhetherItIsInside) {
  uint32_t example = 0;
  const auto unseen = [](uint32_t bits) -> uint32_t {
    const bool passes = (bits & kAttentionOutside) == 0, small = bits < 0x400000u;  // +0 and the lower half of the subnormals
    return passes != (inside(bits_float(bits)) | small);
  };
  EXPECT_EQ(count(0, kAllFloats, &example, unseen), 0u) << std::hex << example;
  // The exceptions, which no t is, are subnormal; and they are exceptions.
  EXPECT_TRUE(subnormal(1) && subnormal(0x3fffffu));
  EXPECT_NE(float_bits(numerics::attention_weight_inside(bits_float(0x3fffffu))), 0u);
}

TEST(AttentionWeight, EveryFloatInsideAndManyOutside) {
  uint32_t example = 0;
  const auto wrong = [](uint32_t bits) -> uint32_t {
    const float t = bits_float(bits), p = numerics::attention_weight(t);
    const float form = numerics::attention_weight_inside(t);
    const uint32_t want = t != t ? bits : inside(t) ? float_bits(form) : t >= 3.0f ? 0x40000000u : 0u;
    return float_bits(p) != want;
  };
  EXPECT_EQ(count(float_bits(1.5f), float_bits(4.5f), &example, wrong), 0u) << std::hex << example;
  for (uint64_t bits = 0; bits < kAllFloats; bits += 61) ASSERT_FALSE(wrong(static_cast<uint32_t>(bits))) << std::hex << bits;
  for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fffffffu, 0xffc00000u, 0x7f800001u, 0x80000000u, 1u})
    EXPECT_FALSE(wrong(bits)) << std::hex << bits;
  EXPECT_EQ(float_bits(numerics::attention_weight_inside(0.0f)), 0u);
}

// 2^(x + 1/2) with x = 128 (t - 2) - 127.5, the power that t stands for.
double power(float t) { return std::exp2((static_cast<double>(t) - 2) * 128 - 127); }

TEST(AttentionWeight, NearThePowerItStandsFor) {
  double worst = 0, sum = 0;
  float largest = 0;
  for (uint32_t bits = float_bits(2.0f); bits < float_bits(3.0f); ++bits) {
    const float t = bits_float(bits), p = numerics::attention_weight_inside(t);
    largest = std::max(largest, p);
    if (t < 2 + 1.0f / 128) {  // x < -126.5, below the normal numbers: no more than that
      ASSERT_GE(p, 0.0f);
      ASSERT_LE(p, 0x1.001p-126f) << t;
      continue;
    }
    const double error = p / power(t) - 1;
    worst = std::max(worst, std::fabs(error));
    sum += error;
  }
  EXPECT_LE(worst, 6.7e-4);
  EXPECT_GT(worst, 6e-4);  // or the comparison compares nothing
  EXPECT_LT(std::fabs(sum) / (1 << 22), 1e-4) << "weights are too large or too small on the whole";
  EXPECT_LT(largest, 2.001f);
}

TEST(AttentionReference, WholeAndNeverDown) {
  for (uint64_t bits = 0; bits < kAllFloats; bits += 509) {
    const float largest = bits_float(static_cast<uint32_t>(bits));
    for (const float before : {-kInfinity, -3e38f, -1000.0f, 0.0f, 17.0f, 4e6f, kInfinity}) {
      const float r = numerics::attention_reference(before, largest);
      ASSERT_GE(r, before) << largest;
      if (largest != largest) {
        ASSERT_EQ(r, before);
      }
      if (!(std::fabs(largest) < 0x1p22f) || before != -kInfinity) continue;
      ASSERT_EQ(r, std::rint(r)) << largest;
      ASSERT_GE(r - largest, 6.5f) << largest;
      ASSERT_LE(r - largest, 7.5f) << largest;
    }
  }
}

TEST(AttentionReference, RescalesByExactPowersOfTwo) {
  for (const float to : {-4194304.0f, -1001.0f, -126.0f, -1.0f, 0.0f, 7.0f, 512.0f, 4194000.0f}) {
    for (int d = 0; d <= 400; ++d) {
      const float want = d <= 126 ? std::ldexp(1.0f, -d) : 0.0f;
      ASSERT_EQ(float_bits(rescale(to - static_cast<float>(d), to)), float_bits(want)) << to << " " << d;
    }
    EXPECT_EQ(float_bits(rescale(-kInfinity, to)), 0u);
    EXPECT_EQ(float_bits(rescale(to, kInfinity)), 0u);
  }
  EXPECT_EQ(float_bits(rescale(-1e30f, 1e30f)), 0u);
  EXPECT_EQ(rescale(1e30f, 1e30f), 1.0f);
  EXPECT_TRUE(std::isnan(rescale(-kInfinity, -kInfinity)));
  EXPECT_TRUE(std::isnan(rescale(kInfinity, kInfinity)));
}

TEST(AttentionReference, OffsetIsExactAndOdd) {
  for (int32_t r = -(1 << 23) + 400; r < (1 << 23); r += 97) {
    const float offset = numerics::attention_offset(static_cast<float>(r));
    ASSERT_EQ(offset * 256.0, 767.0 - 2.0 * r) << r;
  }
}

// Scores and scales of any size: the block's own largest lies below 3 once the reference has moved, and never moves it twice.
TEST(AttentionReference, LargestScoreLiesInside) {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  int64_t moved = 0;
  for (int64_t i = 0; i < 4000000; ++i) {
    const float c = exponent_scale(std::ldexp(1 + std::fabs(normal(rng)), static_cast<int>(rng() % 40) - 30));
    const float x = std::ldexp(normal(rng), static_cast<int>(rng() % 30) - 6), step = exponent_step(c);
    const float largest = x / c, before = rng() % 4 ? std::rint(x + 30 * normal(rng)) : -kInfinity;
    if (!(std::fabs(largest * c) < 0x1p22f) || !moves(largest, step, before)) continue;
    const float r = moved_reference(largest, c, before);
    ASSERT_GT(r, before) << largest << " " << c;
    ASSERT_FALSE(moves(largest, step, r)) << largest << " " << c;
    const float t = numerics::fma(largest, step, numerics::attention_offset(r));
    ASSERT_TRUE(inside(t)) << largest << " " << c << " " << t;
    ASSERT_GT(numerics::attention_weight(t), 0x1p-8f);
    ASSERT_LT(numerics::attention_weight(t), 0x1p-5f);
    ++moved;
  }
  EXPECT_GT(moved, 1000000);
}

// Scores that all but cancel the offset: t is +0 or far from subnormal, so its bits never lie.
TEST(AttentionReference, NoDistanceIsSubnormal) {
  std::mt19937 rng(6);
  std::normal_distribution<float> normal;
  int64_t zeros = 0;
  for (int64_t i = 0; i < 2000000; ++i) {
    const float any = std::ldexp(1 + std::fabs(normal(rng)), static_cast<int>(rng() % 160) - 120);
    const float c = rng() % 4 == 0 ? 0.25f : exponent_scale(rng() % 2 ? 0.125f : any);  // powers of two cancel exactly
    const float r = std::rint(std::ldexp(normal(rng), static_cast<int>(rng() % 22)));
    const float step = exponent_step(c), offset = numerics::attention_offset(r);
    float s = -offset / step;
    for (int k = static_cast<int>(rng() % 5); k > 0; --k) s = std::nextafter(s, rng() % 2 ? kInfinity : -kInfinity);
    if (rng() % 16 == 0) s = bits_float(static_cast<uint32_t>(rng()));
    const float t = numerics::fma(s, step, offset);
    const uint32_t bits = float_bits(t);
    ASSERT_FALSE(subnormal(bits)) << s << " " << c << " " << r;
    ASSERT_EQ((bits & kAttentionOutside) == 0, inside(t) || bits == 0) << s << " " << c << " " << r;
    zeros += bits == 0;
  }
  EXPECT_GT(zeros, 1000);
  // With a reference at 383.5 the offset is zero, and then there are such scores.
  EXPECT_TRUE(
      subnormal(float_bits(numerics::fma(1e-38f, exponent_step(exponent_scale(0.125f)), numerics::attention_offset(383.5f)))));
}

}  // namespace
}  // namespace invar
