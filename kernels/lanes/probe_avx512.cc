#include "kernels/lanes/lanes_avx512.h"
#include "kernels/lanes/probe_lanes.h"

namespace invar::lanes_probe {

void exp2_avx512(const float* x, int64_t count, float* y) { exp2_all<LanesAvx512>(x, count, y); }

void bf_avx512(const float* x, int64_t count, numerics::Bf16* y, float* widened) { bf_all<LanesAvx512>(x, count, y, widened); }

float halve_avx512(const float* x) { return LanesAvx512::halve(LanesAvx512::load(x)); }

}  // namespace invar::lanes_probe
