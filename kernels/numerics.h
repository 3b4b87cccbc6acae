// The numerics contract: every constant that decides bits, and the scalar functions all schedules must reproduce.
//
// Host and device compile this same text. Nothing here may be changed without raising kContractVersion and making the
// golden digests anew (tests/golden/regenerate). docs/numerics.md is the prose; clause numbers there match the sections here.
//
// Rules for code that claims to follow the contract: compiled with -ffp-contract=off (host) or -fmad=false (device), only
// the operations below, no libm and no device transcendental, no reassociation beyond the orders spelled out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define INVAR_HD __host__ __device__ inline
#else
#define INVAR_HD inline
#endif

namespace invar::numerics {

// ---------------------------------------------------------------- constants a GPU measurement may still move

inline constexpr int kContractVersion = 0;  // 0 = not frozen; the numerics id says "v0"

enum class Profile : uint8_t { kPortable = 0, kTc = 1 };  // fp32 fma chains | Hopper tensor-core rule L16.F25.RZ

inline constexpr int kTensorCoreGroup = 16;            // products added at once with the accumulator in kTc
inline constexpr int kTensorCoreFractionBits = 25;     // bits kept below the largest exponent of a group ...
inline constexpr int kTensorCoreLeastExponent = -133;  // ... which counts as at least this
inline constexpr int kColumnLeafPortable = 256;        // leaf of a column-parallel linear, in k; kTc: all of K
inline constexpr int kRowLeafPortable = 256;           // leaf inside a segment of a row-parallel linear; kTc: the whole segment
inline constexpr int kSegments = 8;                    // segments of a row-parallel linear = most tensor-parallel ranks
inline constexpr int kSumLanes = 1024;                 // virtual lanes of a row sum
inline constexpr int kAttentionBlock = 64;             // keys per online-softmax block
inline constexpr int kAttentionSplit = 512;            // keys per split; splits merge in ascending order
inline constexpr int kAttentionSumLanes = 8;           // portable: lanes of the softmax denominator, by key mod 8
inline constexpr int kMassBits = 40;                   // fixed-point bits of a softmax mass over the vocabulary
inline constexpr int kTopPBits = 32;                   // fixed-point bits of top_p

// 0: K, or a segment, is one leaf.
INVAR_HD int column_leaf(Profile p) { return p == Profile::kTc ? 0 : kColumnLeafPortable; }
INVAR_HD int row_leaf(Profile p) { return p == Profile::kTc ? 0 : kRowLeafPortable; }

// ---------------------------------------------------------------- formats

struct Bf16 {
  uint16_t bits;
};

INVAR_HD uint32_t float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
INVAR_HD float bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
INVAR_HD float widen(Bf16 x) { return bits_float(uint32_t{x.bits} << 16); }

// bf(x): round to nearest even; every NaN becomes the one quiet NaN 0x7fff, as the device's conversion does.
INVAR_HD Bf16 bf(float x) {
  const uint32_t u = float_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return Bf16{0x7fff};
  return Bf16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// ---------------------------------------------------------------- single roundings (RN)

#ifdef __CUDA_ARCH__
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ inline float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ inline float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline float sqrt(float a) { return __fsqrt_rn(a); }
#else
inline float add(float a, float b) { return a + b; }
inline float sub(float a, float b) { return a - b; }
inline float mul(float a, float b) { return a * b; }
inline float div(float a, float b) { return a / b; }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float sqrt(float a) { return __builtin_sqrtf(a); }
#endif

INVAR_HD float rsqrt(float x) { return div(1.0f, sqrt(x)); }

// ---------------------------------------------------------------- exponentials and logarithm

inline constexpr float kLog2e = 0x1.715476p+0f;
inline constexpr float kLn2 = 0x1.62e430p-1f;
// 2^f on [-1/2, 1/2], constant term 1 so that 2^0 = 1 exactly. Minimax in relative error: 2.0e-9 before rounding.
inline constexpr int kExp2Degree = 6;
inline constexpr float kExp2[kExp2Degree] = {0x1.62e430p-1f, 0x1.ebfbdcp-3f,  0x1.c6aee8p-5f,
                                             0x1.3b2d4cp-7f, 0x1.5f3e52p-10f, 0x1.41fbbap-13f};
inline constexpr float kRoundMagic = 0x1.8p+23f;  // adding it rounds |x| < 2^22 to an integer, ties to even

// p = fma(p, x, c) with the coefficients I, I - 1 .. 0. A template, so that each is a constant: device code cannot read the
// arrays.
template <const auto& Coefficients, int I>
INVAR_HD float horner(float p, float x) {
  if constexpr (I < 0) {
    return p;
  } else {
    constexpr float c = Coefficients[I];
    return horner<Coefficients, I - 1>(fma(p, x, c), x);
  }
}

// E of the contract: 2^x = P(x - n) * 2^n with n = RN(x). Below -126: +0. From 128 on: +inf. Horner, fma at each step.
INVAR_HD float exp2(float x) {
  if (x < -126.0f) return 0.0f;
  if (x >= 128.0f) return bits_float(0x7f800000u);
  const float t = add(x, kRoundMagic);
  const float f = sub(x, sub(t, kRoundMagic));
  constexpr float highest = kExp2[kExp2Degree - 1];
  const float p = fma(horner<kExp2, kExp2Degree - 2>(highest, f), f, 1.0f);
  // n sits in the low bits of t; adding it to the exponent field is exact because p is in [0.7, 1.42] and n >= -126 ...
  const int n = static_cast<int>(float_bits(t) - float_bits(kRoundMagic));
  // ... except that p < 1 with n = -126 would be subnormal: two exact scalings instead of one (flush there is part of E).
  if (n == -126 && p < 1.0f) return 0.0f;
  if (n == 128) return mul(mul(p, 0x1p127f), 2.0f);
  return bits_float(float_bits(p) + (static_cast<uint32_t>(n) << 23));
}

// ---------------------------------------------------------------- the attention's weights

// t = fma(score, kAttentionStep * c, attention_offset(reference)) is a number whose bits are the weight, nearly: for t in [2, 4)
// the upper 8 bits of its fraction are the exponent field of 2^(score * c - reference + 1/2), the other 15 are f of 2^n (1 + f).
// So a weight costs a shift, the polynomial g with g(1 + f) (1 + f) = 2^f (relative error 6.6e-4, a third of what bf16 rounds
// off), and one product; and the bits of t, kAttentionOutside, say whether it is in [2, 3), where this holds.
inline constexpr float kAttentionStep = 0x1p-7f;
inline constexpr float kAttentionZero = 0x1.7f8p+1f;        // 2 + 255/256: an odd multiple of 1/256, so no t is subnormal
inline constexpr float kAttentionLeast = 2.0f;              // below: weight +0
inline constexpr float kAttentionMost = 3.0f;               // from here on: weight 2, and the reference moves
inline constexpr float kAttentionHeadroom = 7.0f;           // by which a moved reference lies above the block's largest score
inline constexpr uint32_t kAttentionOutside = 0xbfc00000u;  // a bit of these is set in every t outside [2, 3) but +0
inline constexpr float kAttentionWeight[4] = {0x1.c68eb0p+0f, -0x1.60973ap+0f, 0x1.6a3a46p-1f, -0x1.b40068p-4f};

INVAR_HD float attention_offset(float reference) { return fma(reference, -kAttentionStep, kAttentionZero); }
// For t in [2, 3), or +0 (weight +0).
INVAR_HD float attention_weight_inside(float t) {
  const uint32_t u = float_bits(t) << 8;
  const float m = bits_float((u & 0x7fffffu) | 0x3f800000u);
  constexpr float highest = kAttentionWeight[3];
  return mul(bits_float(u), horner<kAttentionWeight, 2>(highest, m));
}
// For every t; NaN stays NaN.
INVAR_HD float attention_weight(float t) {
  if (t != t) return t;
  if (t < kAttentionLeast) return 0.0f;
  if (t >= kAttentionMost) return 2.0f;
  return attention_weight_inside(t);
}
// Where the reference of a split goes when the largest score of a block, times c, is `largest` (rounded): a whole number, so that
// states are rescaled by powers of two, exactly. Never down.
INVAR_HD float attention_reference(float reference, float largest) {
  const float r = add(sub(add(largest, kRoundMagic), kRoundMagic), kAttentionHeadroom);
  return r > reference ? r : reference;
}
// 2^(from - to), +0 below 2^-126; 1 where they are equal; NaN where the difference is none.
INVAR_HD float attention_rescale(float from, float to) {
  const float d = sub(from, to);
  if (d != d) return d;
  if (d < -126.0f) return 0.0f;
  return bits_float(float_bits(add(d, kRoundMagic + 127.0f)) << 23);
}

// ln(x) for positive normal x: x = m * 2^e, m in [sqrt(1/2), sqrt(2)); ln x = e * ln2 + t + t^2 * Q(t), t = m - 1. Error 3e-8.
inline constexpr float kLn1p[8] = {-0x1.fffff4p-2f, 0x1.5556e8p-2f, -0x1.0006c6p-2f, 0x1.98da1ep-3f,
                                   -0x1.52fb1ep-3f, 0x1.30d172p-3f, -0x1.2775dcp-3f, 0x1.6fcb72p-4f};
INVAR_HD float ln(float x) {
  const uint32_t u = float_bits(x) - 0x3f3504f3u;  // bits of sqrt(1/2)
  const int e = static_cast<int>(u) >> 23;
  const float t = sub(bits_float((u & 0x7fffffu) + 0x3f3504f3u), 1.0f);
  constexpr float highest = kLn1p[7];
  const float q = horner<kLn1p, 6>(highest, t);
  return fma(static_cast<float>(e), kLn2, fma(mul(t, t), q, t));
}

INVAR_HD float sigmoid(float x) { return div(1.0f, add(1.0f, exp2(mul(x, -kLog2e)))); }
// MLP activation: bf(RN(RN(g * sigmoid(g)) * u)).
INVAR_HD Bf16 silu_mul(Bf16 gate, Bf16 up) {
  const float g = widen(gate);
  return bf(mul(mul(g, sigmoid(g)), widen(up)));
}
INVAR_HD Bf16 residual(Bf16 r, Bf16 y) { return bf(add(widen(r), widen(y))); }

// ---------------------------------------------------------------- the tree over the segments of a row-parallel linear

// Root = ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)); a missing operand is skipped, never added as zero.
// Node (level, index) covers segments [index << level, (index + 1) << level).
struct TreeNode {
  int level;
  int index;
};

// Unit of the segments: `down` projections cut K in multiples of this.
INVAR_HD int64_t down_unit(int64_t k) {
  for (int64_t u = 64; u > 1; u /= 2)
    if (k % u == 0 && k / u >= kSegments) return u;
  return 1;
}
// Unit of the `o` projection: the query heads of one KV head, or one query head where there are fewer than 8 KV heads.
INVAR_HD int64_t o_unit(int64_t query_heads, int64_t kv_heads, int64_t head_dim) {
  return kv_heads >= kSegments ? query_heads / kv_heads * head_dim : head_dim;
}
// First k of segment i, i in [0, 8]. Segments may be empty when K/unit < 8.
INVAR_HD int64_t segment_begin(int64_t k, int64_t unit, int i) { return unit * (i * (k / unit) / kSegments); }

// ---------------------------------------------------------------- tensor-core rule (scalar; see linear/tensor_core.h for
// vectors)

// One k16 step: 16 products and the accumulator meet at once. Terms are aligned to the largest exponent (of a product: the
// sum of the operands' exponent fields, not normalised; subnormals count as exponent 1) or to 2^-133 if that is larger, cut
// toward zero to 25 bits below it, added exactly, and the sum is cut toward zero to fp32. Measured on H100 with normal,
// subnormal, zero, overflowing and non-finite operands (tests/golden/tensor_core_steps.bin): overflow gives infinity, NaN is
// 0x7fffffff, a result that is zero or was cut to zero is +0.
// `count` < 16 pads with zeros, which changes no bit.
INVAR_HD float tensor_core_step(float acc, const Bf16* a, const Bf16* b, int count) {
  constexpr int kNone = -100000;
  int exponent[kTensorCoreGroup + 1];
  int64_t magnitude[kTensorCoreGroup + 1];
  bool negative[kTensorCoreGroup + 1];
  bool nan = false, plus_inf = false, minus_inf = false;
  int largest = kNone;
  for (int i = 0; i < count; ++i) {
    int ea = (a[i].bits >> 7) & 255, eb = (b[i].bits >> 7) & 255;
    int ma = a[i].bits & 127, mb = b[i].bits & 127;
    negative[i] = ((a[i].bits ^ b[i].bits) >> 15) != 0;
    if (ea == 255 || eb == 255) {
      const bool zero = !(a[i].bits & 0x7fff) || !(b[i].bits & 0x7fff);
      if ((ea == 255 && ma) || (eb == 255 && mb) || zero)
        nan = true;
      else
        (negative[i] ? minus_inf : plus_inf) = true;
    }
    if (ea)
      ma |= 128;
    else
      ea = 1;
    if (eb)
      mb |= 128;
    else
      eb = 1;
    magnitude[i] = int64_t{ma} * mb;  // value = magnitude * 2^(exponent - 14)
    exponent[i] = magnitude[i] ? ea + eb - 254 : kNone;
    if (exponent[i] > largest) largest = exponent[i];
    exponent[i] -= 14;
  }
  {
    const uint32_t u = float_bits(acc);
    int e = (u >> 23) & 255;
    int64_t m = u & 0x7fffff;
    negative[count] = u >> 31;
    if (e == 255) {
      if (m)
        nan = true;
      else
        (negative[count] ? minus_inf : plus_inf) = true;
    }
    if (e)
      m |= 0x800000;
    else
      e = 1;
    magnitude[count] = m;
    exponent[count] = m ? e - 127 : kNone;
    if (exponent[count] > largest) largest = exponent[count];
    exponent[count] -= 23;
  }
  if (nan || (plus_inf && minus_inf)) return bits_float(0x7fffffffu);
  if (plus_inf) return bits_float(0x7f800000u);
  if (minus_inf) return bits_float(0xff800000u);
  if (largest == kNone) return 0.0f;
  if (largest < kTensorCoreLeastExponent) largest = kTensorCoreLeastExponent;
  const int quantum = largest - kTensorCoreFractionBits;
  int64_t sum = 0;  // at most 17 * 2^27
  for (int i = 0; i <= count; ++i) {
    if (!magnitude[i]) continue;
    const int shift = exponent[i] - quantum;
    const int64_t v = shift >= 0 ? magnitude[i] << shift : (shift < -62 ? 0 : magnitude[i] >> -shift);
    sum += negative[i] ? -v : v;
  }
  if (!sum) return 0.0f;
  const uint32_t sign = sum < 0 ? 0x80000000u : 0u;
  const uint64_t u = sum < 0 ? static_cast<uint64_t>(-sum) : static_cast<uint64_t>(sum);
  int top = 63;
  while (!((u >> top) & 1)) --top;
  const int e = top + quantum;
  if (e > 127) return bits_float(sign | 0x7f800000u);
  const bool subnormal = e < -126;
  const int drop = (subnormal ? -149 : e - 23) - quantum;  // bits below the last one kept
  const uint64_t kept = drop >= 0 ? (drop > 63 ? 0 : u >> drop) : u << -drop;
  if (!kept) return 0.0f;
  return bits_float(sign | (subnormal ? static_cast<uint32_t>(kept)
                                      : (static_cast<uint32_t>(e + 127) << 23) | (static_cast<uint32_t>(kept) & 0x7fffffu)));
}

// ---------------------------------------------------------------- integers: hashes, masses, random numbers

INVAR_HD uint64_t mix64(uint64_t x) {  // splitmix64 finaliser
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
// One element's share of an order-free hash: shares are added mod 2^64, so shards contribute in any order.
INVAR_HD uint64_t hash_element(uint64_t index, uint32_t bits) { return mix64(mix64(index) ^ bits); }
INVAR_HD uint32_t canonical_bits(float x) {
  const uint32_t u = float_bits(x);
  return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : u;
}

// floor(2^((z - max) log2e) * 2^40): masses add exactly in any order.
INVAR_HD uint64_t mass(float z, float max) { return static_cast<uint64_t>(mul(exp2(mul(sub(z, max), kLog2e)), 0x1p40f)); }
// Greater float = greater key; -0 < +0; used for every "largest first, then lowest id" choice.
INVAR_HD uint32_t order_key(float z) {
  const uint32_t u = float_bits(z);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

struct Philox {
  uint32_t v[4];
};
// Philox4x32-10 (Salmon et al., SC 2011).
INVAR_HD Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int i = 0; i < 10; ++i) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox{{c0, c1, c2, c3}};
}
// Draw kinds keep the counters of different uses apart.
enum class Draw : uint32_t { kGumbel = 0 };
// Gumbel noise of one vocabulary entry at one position: -ln(-ln u), u = (n + 1/2) 2^-23. Key: seed; counter: (vocab/4, position,
// kind, choice).
INVAR_HD float gumbel(uint64_t seed, uint32_t position, uint32_t vocab, uint32_t choice) {
  const Philox r = philox(vocab >> 2, position, static_cast<uint32_t>(Draw::kGumbel), choice, seed);
  const float u = mul(add(static_cast<float>(r.v[vocab & 3] >> 9), 0.5f), 0x1p-23f);
  return -ln(-ln(u));
}

}  // namespace invar::numerics
