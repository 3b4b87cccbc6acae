#include "kernels/lanes/lanes_avx2.h"
#include "kernels/lanes/probe_lanes.h"

namespace invar::lanes_probe {

void exp2_avx2(const float* x, int64_t count, float* y) { exp2_all<LanesAvx2>(x, count, y); }

void bf_avx2(const float* x, int64_t count, numerics::Bf16* y, float* widened) { bf_all<LanesAvx2>(x, count, y, widened); }

float halve_avx2(const float* x) { return LanesAvx2::halve(LanesAvx2::load(x)); }

}  // namespace invar::lanes_probe
