// The text of the vocabulary loops, compiled once an instruction set. Plain loops that the compiler turns into vectors; they
// repeat functions of numerics.h without branches, in an unnamed namespace so that no AVX-512 copy is linked into code for every
// machine.
#pragma once

#include <cstdint>

#include "kernels/logits/vocabulary_loops.h"

namespace invar {
namespace {

namespace nm = numerics;

inline uint32_t bits_of(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}
inline int32_t key_of(float x) {
  const auto u = static_cast<int32_t>(bits_of(x));
  return u ^ ((u >> 31) & 0x7fffffff);
}
inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

uint64_t hash(const float* z, int64_t count, uint64_t first) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t u = bits_of(z[i]);
    const uint32_t canonical = (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : u;
    sum += mix(mix(first + static_cast<uint64_t>(i)) ^ canonical);
  }
  return sum;
}

void key_range(const float* z, int64_t count, int32_t* lowest, int32_t* highest) {
  int32_t low = key_of(z[0]), high = low;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t k = key_of(z[i]);
    low = k < low ? k : low;
    high = k > high ? k : high;
  }
  *lowest = low;
  *highest = high;
}

void block_keys(const float* z, int64_t count, int32_t* out) {
  const int64_t whole = count / kKeyBlock;
  for (int64_t b = 0; b < whole; ++b) {
    int32_t high = INT32_MIN;
    for (int64_t i = 0; i < kKeyBlock; ++i) {
      const int32_t k = key_of(z[b * kKeyBlock + i]);
      high = k > high ? k : high;
    }
    out[b] = high;
  }
  int32_t low;
  if (whole * kKeyBlock < count) key_range(z + whole * kKeyBlock, count - whole * kKeyBlock, &low, out + whole);
}

// A block without the key costs one vector pass; the scalar search runs once.
constexpr int64_t kSearchBlock = 256;

int64_t count_equal(const float* z, int64_t count, int32_t key) {
  int64_t n = 0;
  for (int64_t first = 0; first < count; first += 4096) {
    const int64_t last = count < first + 4096 ? count : first + 4096;
    int32_t part = 0;
    for (int64_t i = first; i < last; ++i) part += key_of(z[i]) == key ? 1 : 0;
    n += part;
  }
  return n;
}

int64_t count_above(const float* z, int64_t count, int32_t key) {
  int64_t n = 0;
  for (int64_t first = 0; first < count; first += 4096) {
    const int64_t last = count < first + 4096 ? count : first + 4096;
    int32_t part = 0;
    for (int64_t i = first; i < last; ++i) part += key_of(z[i]) > key ? 1 : 0;
    n += part;
  }
  return n;
}

bool any_equal(const float* z, int64_t count, int32_t key) {
  int32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= key_of(z[i]) == key ? 1 : 0;
  return any != 0;
}

int64_t find_first(const float* z, int64_t count, int32_t key) {
  for (int64_t first = 0; first < count; first += kSearchBlock) {
    const int64_t last = count < first + kSearchBlock ? count : first + kSearchBlock;
    if (!any_equal(z + first, last - first, key)) continue;
    for (int64_t i = first; i < last; ++i)
      if (key_of(z[i]) == key) return i;
  }
  return count;
}

int64_t find_last(const float* z, int64_t count, int32_t key) {
  for (int64_t first = (count - 1) / kSearchBlock * kSearchBlock; first >= 0; first -= kSearchBlock) {
    const int64_t last = count < first + kSearchBlock ? count : first + kSearchBlock;
    if (!any_equal(z + first, last - first, key)) continue;
    for (int64_t i = last - 1; i >= first; --i)
      if (key_of(z[i]) == key) return i;
  }
  return count;
}

void divide(const float* __restrict z, int64_t count, float by, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = z[i] / by;
}

// numerics::exp2 for x <= 0. "0 below -126" is a mask from a comparison of bits: a choice, or a comparison of floats (it could
// trap), would keep the compiler from making vectors.
inline float exp2_nonpositive(float x) {
  const float t = x + nm::kRoundMagic;
  const float f = x - (t - nm::kRoundMagic);
  float p = nm::kExp2[nm::kExp2Degree - 1];
#pragma GCC unroll 8
  for (int i = nm::kExp2Degree - 2; i >= 0; --i) p = __builtin_fmaf(p, f, nm::kExp2[i]);
  p = __builtin_fmaf(p, f, 1.0f);
  const uint32_t scaled = bits_of(p) + (bits_of(t) << 23);  // the low 9 bits of t are those of n
  return float_of(scaled & (0u - static_cast<uint32_t>(bits_of(x) <= 0xc2fc0000u)));
}

// A mass in two pieces that fit 32 bits: mass = high * 2^16 + low.
struct Mass {
  int32_t high;
  int32_t low;
};
inline Mass mass_of(float z, float max) {
  const float m = exp2_nonpositive((z - max) * nm::kLog2e) * 0x1p40f;
  const auto high = static_cast<int32_t>(m * 0x1p-16f);
  return Mass{high, static_cast<int32_t>(m - static_cast<float>(high) * 0x1p16f)};  // exact: the low bits of m
}

uint64_t mass_sum(const float* z, int64_t count, float max) {
  int64_t high = 0, low = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Mass m = mass_of(z[i], max);
    high += m.high;
    low += m.low;
  }
  return (static_cast<uint64_t>(high) << 16) + static_cast<uint64_t>(low);
}

void masses(const float* __restrict z, int64_t count, float max, uint64_t* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const Mass m = mass_of(z[i], max);
    out[i] = (static_cast<uint64_t>(m.high) << 16) + static_cast<uint64_t>(m.low);
  }
}

inline float ln_of(float x) {
  const uint32_t u = bits_of(x) - 0x3f3504f3u;
  const auto e = static_cast<int32_t>(u) >> 23;
  const float t = float_of((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  float q = nm::kLn1p[7];
#pragma GCC unroll 8
  for (int i = 6; i >= 0; --i) q = __builtin_fmaf(q, t, nm::kLn1p[i]);
  return __builtin_fmaf(static_cast<float>(e), nm::kLn2, __builtin_fmaf(t * t, q, t));
}

inline uint32_t high_product(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }

struct Draws {
  uint32_t v[4];
};
inline Draws philox_of(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint32_t n0 = high_product(0xCD9E8D57u, c2) ^ c1 ^ k0, n2 = high_product(0xD2511F53u, c0) ^ c3 ^ k1;
    c1 = 0xCD9E8D57u * c2;
    c3 = 0xD2511F53u * c0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Draws{{c0, c1, c2, c3}};
}
inline float gumbel_of(uint32_t r) {
  const float u = (static_cast<float>(static_cast<int32_t>(r >> 9)) + 0.5f) * 0x1p-23f;
  return -ln_of(-ln_of(u));
}
constexpr auto kDraw = static_cast<uint32_t>(nm::Draw::kGumbel);

void perturb(const float* __restrict y, const int32_t* __restrict ids, int64_t count, uint64_t seed, uint32_t position,
             uint32_t choice, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    const Draws r = philox_of(id >> 2, position, kDraw, choice, seed);
    const uint32_t even = id & 2 ? r.v[2] : r.v[0], odd = id & 2 ? r.v[3] : r.v[1];
    out[i] = y[i] + gumbel_of(id & 1 ? odd : even);
  }
}

// Four neighbours share one Philox.
void perturb_all(const float* __restrict y, int64_t count, uint64_t seed, uint32_t position, uint32_t choice,
                 float* __restrict out) {
  const auto groups = static_cast<uint32_t>(count / 4);
  for (uint32_t group = 0; group < groups; ++group) {
    const Draws r = philox_of(group, position, kDraw, choice, seed);
    const int64_t i = int64_t{group} * 4;
    out[i] = y[i] + gumbel_of(r.v[0]);
    out[i + 1] = y[i + 1] + gumbel_of(r.v[1]);
    out[i + 2] = y[i + 2] + gumbel_of(r.v[2]);
    out[i + 3] = y[i + 3] + gumbel_of(r.v[3]);
  }
  const Draws last = philox_of(groups, position, kDraw, choice, seed);
  for (int64_t i = int64_t{groups} * 4; i < count; ++i) out[i] = y[i] + gumbel_of(last.v[i % 4]);
}

constexpr VocabularyLoops kTable = {.hash = hash,
                                    .block_keys = block_keys,
                                    .key_range = key_range,
                                    .find_first = find_first,
                                    .find_last = find_last,
                                    .count_above = count_above,
                                    .count_equal = count_equal,
                                    .divide = divide,
                                    .mass_sum = mass_sum,
                                    .masses = masses,
                                    .perturb = perturb,
                                    .perturb_all = perturb_all};

}  // namespace
}  // namespace invar
