// The vector schedules of RMSNorm, one an instruction set. Equal bits; norm.cc chooses.
#pragma once

#include "kernels/norm/norm.h"

namespace invar::norm_schedule {

// The sum alone, for tests: the norm's result is rounded to bf16 and would hide a wrong order nearly always.
float sum_of_squares_avx2(const Bf16* x, int64_t count);
float sum_of_squares_avx512(const Bf16* x, int64_t count);
// Vectors [begin, end) of the problem's rows x groups.
void avx2(const RmsNorm& problem, int64_t begin, int64_t end);
void avx512(const RmsNorm& problem, int64_t begin, int64_t end);

}  // namespace invar::norm_schedule
