// The walk over one split, written once for every vector width (L) and matrix rule (M). See schedules.h for the data and
// README.md for the order. Everything here is in an unnamed namespace: see lanes/lanes_avx2.h.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_order.h"
#include "kernels/attention/schedules.h"

namespace invar::attention_schedule {
namespace {

using numerics::Bf16;

constexpr int kBlock = numerics::kAttentionBlock;

constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a < b ? b : a; }

// numerics::attention_rescale. Written out, and with builtins, because a file compiled for AVX-512 calls no inline function of
// another header (lanes/lanes_avx512.h).
inline float rescale(float from, float to) {
  const float d = from - to;
  if (d != d) return d;
  if (d < -126.0f) return 0.0f;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, d + (numerics::kRoundMagic + 127.0f)) << 23);
}

// offset(r) of the order.
inline float offset_of(float reference) { return __builtin_fmaf(reference, -numerics::kAttentionStep, numerics::kAttentionZero); }

// What an ordinary block does not need: a reference that moves, keys that are masked, weights at the ends of their range. Apart,
// because inlined it takes registers from the short way.
template <class L, class M>
__attribute__((noinline)) void settle_block(const float* scores, int begin, int end, float c, float step, float* reference,
                                            float* sums, float* o, int64_t o_count, typename L::V (&p)[kBlock / L::kWidth]) {
  using V = typename L::V;
  constexpr int kVectors = kBlock / L::kWidth;
  const bool whole = begin <= 0 && end >= kBlock;
  // A NaN may hide the largest score from this maximum, or not: its own weight makes the denominator NaN either way.
  const V low = L::splat(-__builtin_inff());
  V m[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    m[i] = L::load(scores + i * L::kWidth);
    if (!whole) m[i] = L::keep(m[i], low, begin - i * L::kWidth, end - i * L::kWidth);
  }
  for (int n = kVectors / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) m[i] = L::max(m[i], m[i + n]);
  const float largest = L::largest(m[0]);
  if (__builtin_fmaf(largest, step, offset_of(*reference)) >= numerics::kAttentionMost) {
    const float moved = ((largest * c + numerics::kRoundMagic) - numerics::kRoundMagic) + numerics::kAttentionHeadroom;
    const float to = moved > *reference ? moved : *reference;
    const float factor = rescale(*reference, to);
    const V alpha = L::splat(factor);
    for (int i = 0; i < M::Sums::kCount; ++i) sums[i] = sums[i] * factor;
    for (int64_t d = 0; d < o_count; d += L::kWidth) L::store(o + d, L::mul(L::load(o + d), alpha));
    *reference = to;
  }
  const V factor = L::splat(step), offset = L::splat(offset_of(*reference));
  for (int i = 0; i < kVectors; ++i) {
    p[i] = L::weight(L::fma(L::load(scores + i * L::kWidth), factor, offset));
    if (!whole) p[i] = L::keep(p[i], L::splat(0.0f), begin - i * L::kWidth, end - i * L::kWidth);
  }
}

// One row of scores becomes weights p, rounded to bf16; the row's state moves on, but for what the matrix rule's
// values() still does (the value chain; tc: the denominator too). Keys outside [begin, end) get p = 0.
//
// An ordinary block, seen whole and with every t in [2, 3) against the reference that is, moves nothing and needs no maximum.
// Not inlined: the matrix rules around it lose registers, some 4 % of decode with AVX-512.
template <class L, class M>
__attribute__((noinline)) void softmax_block(float* scores, int begin, int end, float c, float step, float* reference,
                                             float* sums, float* o, int64_t o_count) {
  using V = typename L::V;
  constexpr int kVectors = kBlock / L::kWidth;
  const V factor = L::splat(step), offset = L::splat(offset_of(*reference));
  V t[kVectors];
  for (int i = 0; i < kVectors; ++i) t[i] = L::fma(L::load(scores + i * L::kWidth), factor, offset);
  if (__builtin_expect(begin <= 0 && end >= kBlock && L::all_inside(t), 1)) {
    typename M::Sums row(sums);
    for (int i = 0; i < kVectors; ++i) {
      const V p = L::round_weight(L::weight_inside(t[i]));
      row.add(p);
      L::store(scores + i * L::kWidth, p);
    }
    row.store(sums);
  } else {
    V p[kVectors];
    settle_block<L, M>(scores, begin, end, c, step, reference, sums, o, o_count, p);
    typename M::Sums row(sums);
    for (int i = 0; i < kVectors; ++i) {
      const V rounded = L::round_weight(p[i]);
      row.add(rounded);
      L::store(scores + i * L::kWidth, rounded);
    }
    row.store(sums);
  }
}

// The keys of one block that each of R rows sees; empty where begin >= end.
template <int R>
struct BlockRanges {
  int begin[R];
  int end[R];

  bool whole() const {
    for (int r = 0; r < R; ++r)
      if (begin[r] > 0 || end[r] < kBlock) return false;
    return true;
  }
};

// R query vectors through the whole split. M holds the matrix rule:
//   scores<R>(t, first, block, s)                  raw scores s[r * 64 + key of the block]
//   Sums                                           a row's denominator under way: kCount floats, and what softmax_block adds
//   values<R>(t, p, block, ranges, sums, o)        o goes on with the block's value products; p as s, `ranges` says who sees what
template <class L, class M, int R>
void register_tile(const SplitTile& t, const M& matrix, int64_t first) {
  using Sums = typename M::Sums;
  alignas(64) float scores[R * kBlock];
  alignas(64) float sums[R * Sums::kCount] = {};
  float* o = t.o + first * t.o_stride;
  const int32_t* begin = t.begin + first;
  const int32_t* end = t.end + first;
  int lowest = numerics::kAttentionSplit, highest = 0;
  for (int r = 0; r < R; ++r) {
    t.reference[first + r] = -__builtin_inff();
    for (int64_t d = 0; d < t.o_stride; ++d) o[r * t.o_stride + d] = 0.0f;
    if (begin[r] >= end[r]) continue;
    lowest = least(lowest, begin[r]);
    highest = most(highest, end[r]);
  }
  for (int block = lowest / kBlock * kBlock; block < highest; block += kBlock) {
    BlockRanges<R> ranges;
    bool visible = false;
    for (int r = 0; r < R; ++r) {
      ranges.begin[r] = most(begin[r] - block, 0);
      ranges.end[r] = least(end[r] - block, kBlock);
      visible |= ranges.begin[r] < ranges.end[r];
    }
    if (!visible) continue;
    matrix.template scores<R>(t, first, block, scores);
    for (int r = 0; r < R; ++r) {
      if (ranges.begin[r] >= ranges.end[r]) continue;
      softmax_block<L, M>(scores + r * kBlock, ranges.begin[r], ranges.end[r], t.c, t.step, t.reference + first + r,
                          sums + r * Sums::kCount, o + r * t.o_stride, t.o_stride);
    }
    matrix.template values<R>(t, scores, block, ranges, sums, o);
  }
  for (int r = 0; r < R; ++r) t.l[first + r] = Sums::total(sums + r * Sums::kCount);
}

template <class L, class M>
void run_split(const SplitTile& t) {
  const M matrix(t);
  for (int64_t first = 0; first < t.vectors; first += t.rows_per_tile) {
    const int64_t left = t.vectors - first;
    switch (left < t.rows_per_tile ? left : t.rows_per_tile) {
      case 1:
        register_tile<L, M, 1>(t, matrix, first);
        break;
      case 2:
        register_tile<L, M, 2>(t, matrix, first);
        break;
      case 3:
        register_tile<L, M, 3>(t, matrix, first);
        break;
      case 4:
        register_tile<L, M, 4>(t, matrix, first);
        break;
      case 5:
        register_tile<L, M, 5>(t, matrix, first);
        break;
      default:
        register_tile<L, M, 6>(t, matrix, first);
        break;
    }
  }
}

}  // namespace
}  // namespace invar::attention_schedule
