#include "runtime/weights/element_type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace invar {
namespace {

using numerics::Bf16;

const std::byte* bytes(const void* p) { return static_cast<const std::byte*>(p); }

// fp16 by its definition, in double.
double fp16_value(uint16_t h) {
  const int e = (h >> 10) & 31;
  const int m = h & 1023;
  const double magnitude = e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

// The nearest bf16 by search: independent of the bit trick under test. Ties go to the even pattern.
uint16_t nearest_bf16(double x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(x);
  uint32_t low = 0, high = 0x7f80;  // patterns of magnitudes ascend; infinity stands for 2^128
  const auto value = [](uint32_t pattern) {
    return pattern == 0x7f80 ? std::ldexp(1.0, 128) : static_cast<double>(numerics::widen(Bf16{static_cast<uint16_t>(pattern)}));
  };
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (value(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - value(low), above = value(high) - magnitude;
  const uint32_t pattern = below < above || (below == above && low % 2 == 0) ? low : high;
  return static_cast<uint16_t>(pattern | sign);
}

TEST(ElementType, NamesAndSizes) {
  EXPECT_EQ(parse_element_type("BF16"), ElementType::kBf16);
  EXPECT_EQ(parse_element_type("F64"), ElementType::kF64);
  EXPECT_EQ(parse_element_type("F4"), std::nullopt);
  EXPECT_EQ(parse_element_type("bf16"), std::nullopt);
  for (int i = 0; i <= static_cast<int>(ElementType::kF64); ++i) {
    const auto type = static_cast<ElementType>(i);
    EXPECT_EQ(parse_element_type(name(type)), type);
    EXPECT_TRUE(bytes_of(type) == 1 || bytes_of(type) == 2 || bytes_of(type) == 4 || bytes_of(type) == 8);
  }
  EXPECT_EQ(bytes_of(ElementType::kF16), 2);
  EXPECT_EQ(bytes_of(ElementType::kF32), 4);
  EXPECT_EQ(bytes_of(ElementType::kI64), 8);
}

TEST(ElementType, EveryFp16PatternConvertsExactlyAsDefined) {
  std::vector<uint16_t> finite;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7c00) != 0x7c00) finite.push_back(static_cast<uint16_t>(h));
  }
  std::vector<Bf16> out(finite.size());
  ASSERT_EQ(to_bf16(ElementType::kF16, bytes(finite.data()), static_cast<int64_t>(finite.size()), out.data()), -1);
  for (size_t i = 0; i < finite.size(); ++i) ASSERT_EQ(out[i].bits, nearest_bf16(fp16_value(finite[i]))) << std::hex << finite[i];
}

TEST(ElementType, EveryBf16PatternIsCopied) {
  std::vector<uint16_t> finite;
  for (uint32_t b = 0; b < 0x10000; ++b) {
    if ((b & 0x7f80) != 0x7f80) finite.push_back(static_cast<uint16_t>(b));
  }
  std::vector<Bf16> out(finite.size());
  ASSERT_EQ(to_bf16(ElementType::kBf16, bytes(finite.data()), static_cast<int64_t>(finite.size()), out.data()), -1);
  EXPECT_EQ(std::memcmp(out.data(), finite.data(), finite.size() * 2), 0);
}

TEST(ElementType, Fp32RoundsToNearestEven) {
  std::vector<uint32_t> in;
  // Around every bf16: itself, ties, and the neighbours of ties; subnormals and zeros included.
  for (uint32_t b = 0; b < 0x10000; b += 7) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint32_t u = b << 16 | low;
      if ((u & 0x7fffffff) < 0x7f7f8000) in.push_back(u);  // from there on the result is infinite
    }
  }
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) {
    const uint32_t u = static_cast<uint32_t>(random());
    if ((u & 0x7fffffff) < 0x7f7f8000) in.push_back(u);
  }
  std::vector<Bf16> out(in.size());
  ASSERT_EQ(to_bf16(ElementType::kF32, bytes(in.data()), static_cast<int64_t>(in.size()), out.data()), -1);
  for (size_t i = 0; i < in.size(); ++i) {
    ASSERT_EQ(out[i].bits, nearest_bf16(numerics::bits_float(in[i]))) << std::hex << in[i];
    ASSERT_EQ(out[i].bits, numerics::bf(numerics::bits_float(in[i])).bits) << std::hex << in[i];
  }
}

TEST(ElementType, UnalignedInputIsTheSame) {
  std::vector<float> in(1001);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i) * 0.37f - 100;
  std::vector<std::byte> moved(in.size() * 4 + 1);
  std::memcpy(moved.data() + 1, in.data(), in.size() * 4);
  std::vector<Bf16> a(in.size()), b(in.size());
  EXPECT_EQ(to_bf16(ElementType::kF32, bytes(in.data()), 1001, a.data()), -1);
  EXPECT_EQ(to_bf16(ElementType::kF32, moved.data() + 1, 1001, b.data()), -1);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * 2), 0);
}

TEST(ElementType, EveryNonFinitePatternIsFoundWhereverItStands) {
  const auto first_bad = [](ElementType type, uint32_t pattern, size_t at) {
    std::vector<Bf16> out(70);
    if (type == ElementType::kF32) {
      std::vector<uint32_t> in(70, 0x3f800000);
      in[at] = pattern;
      return to_bf16(type, bytes(in.data()), 70, out.data());
    }
    std::vector<uint16_t> in(70, 0x3c00);
    in[at] = static_cast<uint16_t>(pattern);
    return to_bf16(type, bytes(in.data()), 70, out.data());
  };
  for (const uint32_t sign : {0u, 1u}) {
    for (const size_t at : {size_t{0}, size_t{31}, size_t{64}, size_t{69}}) {
      for (uint32_t m = 0; m < 128; ++m)
        EXPECT_EQ(first_bad(ElementType::kBf16, sign << 15 | 0x7f80 | m, at), static_cast<int64_t>(at));
      for (uint32_t m = 0; m < 1024; m += 11)
        EXPECT_EQ(first_bad(ElementType::kF16, sign << 15 | 0x7c00 | m, at), static_cast<int64_t>(at));
      // Infinity, NaN with low and high payloads, the all-ones pattern, and the finite values that round to infinity.
      for (const uint32_t u : {0x7f800000u, 0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0x7f7f8000u, 0x7f7fffffu}) {
        EXPECT_EQ(first_bad(ElementType::kF32, sign << 31 | u, at), static_cast<int64_t>(at)) << std::hex << u;
      }
      EXPECT_EQ(first_bad(ElementType::kF32, sign << 31 | 0x7f7f7fffu, at), -1);  // the largest that still fits
    }
  }
  const uint16_t nan = 0xfe01, inf = 0xfc00, bf_nan = 0x7fc1;
  const uint32_t large = 0x7f7fffff;
  EXPECT_EQ(show_element(ElementType::kF16, bytes(&nan)), "0xfe01 (NaN)");
  EXPECT_EQ(show_element(ElementType::kF16, bytes(&inf)), "0xfc00 (-infinity)");
  EXPECT_EQ(show_element(ElementType::kBf16, bytes(&bf_nan)), "0x7fc1 (NaN)");
  EXPECT_EQ(show_element(ElementType::kF32, bytes(&large)), "0x7f7fffff (3.40282e+38)");
}

}  // namespace
}  // namespace invar
