// Sixteen fp32 lanes on AVX-512 (F, BW, DQ, VL), with the names of lanes_avx2.h. Included only by files compiled for AVX-512;
// such a file calls no inline function of another header, or its AVX-512 copy could be linked into code for every machine.
#pragma once

#include <immintrin.h>

#include "kernels/numerics.h"

namespace invar {
namespace {

struct LanesAvx512 {
  using V = __m512;
  static constexpr int kWidth = 16;

  static V splat(float x) { return _mm512_set1_ps(x); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  // `count` in [0, 16]; the lanes behind it are +0 (loads) or left alone in memory (stores).
  static V load_part(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(mask(count), p); }
  static void store_part(float* p, V v, int64_t count) { _mm512_mask_storeu_ps(p, mask(count), v); }

  static V load_bf16(const numerics::Bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static void store_bf16(numerics::Bf16* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded_bits(v)));
  }
  static V load_bf16_part(const numerics::Bf16* p, int64_t count) { return widen(_mm256_maskz_loadu_epi16(mask(count), p)); }
  static void store_bf16_part(numerics::Bf16* p, V v, int64_t count) {
    _mm256_mask_storeu_epi16(p, mask(count), _mm512_cvtepi32_epi16(rounded_bits(v)));
  }

  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V div(V a, V b) { return _mm512_div_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V fms(V a, V b, V c) { return _mm512_fmsub_ps(a, b, c); }  // fma(a, b, -c)
  static float sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static V bf(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(rounded_bits(v), 16)); }  // rounded to bf16, widened again

  // E of the contract (numerics::exp2). NaN in: some value out, so callers take NaN away first or multiply by it after.
  static V exp2(V x) {
    const V t = add(x, splat(numerics::kRoundMagic));
    const V f = sub(x, sub(t, splat(numerics::kRoundMagic)));
    V p = splat(numerics::kExp2[numerics::kExp2Degree - 1]);
    for (int i = numerics::kExp2Degree - 2; i >= 0; --i) p = fma(p, f, splat(numerics::kExp2[i]));
    p = fma(p, f, splat(1.0f));
    // The low 9 bits of t are those of n; the magic's own are zero. n = 128 needs no care here: x < 128 makes p < 1 there.
    p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
    p = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, splat(-126.0f), _CMP_NLT_UQ), p);
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, splat(128.0f), _CMP_GE_OQ), splat(__builtin_inff()));
  }

  // Halving strides 8, 4, 2, 1: lane j takes lane j + stride.
  static float halve(V v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

 private:
  static __mmask16 mask(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
  static V widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
  static __m512i rounded_bits(V v) {  // the 16 bits of numerics::bf in each 32-bit lane
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    return _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fff));
  }
};

}  // namespace
}  // namespace invar
