// The matrix rule of the portable profile for one block of attention: fp32 fma chains, k ascending.
#pragma once

#include "kernels/attention/split_run.h"

namespace invar::attention_schedule {
namespace {

// The denominator's lanes, by key mod 8.
template <class L>
struct LaneSums {
  static constexpr int kCount = numerics::kAttentionSumLanes;
  decltype(L::load_sums(nullptr)) lanes;

  explicit LaneSums(const float* l) : lanes(L::load_sums(l)) {}
  void add(typename L::V p) { lanes = L::add_sums(lanes, p); }
  void store(float* l) const { L::store_sums(l, lanes); }
  static float total(const float* l) { return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7])); }
};

// A score and a value are the same outer product: a(k, r) times pairs of bf16 rows. L: lanes, see split_avx2.cc.
template <class L>
struct Fp32Chains {
  using V = typename L::V;
  using Sums = LaneSums<L>;

  explicit Fp32Chains(const SplitTile&) {}

  template <int R>
  void scores(const SplitTile& t, int64_t first, int block, float* s) const {
    score_block<R>(t, first, t.keys + block / 16, s);
  }

  // Rows that see different keys: what is common runs together, the rest row by row, each row in ascending order. Masked keys
  // are left out rather than multiplied by zero, so that not even a NaN in a key nobody may see yet can reach a row.
  template <int R>
  void values(const SplitTile& t, const float* p, int block, const BlockRanges<R>& ranges, float*, float* o) const {
    const Bf16* const* v = t.values + block / 16;
    int common_begin = 0, common_end = kBlock;
    for (int r = 0; r < R; ++r) {
      common_begin = most(common_begin, ranges.begin[r]);
      common_end = least(common_end, ranges.end[r]);
    }
    if (common_begin >= common_end) {
      for (int r = 0; r < R; ++r)
        if (ranges.begin[r] < ranges.end[r])
          value_block<1>(t, p + r * kBlock, v, ranges.begin[r], ranges.end[r], o + r * t.o_stride);
      return;
    }
    for (int r = 0; r < R; ++r)
      if (ranges.begin[r] < common_begin) value_block<1>(t, p + r * kBlock, v, ranges.begin[r], common_begin, o + r * t.o_stride);
    value_block<R>(t, p, v, common_begin, common_end, o);
    for (int r = 0; r < R; ++r)
      if (common_end < ranges.end[r]) value_block<1>(t, p + r * kBlock, v, common_end, ranges.end[r], o + r * t.o_stride);
  }

 private:
  // Vectors beside each other, so that R * columns accumulators fit the registers and one row alone still hides the latency.
  static constexpr int columns(int rows) {
    if (L::kWidth == 16) return rows == 1 ? 8 : 4;
    return rows == 1 ? 8 : rows <= 3 ? 4 : 2;
  }

  // acc[r][n] = fma(a[k * KStep + r * RStep], b, acc[r][n]) for 2 * pairs values of k. `ahead` (bytes from b to what the next
  // block will read) is prefetched: in decode each key is read once and the hardware does not guess the next page.
  template <int R, int N, int KStep, int RStep>
  static inline void outer(const float* a, const Bf16* const* b, int64_t pair_step, int64_t pairs, const Bf16* const* ahead,
                           V (&acc)[R][N]) {
    for (int64_t i = 0; i < pairs; ++i) {
      V x[N];
      if constexpr (R <= 4)
        for (int n = 0; n < N; n += 64 / (L::kWidth * 4)) __builtin_prefetch(ahead[n] + i * pair_step);
      for (int n = 0; n < N; ++n) x[n] = L::even(b[n] + i * pair_step);
      for (int r = 0; r < R; ++r) {
        const V s = L::splat(a[2 * i * KStep + r * RStep]);
        for (int n = 0; n < N; ++n) acc[r][n] = L::fma(s, x[n], acc[r][n]);
      }
      for (int n = 0; n < N; ++n) x[n] = L::odd(b[n] + i * pair_step);
      for (int r = 0; r < R; ++r) {
        const V s = L::splat(a[(2 * i + 1) * KStep + r * RStep]);
        for (int n = 0; n < N; ++n) acc[r][n] = L::fma(s, x[n], acc[r][n]);
      }
    }
  }

  template <int R>
  static void score_block(const SplitTile& t, int64_t first, const Bf16* const* keys, float* s) {
    const float* q = t.q + first / t.rows_per_tile * t.head_dim * kTileRows;
    constexpr int kColumns = least(columns(R), kBlock / L::kWidth);
    for (int column = 0; column < kBlock; column += kColumns * L::kWidth) {
      const Bf16* b[kColumns];
      const Bf16* ahead[kColumns];
      for (int n = 0; n < kColumns; ++n) {
        const int lane = column + n * L::kWidth;
        b[n] = keys[lane / 16] + lane % 16 * 2;
        ahead[n] = keys[lane / 16 + kBlock / 16] + lane % 16 * 2;
      }
      V acc[R][kColumns];
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < kColumns; ++n) acc[r][n] = L::splat(0.0f);
      outer<R, kColumns, kTileRows, 1>(q, b, 32, t.head_dim / 2, ahead, acc);
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < kColumns; ++n) L::store(s + r * kBlock + column + n * L::kWidth, acc[r][n]);
    }
  }

  // N vectors of d from d0 on, keys [begin, end) of the block.
  template <int R, int N>
  static void value_columns(const SplitTile& t, const float* p, const Bf16* const* values, int begin, int end, float* o,
                            int64_t d0) {
    V acc[R][N];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) acc[r][n] = L::load(o + r * t.o_stride + d0 + n * L::kWidth);
    const int64_t pair_step = t.head_dim * 2;
    for (int j = begin; j < end;) {
      const int stop = least(end, (j / 16 + 1) * 16);
      const Bf16* b[N];
      const Bf16* ahead[N];
      for (int n = 0; n < N; ++n) {
        const int64_t at = j % 16 / 2 * pair_step + (d0 + n * L::kWidth) * 2;
        b[n] = values[j / 16] + at;
        ahead[n] = values[j / 16 + kBlock / 16] + at;
      }
      if (j % 2) {
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n) acc[r][n] = L::fma(L::splat(p[r * kBlock + j]), L::odd(b[n]), acc[r][n]);
        for (int n = 0; n < N; ++n) b[n] += pair_step;
        ++j;
      }
      const int pairs = (stop - j) / 2;
      outer<R, N, 1, kBlock>(p + j, b, pair_step, pairs, ahead, acc);
      j += 2 * pairs;
      if (j < stop) {
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n)
            acc[r][n] = L::fma(L::splat(p[r * kBlock + j]), L::even(b[n] + pairs * pair_step), acc[r][n]);
        ++j;
      }
    }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) L::store(o + r * t.o_stride + d0 + n * L::kWidth, acc[r][n]);
  }

  template <int R>
  static void value_block(const SplitTile& t, const float* p, const Bf16* const* values, int begin, int end, float* o) {
    value_columns_from<R, columns(R)>(t, p, values, begin, end, o, 0);
  }

  // N vectors at a time, then what is left with fewer.
  template <int R, int N>
  static void value_columns_from(const SplitTile& t, const float* p, const Bf16* const* values, int begin, int end, float* o,
                                 int64_t d) {
    for (; d + N * L::kWidth <= t.head_dim + (N == 1 ? L::kWidth - 1 : 0); d += N * L::kWidth)
      value_columns<R, N>(t, p, values, begin, end, o, d);
    if constexpr (N > 1) value_columns_from<R, N / 2>(t, p, values, begin, end, o, d);
  }
};

}  // namespace
}  // namespace invar::attention_schedule
