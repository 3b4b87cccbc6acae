// The vector schedules of the rotation, one an instruction set. Equal bits; rope.cc chooses.
#pragma once

#include "kernels/rope/rope.h"

namespace invar::rope_schedule {

// Where the rotation reads its angles: plain data, because a file compiled for AVX-512 calls no inline member of another header
// (lanes_avx512.h says why).
struct Angles {
  const float* table;  // [position][2][half]: cosines, then sines
  int64_t half;
};

// Rows [begin, end) of the problem.
void avx2(const Rope& problem, const Angles& angles, int64_t begin, int64_t end);
void avx512(const Rope& problem, const Angles& angles, int64_t begin, int64_t end);

}  // namespace invar::rope_schedule
