#include "kernels/attention/fp32_chains.h"
#include "kernels/attention/tensor_core_chains.h"
#include "kernels/lanes/lanes_avx2.h"

namespace invar::attention_schedule {
namespace {

struct Lanes : LanesAvx2 {
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  static float largest(V v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  // Lanes [begin, end) of v, `other` elsewhere; the range may lie anywhere.
  static V keep(V v, V other, int begin, int end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i inside =
        _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane), _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(inside));
  }
  static V even(const Bf16* pairs) { return WordsAvx2::low_half(load_words(pairs)); }
  // Two shifts instead of a mask: a register for the mask would be the seventeenth, and spill an accumulator.
  static V odd(const Bf16* pairs) { return WordsAvx2::low_half(_mm256_srli_epi32(load_words(pairs), 16)); }
  static __m256i load_words(const Bf16* pairs) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)); }
  // head_dim is a multiple of 8: a vector of words is whole or absent.
  static __m256i load_words(const Bf16* pairs, int64_t count) { return count <= 0 ? _mm256_setzero_si256() : load_words(pairs); }
  static void store_words(uint32_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static __m256i low_words(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi32(0xffff)); }
  static __m256i high_words(__m256i v) { return _mm256_srli_epi32(v, 16); }
  // Whether every t is in [2, 3), or +0.
  template <int N>
  static bool all_inside(const V (&t)[N]) {
    V any = t[0];
    for (int i = 1; i < N; ++i) any = _mm256_or_ps(any, t[i]);
    return _mm256_testz_si256(_mm256_castps_si256(any), _mm256_set1_epi32(static_cast<int>(numerics::kAttentionOutside))) != 0;
  }
  // numerics::attention_weight_inside.
  static V weight_inside(V t) {
    const __m256i u = _mm256_slli_epi32(_mm256_castps_si256(t), 8);
    const V m =
        _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(u, _mm256_set1_epi32(0x7fffff)), _mm256_set1_epi32(0x3f800000)));
    V g = splat(numerics::kAttentionWeight[3]);
    for (int i = 2; i >= 0; --i) g = fma(g, m, splat(numerics::kAttentionWeight[i]));
    return mul(_mm256_castsi256_ps(u), g);
  }
  // numerics::attention_weight; a NaN becomes the one that round_weight leaves alone.
  static V weight(V t) {
    V p = _mm256_and_ps(weight_inside(t), _mm256_cmp_ps(t, splat(numerics::kAttentionLeast), _CMP_GE_OQ));
    p = _mm256_blendv_ps(p, splat(2.0f), _mm256_cmp_ps(t, splat(numerics::kAttentionMost), _CMP_GE_OQ));
    return _mm256_blendv_ps(p, splat(__builtin_nanf("")), _mm256_cmp_ps(t, t, _CMP_UNORD_Q));
  }
  // bf of a weight, widened again. Weights are >= +0, or the NaN of weight().
  static V round_weight(V p) {
    const __m256i u = _mm256_castps_si256(p);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_castsi256_ps(_mm256_and_si256(r, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // The eight lanes of the denominator in `portable`.
  static V load_sums(const float* l) { return load(l); }
  static void store_sums(float* l, V v) { store(l, v); }
  static V add_sums(V l, V p) { return add(l, p); }
  // Sixteen weights, rounded before, as the shared operand of tensor-core steps: prepare_tensor_core_group's result.
  static void prepare_weights(const float* p, TensorCoreGroup* group) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), exponent = _mm256_set1_epi32(0x7f800000);
    __m256i u[2], any = _mm256_setzero_si256(), widest = any;
    for (int i = 0; i < 2; ++i) {
      u[i] = _mm256_castps_si256(load(p + 8 * i));
      const __m256i field = _mm256_and_si256(u[i], exponent);
      store(group->value + 8 * i, _mm256_castsi256_ps(u[i]));
      store_words(group->exponents + 8 * i, _mm256_or_si256(field, _mm256_srli_epi32(field, 16)));
      any = _mm256_or_si256(any, _mm256_and_si256(u[i], magnitude));
      widest = _mm256_max_epi32(widest, field);
    }
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(u[0], 16), _mm256_srli_epi32(u[1], 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(group->bits), _mm256_permute4x64_epi64(packed, 0xd8));
    group->wide = _mm256_movemask_epi8(_mm256_cmpgt_epi32(widest, _mm256_set1_epi32(153 << 23))) != 0;
    group->zero = _mm256_testz_si256(any, any) != 0;
  }
};

}  // namespace

void portable_avx2(const SplitTile& tile) { run_split<Lanes, Fp32Chains<Lanes>>(tile); }
void tc_avx2(const SplitTile& tile) { run_split<Lanes, TensorCoreChains<Lanes, WordsAvx2>>(tile); }

}  // namespace invar::attention_schedule
