#include "kernels/norm/cuda/norm.h"

namespace invar::cuda {

NormPlan plan_norm(int multiprocessors, int64_t rows, int64_t groups, int64_t width, bool aligned) {
  if (!aligned || width % 8 != 0 || width > kNormWidest) return {.schedule = NormPlan::Schedule::kGeneric};
  if (groups == 1 && width > 256) return {.schedule = NormPlan::Schedule::kRows, .lanes = rows <= multiprocessors ? 4 : 8};
  if (width > 256) return {.schedule = NormPlan::Schedule::kGeneric};  // wide groups, which no model has
  return {.schedule = NormPlan::Schedule::kGroups, .threads = width <= 64 ? 8 : width <= 128 ? 16 : 32};
}

}  // namespace invar::cuda
