// The schedule for whatever the fast ones do not take: any count, any stride, any cut of K, the control arms. Also what tests of
// the fast schedules compare large shapes with.
#pragma once

#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

void generic_column(const Device& device, const ColumnLinear& problem);
void generic_row(const Device& device, const RowLinear& problem);

}  // namespace invar::cuda::tc
