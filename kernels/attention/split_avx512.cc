#include "kernels/attention/fp32_chains.h"
#include "kernels/attention/tensor_core_chains.h"
#include "kernels/lanes/lanes_avx512.h"

namespace invar::attention_schedule {
namespace {

struct Lanes : LanesAvx512 {
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static float largest(V v) { return _mm512_reduce_max_ps(v); }
  // Lanes [begin, end) of v, `other` elsewhere; the range may lie anywhere.
  static V keep(V v, V other, int begin, int end) {
    const int b = begin < 0 ? 0 : begin > 16 ? 16 : begin, e = end < 0 ? 0 : end > 16 ? 16 : end;
    const uint32_t mask = ((1u << e) - 1u) & ~((1u << b) - 1u);
    return _mm512_mask_mov_ps(other, static_cast<__mmask16>(mask), v);
  }
  static V even(const Bf16* pairs) { return WordsAvx512::low_half(load_words(pairs)); }
  static V odd(const Bf16* pairs) { return WordsAvx512::high_half(load_words(pairs)); }
  static __m512i load_words(const Bf16* pairs) { return _mm512_loadu_si512(pairs); }
  static __m512i load_words(const Bf16* pairs, int64_t count) {  // zeros from word `count` on
    if (count <= 0) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(count < 16 ? (1u << count) - 1u : 0xffffu), pairs);
  }
  static void store_words(uint32_t* p, __m512i v) { _mm512_storeu_si512(p, v); }
  static __m512i low_words(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi32(0xffff)); }
  static __m512i high_words(__m512i v) { return _mm512_srli_epi32(v, 16); }
  // Whether every t is in [2, 3), or +0.
  template <int N>
  static bool all_inside(const V (&t)[N]) {
    __m512i any = _mm512_castps_si512(t[0]);
    for (int i = 1; i < N; ++i) any = _mm512_or_si512(any, _mm512_castps_si512(t[i]));
    return _mm512_test_epi32_mask(any, _mm512_set1_epi32(static_cast<int>(numerics::kAttentionOutside))) == 0;
  }
  // numerics::attention_weight_inside.
  static V weight_inside(V t) {
    const __m512i u = _mm512_slli_epi32(_mm512_castps_si512(t), 8);
    const V m =
        _mm512_castsi512_ps(_mm512_or_si512(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffff)), _mm512_set1_epi32(0x3f800000)));
    V g = splat(numerics::kAttentionWeight[3]);
    for (int i = 2; i >= 0; --i) g = fma(g, m, splat(numerics::kAttentionWeight[i]));
    return mul(_mm512_castsi512_ps(u), g);
  }
  // numerics::attention_weight; a NaN becomes the one that round_weight leaves alone.
  static V weight(V t) {
    V p = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, splat(numerics::kAttentionLeast), _CMP_GE_OQ), weight_inside(t));
    p = _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(t, splat(numerics::kAttentionMost), _CMP_GE_OQ), splat(2.0f));
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(t, t, _CMP_UNORD_Q), splat(__builtin_nanf("")));
  }
  // bf of a weight, widened again. Weights are >= +0, or the NaN of weight().
  static V round_weight(V p) {
    const __m512i u = _mm512_castps_si512(p);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_castsi512_ps(_mm512_and_si512(r, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // The eight lanes of the denominator in `portable`: keys ascending, so the low half goes first.
  static __m256 load_sums(const float* l) { return _mm256_loadu_ps(l); }
  static void store_sums(float* l, __m256 v) { _mm256_storeu_ps(l, v); }
  static __m256 add_sums(__m256 l, V p) {
    return _mm256_add_ps(_mm256_add_ps(l, _mm512_castps512_ps256(p)), _mm512_extractf32x8_ps(p, 1));
  }
  // Sixteen weights, rounded before, as the shared operand of tensor-core steps: prepare_tensor_core_group's result.
  static void prepare_weights(const float* p, TensorCoreGroup* group) {
    const __m512i u = _mm512_castps_si512(load(p));
    const __m512i field = _mm512_and_si512(u, _mm512_set1_epi32(0x7f800000));
    store(group->value, _mm512_castsi512_ps(u));
    _mm512_store_si512(group->exponents, _mm512_or_si512(field, _mm512_srli_epi32(field, 16)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(group->bits), _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)));
    group->wide = _mm512_cmpgt_epu32_mask(field, _mm512_set1_epi32(153 << 23)) != 0;
    group->zero = _mm512_testn_epi32_mask(u, _mm512_set1_epi32(0x7fffffff)) == 0xffff;
  }
};

}  // namespace

void portable_avx512(const SplitTile& tile) { run_split<Lanes, Fp32Chains<Lanes>>(tile); }
void tc_avx512(const SplitTile& tile) { run_split<Lanes, TensorCoreChains<Lanes, WordsAvx512>>(tile); }

}  // namespace invar::attention_schedule
