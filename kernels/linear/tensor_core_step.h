// Test access to the vector steps: one k16 step of `rows` (1 .. 4) rows. acc: [rows][2][width], low outputs then high.
#pragma once

#include "kernels/linear/tensor_core.h"

namespace invar {

void step_avx2(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count);
void step_avx512(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count);

namespace {

template <class V, int R>
void step_rows(float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count) {
  typename V::F low[R], high[R];
  for (int r = 0; r < R; ++r) {
    low[r] = V::load(acc + 2 * r * V::kWidth);
    high[r] = V::load(acc + (2 * r + 1) * V::kWidth);
  }
  tensor_core::step<V, R>(low, high, groups, b, b_stride, count);
  for (int r = 0; r < R; ++r) {
    V::store(acc + 2 * r * V::kWidth, low[r]);
    V::store(acc + (2 * r + 1) * V::kWidth, high[r]);
  }
}

template <class V>
void step_any(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count) {
  if (rows == 1) step_rows<V, 1>(acc, groups, b, b_stride, count);
  if (rows == 2) step_rows<V, 2>(acc, groups, b, b_stride, count);
  if (rows == 4) step_rows<V, 4>(acc, groups, b, b_stride, count);
}

}  // namespace
}  // namespace invar
