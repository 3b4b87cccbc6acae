// The tile kernels over a vector type of words.h. Included by one file a vector path.
//
// Accumulators stay in registers for a whole run; a line of weights is widened once for all rows. An output's chain is one lane,
// so the number of rows, panels and halves of a line handled together cannot change a bit.
#pragma once

#include "kernels/linear/tensor_core.h"
#include "kernels/linear/tile.h"
#include "kernels/linear/words.h"

namespace invar {
namespace {

// Starts or ends the chains of a tile. A line's word vector h of panel p carries outputs p * 32 + h * W + lane (low halves) and
// 16 more (high halves).
template <class V>
inline void store_end(const TileTask& t, int64_t row, int64_t output, typename V::F value) {
  float* out = t.out + row * t.stride + output;
  V::store(out, t.fold ? V::add(V::load(out), value) : value);
}
template <class V>
inline typename V::F load_start(const TileTask& t, int64_t row, int64_t output) {
  return t.start ? V::load(t.start + row * t.stride + output) : V::zero();
}

// R rows, P panels, word vectors [first_half, first_half + H) of each line; 2 * R * P * H accumulators.
template <class V, int R, int P, int H>
[[gnu::always_inline]] inline void portable_part(const TileTask& t, int first_half) {
  typename V::F acc[R][P * H][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int l = 0; l < P * H; ++l) {
      const int64_t output = l / H * 32 + (first_half + l % H) * V::kWidth;
      acc[r][l][0] = load_start<V>(t, r, output);
      acc[r][l][1] = load_start<V>(t, r, output + 16);
    }
  const float* x = static_cast<const float*>(t.x);
  const uint32_t* w = t.weights + first_half * V::kWidth;
  for (int64_t k = 0; k < t.count; k += 16, x += R * 16) {
    const int n = static_cast<int>(t.count - k < 16 ? t.count - k : 16);
    for (int i = 0; i < n; ++i, w += 16) {
#pragma GCC unroll 16
      for (int l = 0; l < P * H; ++l) {
        const uint32_t* line = w + l / H * t.panel_stride + l % H * V::kWidth;
        if (l % H == 0) __builtin_prefetch(line + t.ahead);
        const typename V::I word = V::load(line);
        const typename V::F low = V::low_half(word), high = V::high_half(word);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const typename V::F value = V::splat(x[r * 16 + i]);
          acc[r][l][0] = V::fma(value, low, acc[r][l][0]);
          acc[r][l][1] = V::fma(value, high, acc[r][l][1]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int l = 0; l < P * H; ++l) {
      const int64_t output = l / H * 32 + (first_half + l % H) * V::kWidth;
      store_end<V>(t, r, output, acc[r][l][0]);
      store_end<V>(t, r, output + 16, acc[r][l][1]);
    }
}

// H word vectors of a line at a time; a line has 16 / V::kWidth.
template <class V, int R, int P, int H>
void portable_tile(const TileTask& t) {
  for (int half = 0; half < 16 / V::kWidth; half += H) portable_part<V, R, P, H>(t, half);
}

template <class V, int R>
void tc_tile(const TileTask& t) {
  for (int half = 0; half < 16 / V::kWidth; ++half) {
    const int64_t output = half * V::kWidth;
    typename V::F low[R], high[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      low[r] = load_start<V>(t, r, output);
      high[r] = load_start<V>(t, r, output + 16);
    }
    const auto* x = static_cast<const TensorCoreGroup*>(t.x);
    const uint32_t* w = t.weights + output;
    for (int64_t k = 0; k < t.count; k += 16, x += R, w += 256) {
      for (int i = 0; i < 16; ++i) __builtin_prefetch(w + i * 16 + t.ahead);
      tensor_core::step<V, R>(low, high, x, w, 16, static_cast<int>(t.count - k < 16 ? t.count - k : 16));
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      store_end<V>(t, r, output, low[r]);
      store_end<V>(t, r, output + 16, high[r]);
    }
  }
}

}  // namespace
}  // namespace invar
