// Values of a warpgroup's tile outside of registers: parked until the tile's next leaves are multiplied, or left for the block
// that has the tile's other parts. A thread's values lie 16 bytes each, 128 threads side by side.
#pragma once

#include "kernels/linear/cuda/tensor_core_prefill_tile.cuh"

namespace invar::cuda::tc::prefill {

template <int kSize>
__device__ __forceinline__ void park(const float (&acc)[kSize], float4* to) {
#pragma unroll
  for (int i = 0; i < kSize; i += 4) ptx::store_global_float4(to + i / 4 * 128, {acc[i], acc[i + 1], acc[i + 2], acc[i + 3]});
}

// acc = parked + acc.
template <int kSize>
__device__ __forceinline__ void add_parked(float (&acc)[kSize], const float4* from) {
  float4 values[kSize / 4];
#pragma unroll
  for (int i = 0; i < kSize / 4; ++i) values[i] = ptx::load_global_float4(from + i * 128);
#pragma unroll
  for (int i = 0; i < kSize / 4; ++i) {
    acc[i * 4] = numerics::add(values[i].x, acc[i * 4]);
    acc[i * 4 + 1] = numerics::add(values[i].y, acc[i * 4 + 1]);
    acc[i * 4 + 2] = numerics::add(values[i].z, acc[i * 4 + 2]);
    acc[i * 4 + 3] = numerics::add(values[i].w, acc[i * 4 + 3]);
  }
}

// `acc` is the value of one part of a tile. Where a part and all parts before it are there, they meet: who comes second
// adds. True for whoever has the tile's value in the end; the others leave
// theirs behind. Nobody waits, so blocks need not run at the same time.
template <class T>
__device__ __forceinline__ bool meet(const PrefillTask& task, float (&acc)[T::kValues], int part, int place, int warpgroup) {
  const int thread = threadIdx.x % 128, barrier = kPassBarrier + warpgroup;
  float4* const values = task.meeting + (place * task.parts * kConsumers + warpgroup) * T::kSetWords + thread;
  uint32_t* const met = task.met + (place * kConsumers + warpgroup) * kMostParts;
  ptx::wait_for_earlier_kernels();
  int begin = part, count = 1;  // the parts whose value is in acc
#pragma unroll 1
  while (count < task.parts) {
    const bool right = begin > 0;
    const int partner = right ? 0 : count;
    uint32_t* const here = met + (right ? begin : partner);
    if (!ptx::named_barrier_any(barrier, 128, thread == 0 && ptx::load_acquire(here))) {
      park(acc, values + begin * (kConsumers * T::kSetWords));
      ptx::named_barrier_sync(barrier, 128);
      if (!ptx::named_barrier_any(barrier, 128, thread == 0 && ptx::add_acquire_release(here, 1))) return false;
    }
    add_parked(acc, values + partner * (kConsumers * T::kSetWords));
    if (thread == 0) *here = 0;
    count = right ? begin + 1 : count + 1;
    begin = 0;
  }
  return true;
}

}  // namespace invar::cuda::tc::prefill
