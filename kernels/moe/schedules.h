// The vector schedules of the router's scores and of the combine, one an instruction set. Equal bits; router.cc chooses.
#pragma once

#include "kernels/moe/router.h"

namespace invar::moe_schedule {

// Scores of one row: z and p have room for `count` rounded up to 16 floats, and count <= 1024. `max` is finite; z holds no NaN
// (the sigmoid's caller overwrites the scores of those that are).
inline constexpr int64_t kPadding = 16;
void softmax_avx2(const float* z, float max, int64_t count, float* p);
void softmax_avx512(const float* z, float max, int64_t count, float* p);
void sigmoid_avx2(const float* z, int64_t count, float* p);
void sigmoid_avx512(const float* z, int64_t count, float* p);
// Rows [begin, end) of the problem.
void combine_avx2(const Combine& problem, int64_t begin, int64_t end);
void combine_avx512(const Combine& problem, int64_t begin, int64_t end);

}  // namespace invar::moe_schedule
