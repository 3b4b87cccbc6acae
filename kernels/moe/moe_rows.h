// Router scores and the weighted sum of expert rows in lanes L: one text, instantiated for AVX2 and for AVX-512 in a file each.
#pragma once

#include "kernels/moe/schedules.h"
#include "kernels/norm/lane_sum.h"

namespace invar {
namespace {

// Arrays are padded to kPadding, so whole vectors may run over the end; nobody reads what they leave there.
template <class L>
void softmax_row(const float* z, float max, int64_t count, float* p) {
  const typename L::V top = L::splat(max), log2e = L::splat(numerics::kLog2e);
  for (int64_t i = 0; i < count; i += L::kWidth) L::store(p + i, L::exp2(L::mul(L::sub(L::load(z + i), top), log2e)));
  const float sum = sum_lanes<L>(count, [&](int64_t j) {
    const int64_t left = count - j;
    return left >= L::kWidth ? L::load(p + j) : left > 0 ? L::load_part(p + j, left) : L::splat(0.0f);
  });
  const typename L::V total = L::splat(sum);
  for (int64_t i = 0; i < count; i += L::kWidth) L::store(p + i, L::div(L::load(p + i), total));
}

template <class L>
void sigmoid_row(const float* z, int64_t count, float* p) {
  const typename L::V one = L::splat(1.0f), scale = L::splat(-numerics::kLog2e);
  for (int64_t i = 0; i < count; i += L::kWidth)
    L::store(p + i, L::div(one, L::add(one, L::exp2(L::mul(L::load(z + i), scale)))));
}

template <class L>
void combine_rows(const Combine& p, int64_t begin, int64_t end) {
  constexpr int64_t kStep = 4 * L::kWidth;  // columns side by side, so that an expert's row is looked up once for several
  for (int64_t r = begin; r < end; ++r) {
    const int64_t* row_of = p.row_of + r * p.top_k;
    const float* weights = p.weights + r * p.top_k;
    const Bf16* shared = p.shared ? p.shared + r * p.width : nullptr;
    Bf16* y = p.y + r * p.width;
    int64_t i = 0;
    for (; i + kStep <= p.width; i += kStep) {
      typename L::V acc[4] = {L::splat(0.0f), L::splat(0.0f), L::splat(0.0f), L::splat(0.0f)};
      for (int64_t t = 0; t < p.top_k; ++t) {
        if (row_of[t] < 0) continue;
        const Bf16* x = p.expert_rows + row_of[t] * p.width + i;
        const typename L::V w = L::splat(weights[t]);
        for (int v = 0; v < 4; ++v) acc[v] = L::fma(w, L::load_bf16(x + v * L::kWidth), acc[v]);
      }
      for (int v = 0; v < 4; ++v) {
        if (shared) acc[v] = L::add(L::load_bf16(shared + i + v * L::kWidth), acc[v]);
        L::store_bf16(y + i + v * L::kWidth, acc[v]);
      }
    }
    for (; i < p.width; i += L::kWidth) {
      const int64_t left = p.width - i < L::kWidth ? p.width - i : L::kWidth;
      typename L::V acc = L::splat(0.0f);
      for (int64_t t = 0; t < p.top_k; ++t)
        if (row_of[t] >= 0)
          acc = L::fma(L::splat(weights[t]), L::load_bf16_part(p.expert_rows + row_of[t] * p.width + i, left), acc);
      if (shared) acc = L::add(L::load_bf16_part(shared + i, left), acc);
      L::store_bf16_part(y + i, acc, left);
    }
  }
}

}  // namespace
}  // namespace invar
