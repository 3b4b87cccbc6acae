// Compiled for AVX-512; called only on machines that have it.
#include "kernels/linear/tensor_core_step.h"

namespace invar {

void step_avx512(int rows, float* acc, const TensorCoreGroup* groups, const uint32_t* b, ptrdiff_t b_stride, int count) {
  step_any<WordsAvx512>(rows, acc, groups, b, b_stride, count);
}

}  // namespace invar
