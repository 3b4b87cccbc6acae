#include "kernels/lanes/lanes_avx512.h"
#include "kernels/rope/rope_rows.h"

namespace invar::rope_schedule {

void avx512(const Rope& problem, const Angles& angles, int64_t begin, int64_t end) {
  rope_rows<LanesAvx512>(problem, angles, begin, end);
}

}  // namespace invar::rope_schedule
