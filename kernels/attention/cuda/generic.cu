// The kernel that takes any shape.
#include "kernels/attention/cuda/any_shape.cuh"
#include "kernels/attention/cuda/kernels.h"
#include "kernels/device/cuda/launch.cuh"

namespace invar::cuda {
namespace {

template <Profile P>
__global__ void __launch_bounds__(any_shape::kThreads)
    generic_kernel(const __grid_constant__ AttentionParameters p, PlanList list) {
  extern __shared__ __align__(16) std::byte memory[];
  ptx::wait_for_earlier_kernels();
  const PlanView plan{p.block};
  const PlanItem* items = list == PlanList::kDecode ? plan.decode() : plan.prefill();
  const int per_item = p.kv_heads * p.subtiles;
  const int64_t count = int64_t{list == PlanList::kDecode ? plan.header().decode_items : plan.header().prefill_items} * per_item;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x)
    any_shape::attend<P>({static_cast<int>(threadIdx.x), 0}, memory, p, plan, load_item(items + index / per_item),
                         static_cast<int>(index % per_item) / p.subtiles,
                         static_cast<int>(index % p.subtiles) * any_shape::kVectors);
}

}  // namespace

void launch_generic(const Device& device, AttentionParameters p, PlanList list, int64_t tile_rows, int64_t group) {
  p.subtiles = static_cast<int32_t>((tile_rows * group + any_shape::kVectors - 1) / any_shape::kVectors);
  const Launch shape{.grid = static_cast<unsigned>(device.cuda().multiprocessors * 4),
                     .block = any_shape::kThreads,
                     .shared = any_shape::shared_bytes(p.head_dim),
                     .dependent = true};
  if (device.profile() == Profile::kPortable)
    launch(device, shape, generic_kernel<Profile::kPortable>, p, list);
  else
    launch(device, shape, generic_kernel<Profile::kTc>, p, list);
}

}  // namespace invar::cuda
