// The text of probe.h for lanes L. Test code only.
#pragma once

#include "kernels/lanes/probe.h"

namespace invar {
namespace {

template <class L>
void exp2_all(const float* x, int64_t count, float* y) {
  int64_t i = 0;
  for (; i + L::kWidth <= count; i += L::kWidth) L::store(y + i, L::exp2(L::load(x + i)));
  L::store_part(y + i, L::exp2(L::load_part(x + i, count - i)), count - i);
}

template <class L>
void bf_all(const float* x, int64_t count, numerics::Bf16* y, float* widened) {
  int64_t i = 0;
  for (; i + L::kWidth <= count; i += L::kWidth) {
    L::store_bf16(y + i, L::load(x + i));
    L::store(widened + i, L::bf(L::load(x + i)));
  }
  L::store_bf16_part(y + i, L::load_part(x + i, count - i), count - i);
  L::store_part(widened + i, L::bf(L::load_part(x + i, count - i)), count - i);
}

}  // namespace
}  // namespace invar
