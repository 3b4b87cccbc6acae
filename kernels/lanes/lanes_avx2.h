// Eight fp32 lanes on AVX2 and FMA: the vocabulary in which the element-wise kernels write one text for every vector width.
//
// Each function is one rounding of the contract (or none), so a kernel's text shows its order. The type lives in an unnamed
// namespace on purpose: templates over it stay inside their object file. Otherwise the linker could keep the copy that was
// compiled for AVX-512 and a machine without it would die of an illegal instruction.
#pragma once

#include <immintrin.h>

#include "kernels/numerics.h"

namespace invar {
namespace {

struct LanesAvx2 {
  using V = __m256;
  static constexpr int kWidth = 8;

  static V splat(float x) { return _mm256_set1_ps(x); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  // `count` in [0, 8]; the lanes behind it are +0 (loads) or left alone in memory (stores).
  static V load_part(const float* p, int64_t count) { return _mm256_maskload_ps(p, mask(count)); }
  static void store_part(float* p, V v, int64_t count) { _mm256_maskstore_ps(p, mask(count), v); }

  static V load_bf16(const numerics::Bf16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static void store_bf16(numerics::Bf16* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(rounded_bits(v))); }
  static V load_bf16_part(const numerics::Bf16* p, int64_t count) {
    alignas(16) uint16_t lane[8] = {};
    for (int64_t i = 0; i < count; ++i) lane[i] = p[i].bits;
    return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(lane)));
  }
  static void store_bf16_part(numerics::Bf16* p, V v, int64_t count) {
    alignas(16) uint16_t lane[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(lane), narrow(rounded_bits(v)));
    for (int64_t i = 0; i < count; ++i) p[i].bits = lane[i];
  }

  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V div(V a, V b) { return _mm256_div_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V fms(V a, V b, V c) { return _mm256_fmsub_ps(a, b, c); }  // fma(a, b, -c)
  static float sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static V bf(V v) { return _mm256_castsi256_ps(_mm256_slli_epi32(rounded_bits(v), 16)); }  // rounded to bf16, widened again

  // E of the contract (numerics::exp2). NaN in: some value out, so callers take NaN away first or multiply by it after.
  static V exp2(V x) {
    const V t = add(x, splat(numerics::kRoundMagic));
    const V f = sub(x, sub(t, splat(numerics::kRoundMagic)));
    V p = splat(numerics::kExp2[numerics::kExp2Degree - 1]);
    for (int i = numerics::kExp2Degree - 2; i >= 0; --i) p = fma(p, f, splat(numerics::kExp2[i]));
    p = fma(p, f, splat(1.0f));
    // The low 9 bits of t are those of n; the magic's own are zero. n = 128 needs no care here: x < 128 makes p < 1 there.
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
    p = _mm256_andnot_ps(_mm256_cmp_ps(x, splat(-126.0f), _CMP_LT_OQ), p);
    return _mm256_blendv_ps(p, splat(__builtin_inff()), _mm256_cmp_ps(x, splat(128.0f), _CMP_GE_OQ));
  }

  // Halving strides 4, 2, 1: lane j takes lane j + stride.
  static float halve(V v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

 private:
  static __m256i mask(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static V widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
  static __m256i rounded_bits(V v) {  // the 16 bits of numerics::bf in each 32-bit lane
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fff), nan);
  }
  static __m128i narrow(__m256i x) { return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08)); }
};

}  // namespace
}  // namespace invar
