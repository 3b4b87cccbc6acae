// The vector schedules of RMSNorm, one an instruction set. Equal bits; norm.cc chooses.
#pragma once

#include "kernels/norm/norm.h"

namespace invar::norm_schedule {

// Vectors [begin, end) of the problem's rows x groups.
void avx2(const RmsNorm& problem, int64_t begin, int64_t end);
void avx512(const RmsNorm& problem, int64_t begin, int64_t end);

}  // namespace invar::norm_schedule
