#include "kernels/heads/heads.h"

#include "kernels/heads/cuda/heads.h"
#include "kernels/norm/norm.h"

namespace invar {

void prepare_heads_separately(const Device& device, const PrepareHeads& p) {
  Bf16* k = p.qkv + p.query_heads * p.head_dim;
  Bf16* v = k + p.kv_heads * p.head_dim;
  const auto norm = [&](Bf16* x, int64_t heads, const Bf16* weight) {
    rms_norm(device, {.rows = p.rows,
                      .groups = heads,
                      .width = p.head_dim,
                      .x = x,
                      .x_stride = p.stride,
                      .weight = weight,
                      .epsilon = p.epsilon,
                      .y = x,
                      .y_stride = p.stride});
  };
  if (p.q_weight) norm(p.qkv, p.query_heads, p.q_weight);
  if (p.k_weight) norm(k, p.kv_heads, p.k_weight);
  // Query and key heads lie side by side: one call rotates both.
  rope(device, {.rows = p.rows,
                .heads = p.query_heads + p.kv_heads,
                .head_dim = p.head_dim,
                .x = p.qkv,
                .x_stride = p.stride,
                .positions = p.positions,
                .table = p.table});
  p.pages->write(device, p.rows, k, v, p.stride, p.slots);
}

void prepare_heads(const Device& device, const PrepareHeads& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda && cuda::prepare_heads(device, p)) return;
  prepare_heads_separately(device, p);
}

}  // namespace invar
