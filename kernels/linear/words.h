// Vectors of 32-bit words that hold two bf16 each, and the fp32 lanes they widen to: the vocabulary of the matrix kernels.
//
// The types live in an unnamed namespace on purpose: templates over them stay inside their object file. Otherwise the linker
// could keep the copy that was compiled for AVX-512 and a machine without it would die of an illegal instruction.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace invar {
namespace {

#if defined(__AVX2__)
struct WordsAvx2 {
  using F = __m256;
  using I = __m256i;
  static constexpr int kWidth = 8;
  static I load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F zero() { return _mm256_setzero_ps(); }
  static I zero_words() { return _mm256_setzero_si256(); }
  static I splat(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static F splat(float x) { return _mm256_set1_ps(x); }
  static F as_float(I v) { return _mm256_castsi256_ps(v); }
  static I as_words(F v) { return _mm256_castps_si256(v); }
  static F low_half(I v) { return as_float(_mm256_slli_epi32(v, 16)); }
  static F high_half(I v) { return as_float(_mm256_and_si256(v, splat(0xffff0000u))); }
  static I both(I a, I b) { return _mm256_and_si256(a, b); }
  static I either(I a, I b) { return _mm256_or_si256(a, b); }
  static I add16(I a, I b) { return _mm256_add_epi16(a, b); }
  static I max16(I a, I b) { return _mm256_max_epu16(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I max(I a, I b) { return _mm256_max_epu32(a, b); }
  static I shift16(I v) { return _mm256_slli_epi32(v, 16); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static I cut(F v) { return _mm256_cvttps_epi32(v); }
  static F keep(uint32_t lanes, F yes, F no) {
    const I bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const I on = _mm256_cmpeq_epi32(_mm256_and_si256(splat(lanes), bit), bit);
    return _mm256_blendv_ps(no, yes, as_float(on));
  }
  static uint32_t above(I v, I limit) {  // lanes with v > limit, unsigned
    return static_cast<uint32_t>(~_mm256_movemask_ps(as_float(_mm256_cmpeq_epi32(_mm256_min_epu32(v, limit), v)))) & 0xffu;
  }
  static uint32_t zeros(I v) {
    return static_cast<uint32_t>(_mm256_movemask_ps(as_float(_mm256_cmpeq_epi32(v, _mm256_setzero_si256()))));
  }
  static uint32_t overflowed(I a, I b, I sum) {  // a and b have one sign, their 32-bit sum the other
    const I o = _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
    return static_cast<uint32_t>(_mm256_movemask_ps(as_float(o)));
  }
  // Toward zero: with the first dropped bit cleared, rounding to nearest never rounds up.
  static F to_float_toward_zero(I v) {
    const I magnitude = _mm256_abs_epi32(v);
    const F f = _mm256_cvtepi32_ps(_mm256_andnot_si256(_mm256_srli_epi32(magnitude, 24), magnitude));
    return _mm256_or_ps(f, _mm256_and_ps(as_float(v), _mm256_set1_ps(-0.0f)));
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
struct WordsAvx512 {
  using F = __m512;
  using I = __m512i;
  static constexpr int kWidth = 16;
  static I load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F zero() { return _mm512_setzero_ps(); }
  static I zero_words() { return _mm512_setzero_si512(); }
  static I splat(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static F splat(float x) { return _mm512_set1_ps(x); }
  static F as_float(I v) { return _mm512_castsi512_ps(v); }
  static I as_words(F v) { return _mm512_castps_si512(v); }
  static F low_half(I v) { return as_float(_mm512_slli_epi32(v, 16)); }
  static F high_half(I v) { return as_float(_mm512_and_si512(v, splat(0xffff0000u))); }
  static I both(I a, I b) { return _mm512_and_si512(a, b); }
  static I either(I a, I b) { return _mm512_or_si512(a, b); }
  static I add16(I a, I b) { return _mm512_add_epi16(a, b); }
  static I max16(I a, I b) { return _mm512_max_epu16(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I max(I a, I b) { return _mm512_max_epu32(a, b); }
  static I shift16(I v) { return _mm512_slli_epi32(v, 16); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static I cut(F v) { return _mm512_cvttps_epi32(v); }
  static F keep(uint32_t lanes, F yes, F no) { return _mm512_mask_mov_ps(no, static_cast<__mmask16>(lanes), yes); }
  static uint32_t above(I v, I limit) { return bits(_mm512_cmpgt_epu32_mask(v, limit)); }
  static uint32_t zeros(I v) { return bits(_mm512_testn_epi32_mask(v, v)); }
  static uint32_t overflowed(I a, I b, I sum) {
    return bits(_mm512_movepi32_mask(_mm512_and_si512(_mm512_xor_si512(a, sum), _mm512_xor_si512(b, sum))));
  }
  static F to_float_toward_zero(I v) { return _mm512_cvt_roundepi32_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }

 private:
  // By hand: GCC 12 may spill a widened mask with a 16-bit store and reload 32 bits, the upper half garbage.
  static uint32_t bits(__mmask16 mask) {
    uint32_t lanes;
    asm("kmovw %1, %0" : "=r"(lanes) : "k"(mask));
    return lanes;
  }
};
#endif

}  // namespace
}  // namespace invar
