#include "kernels/linear/tensor_core.h"

namespace invar {

void prepare_tensor_core_group(const numerics::Bf16* a, int count, TensorCoreGroup* group) {
  uint16_t bits[16] = {};
  for (int k = 0; k < count; ++k) bits[k] = a[k].bits;
  uint32_t any = 0, widest = 0;
  for (int k = 0; k < 16; ++k) {
    const uint32_t field = bits[k] & 0x7f80u;
    group->value[k] = numerics::widen(numerics::Bf16{bits[k]});
    group->exponents[k] = field | field << 16;
    group->bits[k] = numerics::Bf16{bits[k]};
    any |= bits[k] & 0x7fffu;
    widest = widest < field ? field : widest;
  }
  group->wide = widest > 153u << 7;  // the exponent field of 2^26
  group->zero = any == 0;
}

namespace tensor_core {

void scalar_lanes(float* acc, uint32_t lanes, const TensorCoreGroup& a, const uint32_t* b, ptrdiff_t b_stride, int count,
                  bool high) {
  for (int i = 0; lanes >> i; ++i) {
    if (!(lanes >> i & 1)) continue;
    numerics::Bf16 column[16];
    for (int k = 0; k < count; ++k) column[k].bits = static_cast<uint16_t>(b[k * b_stride + i] >> (high ? 16 : 0));
    acc[i] = numerics::tensor_core_step(acc[i], a.bits, column, count);
  }
}

}  // namespace tensor_core
}  // namespace invar
