// The tensor-core rule (numerics::tensor_core_step) for vectors of outputs. Same bits as the scalar step, for every input.
//
// One operand is shared by all lanes (an activation row of a linear, q or p in attention): it is prepared once as
// TensorCoreGroup. The other holds two bf16 a 32-bit word: output j in the low half, a partner in the high half. So a row of 2 *
// W consecutive bf16 is one vector of W words whose even outputs are `low` and odd outputs `high`; packed weights pair j with j +
// 16.
//
//   tensor_core::step<WordsAvx512, R>(low, high, groups, b, b_stride, count)
//
// does one k16 step for R rows (groups[0 .. R)) and 2 * V::kWidth outputs: low[r] and high[r] are the fp32 accumulators, word
// vector k of the other operand is at b + k * b_stride (words), count in [1, 16] terms.
//
// How it is exact: a * b of two bf16 has 16 significant bits, so the fp32 product is exact; times 2^(25 - E), a power of two, and
// cut to an integer it is the term that the rule asks for, below 2^27 in magnitude. Sixteen of them fit 31 bits. The
// accumulator's term goes in last and its overflow of 31 bits is noticed. E is the largest sum of exponent *fields*, found on
// 16-bit lanes for both halves at once. Lanes where one of these steps could go wrong take the scalar step: E outside [-99, 120],
// |operand| >= 2^27 (so that the pseudo exponent of a product with zero stays below every allowed E), infinities, NaN, overflow.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/linear/words.h"
#include "kernels/numerics.h"

namespace invar {

// Sixteen values of the shared operand, prepared by prepare_tensor_core_group.
struct alignas(64) TensorCoreGroup {
  float value[16];          // widened; behind `count`: +0
  uint32_t exponents[16];   // exponent field in place (bits & 0x7f80), in both halves of the word
  numerics::Bf16 bits[16];  // as given, for lanes that take the scalar step
  bool wide;                // some |value| >= 2^27, infinite or NaN: every lane takes the scalar step
  bool zero;                // all are +-0
};

void prepare_tensor_core_group(const numerics::Bf16* a, int count, TensorCoreGroup* group);

namespace tensor_core {

// acc[i] for each bit i of `lanes`: the scalar step with b's low (or high) halves of word i. Compiled for every machine.
void scalar_lanes(float* acc, uint32_t lanes, const TensorCoreGroup& a, const uint32_t* b, ptrdiff_t b_stride, int count,
                  bool high);

// In an unnamed namespace on purpose: a copy compiled for AVX-512 must not be linked into code for other machines.
namespace {

constexpr uint32_t kFieldBit = 1u << 23;
constexpr uint32_t kSmallestSum = 155 * kFieldBit;       // E = -99 as a sum of two exponent fields
constexpr uint32_t kSumRange = (374 - 155) * kFieldBit;  // up to E = 120
constexpr uint32_t kWidestOperand = 153 * kFieldBit;     // |operand| < 2^27
constexpr uint32_t kScaleUp = (127 + 254 + numerics::kTensorCoreFractionBits) * kFieldBit;    // minus sum: bits of 2^(25 - E)
constexpr uint32_t kScaleDown = (254 - 127 + numerics::kTensorCoreFractionBits) * kFieldBit;  // sum minus this: 2^(E - 25)

// The lanes that the fast way refused: exact zeros first (masked keys, padding, dead outputs), which leave the accumulator as it
// is (a zero one becomes +0), then the scalar step.
template <class V>
[[gnu::noinline]] typename V::F slow_lanes(typename V::F fast, typename V::F acc, uint32_t lanes, const TensorCoreGroup& a,
                                           const uint32_t* b, ptrdiff_t b_stride, int count, bool high) {
  if (!a.wide) {
    typename V::I any = V::zero_words();
    typename V::I widest = V::zero_words();
    for (int k = 0; k < count; ++k) {
      const typename V::I word = V::load(b + k * b_stride);
      const typename V::I half = high ? V::as_words(V::high_half(word)) : V::shift16(word);
      any = V::either(any, V::both(half, V::splat(0x7fffffffu)));
      widest = V::max(widest, V::both(half, V::splat(0x7f800000u)));
    }
    const uint32_t finite = ~(V::above(widest, V::splat(254 * kFieldBit)) |
                              V::above(V::both(V::as_words(acc), V::splat(0x7f800000u)), V::splat(254 * kFieldBit)));
    const uint32_t same = lanes & finite & (a.zero ? ~0u : V::zeros(any));
    fast = V::keep(same, V::add(acc, V::zero()), fast);
    lanes &= ~same;
  }
  if (lanes == 0) return fast;
  alignas(64) float value[V::kWidth];
  alignas(64) float old[V::kWidth];
  V::store(value, fast);
  V::store(old, acc);
  for (int i = 0; i < V::kWidth; ++i)
    if (lanes >> i & 1) value[i] = old[i];
  scalar_lanes(value, lanes, a, b, b_stride, count, high);
  return V::load(value);
}

// The largest sum of exponent fields, the accumulator's included, as a field of a word (9 bits from bit 23).
template <class V>
inline typename V::I largest_sum(typename V::I products, typename V::F acc) {
  const typename V::I own = V::add(V::both(V::as_words(acc), V::splat(0x7f800000u)), V::splat(127 * kFieldBit));
  return V::max(products, own);
}

// One half's end: the integer sum of the products joins the accumulator.
template <class V>
inline typename V::F finish(typename V::F acc, typename V::I products, typename V::I sum, uint32_t refused,
                            const TensorCoreGroup& a, const uint32_t* b, ptrdiff_t b_stride, int count, bool high) {
  const typename V::I own = V::cut(V::mul(acc, V::as_float(V::sub(V::splat(kScaleUp), sum))));
  const typename V::I total = V::add(products, own);
  refused |= V::overflowed(products, own, total) | V::above(V::sub(sum, V::splat(kSmallestSum)), V::splat(kSumRange));
  typename V::F result = V::mul(V::to_float_toward_zero(total), V::as_float(V::sub(sum, V::splat(kScaleDown))));
  if (refused) [[unlikely]]
    result = slow_lanes<V>(result, acc, refused, a, b, b_stride, count, high);
  return result;
}

template <class V, int R>
[[gnu::always_inline]] inline void step(typename V::F (&low)[R], typename V::F (&high)[R], const TensorCoreGroup* a,
                                        const uint32_t* b, ptrdiff_t b_stride, int count) {
  using I = typename V::I;
  using F = typename V::F;
  const I field = V::splat(0x7f807f80u);
  I widest = V::zero_words();
  I largest[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) largest[r] = V::zero_words();
  for (int k = 0; k < count; ++k) {
    const I exponents = V::both(V::load(b + k * b_stride), field);
    widest = V::max16(widest, exponents);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) largest[r] = V::max16(largest[r], V::add16(exponents, V::splat(a[r].exponents[k])));
  }
  I sum_low[R], sum_high[R], terms_low[R], terms_high[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    sum_low[r] = largest_sum<V>(V::shift16(largest[r]), low[r]);
    sum_high[r] = largest_sum<V>(V::as_words(V::high_half(largest[r])), high[r]);
    terms_low[r] = terms_high[r] = V::zero_words();
  }
  for (int k = 0; k < count; ++k) {
    const I word = V::load(b + k * b_stride);
    const F b_low = V::low_half(word), b_high = V::high_half(word);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F value = V::splat(a[r].value[k]);
      const F scale_low = V::as_float(V::sub(V::splat(kScaleUp), sum_low[r]));
      const F scale_high = V::as_float(V::sub(V::splat(kScaleUp), sum_high[r]));
      terms_low[r] = V::add(terms_low[r], V::cut(V::mul(V::mul(b_low, value), scale_low)));
      terms_high[r] = V::add(terms_high[r], V::cut(V::mul(V::mul(b_high, value), scale_high)));
    }
  }
  const uint32_t wide_low = V::above(V::shift16(widest), V::splat(kWidestOperand));
  const uint32_t wide_high = V::above(V::as_words(V::high_half(widest)), V::splat(kWidestOperand));
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const uint32_t all = a[r].wide ? (V::kWidth == 16 ? 0xffffu : 0xffu) : 0u;
    low[r] = finish<V>(low[r], terms_low[r], sum_low[r], wide_low | all, a[r], b, b_stride, count, false);
    high[r] = finish<V>(high[r], terms_high[r], sum_high[r], wide_high | all, a[r], b, b_stride, count, true);
  }
}

}  // namespace
}  // namespace tensor_core
}  // namespace invar
