// The matrix rule of the tc profile for one block of attention: emulated tensor-core steps of 16 products (linear/tensor_core.h).
#pragma once

#include "kernels/attention/split_run.h"
#include "kernels/linear/tensor_core.h"

namespace invar::attention_schedule {
namespace {

// The denominator's chain belongs to values(), which has the weights as operands of tensor-core steps.
struct ChainSum {
  static constexpr int kCount = 1;
  explicit ChainSum(const float*) {}
  template <class V>
  void add(V) const {}
  void store(float*) const {}
  static float total(const float* l) { return *l; }
};

// One tensor-core step of sixteen weights and ones. Weights and `acc` are >= +0 or NaN; the arithmetic is that of
// tensor_core::step, with the sixteen products beside each other.
inline float add_weights(float acc, const TensorCoreGroup& weights) {
  using tensor_core::kFieldBit;
  if (weights.zero) return acc;
  uint32_t largest = __builtin_bit_cast(uint32_t, acc) & 0x7f800000u;
  for (const uint32_t exponents : weights.exponents) {
    const uint32_t field = exponents & 0x7f800000u;
    largest = field > largest ? field : largest;
  }
  const uint32_t sum = largest + 127 * kFieldBit;
  if (weights.wide || sum - tensor_core::kSmallestSum > tensor_core::kSumRange) [[unlikely]] {
    constexpr uint32_t kOne = 0x3f80;
    tensor_core::scalar_lanes(&acc, 1, weights, &kOne, 0, numerics::kTensorCoreGroup, false);
    return acc;
  }
  const float up = __builtin_bit_cast(float, tensor_core::kScaleUp - sum);
  auto terms = static_cast<uint32_t>(static_cast<int32_t>(acc * up));  // 17 below 2^26: no overflow
  for (const float value : weights.value) terms += static_cast<uint32_t>(static_cast<int32_t>(value * up));
  // Toward zero: with the first dropped bit cleared, rounding to nearest never rounds up.
  terms &= ~(terms >> 24);
  return static_cast<float>(static_cast<int32_t>(terms)) * __builtin_bit_cast(float, sum - tensor_core::kScaleDown);
}

// L: lanes (split_avx2.cc); W: words of the same width (linear/words.h). The emulation wants two outputs in a word, a page holds
// two k in a word, so the split is turned once, for all its query vectors, into lines of kWidth words: output j in the low
// halves, j + kWidth in the high ones.
//   key lines    [split / (2 * kWidth) key groups][head_dim]
//   value lines  [ceil(head_dim / (2 * kWidth)) groups of d][split]
template <class L, class W>
class TensorCoreChains {
 public:
  using Sums = ChainSum;

  explicit TensorCoreChains(const SplitTile& t) : head_dim_(t.head_dim) {
    int begin = kSplit, end = 0;
    for (int64_t i = 0; i < t.vectors; ++i) {
      if (t.begin[i] >= t.end[i]) continue;
      begin = least(begin, t.begin[i]);
      end = most(end, t.end[i]);
    }
    key_lines_ = t.lines;
    value_lines_ = key_lines_ + kSplit / kOutputs * head_dim_ * kWidth;
    for (int block = begin / kBlock * kBlock; block < end; block += kBlock) {
      turn_keys(t, block);
      turn_values(t, block, most(begin - block, 0), least(end - block, kBlock));
    }
  }

  template <int R>
  void scores(const SplitTile& t, int64_t first, int block, float* s) const {
    const TensorCoreGroup* q = t.q_groups + first / t.rows_per_tile * ((head_dim_ + kGroup - 1) / kGroup) * t.rows_per_tile;
    for (int key = 0; key < kBlock; key += kOutputs) {
      const uint32_t* lines = key_lines_ + (block + key) / kOutputs * head_dim_ * kWidth;
      typename W::F low[R], high[R];
      for (int r = 0; r < R; ++r) low[r] = high[r] = W::zero();
      for (int64_t d = 0; d < head_dim_; d += kGroup) {
        const int count = static_cast<int>(head_dim_ - d < kGroup ? head_dim_ - d : kGroup);
        tensor_core::step<W, R>(low, high, q + d / kGroup * t.rows_per_tile, lines + d * kWidth, kWidth, count);
      }
      for (int r = 0; r < R; ++r) {
        W::store(s + r * kBlock + key, low[r]);
        W::store(s + r * kBlock + key + kWidth, high[r]);
      }
    }
  }

  // All rows run all groups that one of them sees: a step of zero products gives back its accumulator, up to the sign of a zero,
  // which the end of a row removes. That holds for finite values only, so a block with others goes row by row.
  template <int R>
  void values(const SplitTile& t, float* p, int block, const BlockRanges<R>& ranges, float* sums, float* o) const {
    int begin = kBlock, end = 0;
    for (int r = 0; r < R; ++r) {
      if (ranges.begin[r] >= ranges.end[r]) {
        for (int j = 0; j < kBlock; ++j) p[r * kBlock + j] = 0.0f;
        continue;
      }
      begin = least(begin, ranges.begin[r]);
      end = most(end, ranges.end[r]);
    }
    TensorCoreGroup weights[kBlock / kGroup][R];
    for (int group = begin / kGroup; group * kGroup < end; ++group)
      for (int r = 0; r < R; ++r) {
        L::prepare_weights(p + r * kBlock + group * kGroup, &weights[group][r]);
        sums[r] = add_weights(sums[r], weights[group][r]);
      }
    if (nonfinite_[block / kBlock] && !ranges.whole()) {
      for (int r = 0; r < R; ++r) masked_row<R>(weights, r, block, ranges.begin[r], ranges.end[r], o + r * t.o_stride);
      return;
    }
    for (int64_t d = 0; d < head_dim_; d += kOutputs) {
      const uint32_t* lines = value_lines_ + (d / kOutputs * kSplit + block) * kWidth;
      typename W::F low[R], high[R];
      for (int r = 0; r < R; ++r) {
        low[r] = W::load(o + r * t.o_stride + d);
        high[r] = W::load(o + r * t.o_stride + d + kWidth);
      }
      for (int group = begin / kGroup; group * kGroup < end; ++group)
        tensor_core::step<W, R>(low, high, weights[group], lines + group * kGroup * kWidth, kWidth, kGroup);
      for (int r = 0; r < R; ++r) {
        W::store(o + r * t.o_stride + d, low[r]);
        W::store(o + r * t.o_stride + d + kWidth, high[r]);
      }
    }
  }

 private:
  static constexpr int kSplit = numerics::kAttentionSplit;
  static constexpr int kGroup = numerics::kTensorCoreGroup;
  static constexpr int kWidth = W::kWidth;
  static constexpr int kOutputs = 2 * kWidth;  // outputs of a line

  // Two vectors of words (k, k + 1 of outputs a and b) become the lines of k and k + 1.
  static void turn(typename W::I a, typename W::I b, uint32_t* line) {
    L::store_words(line, W::either(L::low_words(a), W::shift16(b)));
    L::store_words(line + kWidth, W::either(L::high_words(a), W::as_words(W::high_half(b))));
  }

  void turn_keys(const SplitTile& t, int block) {
    for (int key = block; key < block + kBlock; key += kOutputs) {
      const int other = key + kWidth;
      const Bf16* a = t.keys[key / 16] + key % 16 * 2;
      const Bf16* b = t.keys[other / 16] + other % 16 * 2;
      uint32_t* lines = key_lines_ + key / kOutputs * head_dim_ * kWidth;
      for (int64_t d = 0; d < head_dim_; d += 2) turn(L::load_words(a + d * 16), L::load_words(b + d * 16), lines + d * kWidth);
    }
  }

  // Keys outside [begin, end) of the block, which no vector sees, become zeros: they may be anything.
  void turn_values(const SplitTile& t, int block, int begin, int end) {
    typename W::I widest = W::zero_words();
    for (int64_t d = 0; d < head_dim_; d += kOutputs) {
      uint32_t* lines = value_lines_ + (d / kOutputs * kSplit + block) * kWidth;
      for (int key = begin / kGroup * kGroup; key < end; key += 2) {
        const Bf16* from = t.values[(block + key) / 16] + key % 16 / 2 * head_dim_ * 2;
        uint32_t* to = lines + key * kWidth;
        turn(L::load_words(from + d * 2, head_dim_ - d), L::load_words(from + (d + kWidth) * 2, head_dim_ - d - kWidth), to);
        for (int i = 0; i < 2; ++i) {
          if (key + i < begin || key + i >= end) L::store_words(to + i * kWidth, W::zero_words());
          widest = W::max16(widest, W::both(W::load(to + i * kWidth), W::splat(0x7f807f80u)));
        }
      }
      for (int key = (end + 1) / 2 * 2; key < (end + kGroup - 1) / kGroup * kGroup; ++key)
        L::store_words(lines + key * kWidth, W::zero_words());
    }
    const typename W::I infinite = W::splat(0x7f7fffffu);
    nonfinite_[block / kBlock] =
        (W::above(W::shift16(widest), infinite) | W::above(W::as_words(W::high_half(widest)), infinite)) != 0;
  }

  template <int R>
  void masked_row(const TensorCoreGroup (*weights)[R], int r, int block, int begin, int end, float* o) const {
    for (int64_t d = 0; d < head_dim_; d += kOutputs) {
      const uint32_t* lines = value_lines_ + (d / kOutputs * kSplit + block) * kWidth;
      typename W::F low[1] = {W::load(o + d)}, high[1] = {W::load(o + d + kWidth)};
      for (int group = begin / kGroup; group * kGroup < end; ++group) {
        uint32_t masked[kGroup * kWidth];
        for (int k = 0; k < kGroup; ++k) {
          const int key = group * kGroup + k;
          L::store_words(masked + k * kWidth, key >= begin && key < end ? W::load(lines + key * kWidth) : W::zero_words());
        }
        tensor_core::step<W, 1>(low, high, &weights[group][r], masked, kWidth, kGroup);
      }
      W::store(o + d, low[0]);
      W::store(o + d + kWidth, high[0]);
    }
  }

  const int64_t head_dim_;
  uint32_t* key_lines_;
  uint32_t* value_lines_;
  bool nonfinite_[kSplit / kBlock] = {};
};

}  // namespace
}  // namespace invar::attention_schedule
