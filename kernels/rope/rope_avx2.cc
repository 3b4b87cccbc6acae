#include "kernels/lanes/lanes_avx2.h"
#include "kernels/rope/rope_rows.h"

namespace invar::rope_schedule {

void avx2(const Rope& problem, const Angles& angles, int64_t begin, int64_t end) {
  rope_rows<LanesAvx2>(problem, angles, begin, end);
}

}  // namespace invar::rope_schedule
