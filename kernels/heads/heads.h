// What lies between the linear that makes queries, keys and values and the attention over them: norms of the heads, rotation, and
// the write to the cache. One pass and one launch on a GPU, because a decode step is bound by launches.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/device/device.h"
#include "kernels/rope/rope.h"

namespace invar {

// Row r of qkv holds query_heads, then kv_heads key heads, then kv_heads value heads, head_dim elements each. In place: query and
// key heads become rms_norm() with their weight (null: no norm), then rope() at positions[r]; keys and values go to slots[r] of
// `pages`, as KvPages::write() takes them. Weights and table are constant data; on a GPU positions and slots may be read while
// the kernels queued right before this one still run, so these do not write them.
struct PrepareHeads {
  int64_t rows = 0;
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  Bf16* qkv = nullptr;
  int64_t stride = 0;
  const Bf16* q_weight = nullptr;  // [head_dim]; both or neither
  const Bf16* k_weight = nullptr;
  float epsilon = 0;
  const int32_t* positions = nullptr;  // [rows]
  const RopeTable* table = nullptr;
  KvPages* pages = nullptr;
  const int64_t* slots = nullptr;  // [rows]
};
// The bits of the four operations one after the other.
void prepare_heads(const Device& device, const PrepareHeads& problem);
void prepare_heads_separately(const Device& device, const PrepareHeads& problem);

}  // namespace invar
