// What the attention kernels share: their parameters, the walk from a work item to rows, heads and pages, and the pieces of the
// order (README.md, clause 7) that are the same in each. For device code only.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_order.h"
#include "kernels/attention/cuda/layout.h"
#include "kernels/attention/cuda/plan.h"
#include "kernels/device/device.h"

namespace invar::cuda {

inline constexpr int kMostQueryHeads = 256, kMostKvHeads = 128;
inline constexpr int kMostHeadDim = 256;
inline constexpr int kBlock = attention_order::kBlock;
inline constexpr int kSplit = attention_order::kSplit;
inline constexpr int kBlocksPerSplit = kSplit / kBlock;
inline constexpr float kInfinity = __builtin_huge_valf();
inline constexpr uint32_t kOnes = 0x3f803f80;  // two bf16: what the denominator's chain in tc multiplies weights with

struct AttentionParameters {
  const int32_t* block;  // PlanHeader and what follows it
  const Bf16* q;
  const Bf16* keys;
  const Bf16* values;
  Bf16* y;
  float* states;  // [state][query_heads][head_dim + 4]: o, then reference and denominator
  int64_t q_stride, y_stride;
  int32_t query_heads, kv_heads, head_dim, page_size, window;
  int32_t subtiles;                       // pieces a tile is cut into, by query vectors
  uint32_t fraction = 0x7fffff;           // where prefill keeps the mask of a float's fraction
  float c, step;                          // attention_order::exponent_scale and exponent_step
  uint16_t head_begin[kMostKvHeads + 1];  // the query heads of a KV head: head[head_begin[h]] ...
  uint8_t head[kMostQueryHeads];
};

inline constexpr int kStateExtra = 4;

struct PlanView {
  const int32_t* block;
  __device__ const PlanHeader& header() const { return *reinterpret_cast<const PlanHeader*>(block); }
  __device__ const PlanRow* order() const { return reinterpret_cast<const PlanRow*>(block + header().order); }
  __device__ const int32_t* entries() const { return block + header().entries; }
  __device__ const PlanItem* decode() const { return reinterpret_cast<const PlanItem*>(block + header().decode); }
  __device__ const PlanItem* prefill() const { return reinterpret_cast<const PlanItem*>(block + header().prefill); }
  __device__ const PlanMerge* merges() const { return reinterpret_cast<const PlanMerge*>(block + header().merge); }
};

__device__ __forceinline__ PlanItem load_item(const PlanItem* from) {
  static_assert(sizeof(PlanItem) == 3 * sizeof(int4));
  const int4* words = reinterpret_cast<const int4*>(from);
  const int4 a = words[0], b = words[1], c = words[2];
  return PlanItem{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x};
}
__device__ __forceinline__ PlanRow load_row(const PlanRow* from) {
  const int2 a = *reinterpret_cast<const int2*>(from);
  return PlanRow{a.x, a.y};
}

// First key a row at `position` sees; the last is `position` itself.
__device__ __forceinline__ int first_visible(int position, int window) {
  return window > 0 && position + 1 > window ? position + 1 - window : 0;
}

// The page of keys [i * page_size, ...) of a tile, or page 0 where none of its rows sees a key: the table may name a page that
// was given away there, or none.
__device__ __forceinline__ int page_or_any(const int32_t* table, int i, int first_page, int last_page) {
  if (i < first_page || i > last_page) return 0;
  const int page = __ldg(table + i);
  return page < 0 ? 0 : page;
}

// `states` and `rows` as in PlanItem and PlanMerge.
__device__ __forceinline__ float* state_of(const AttentionParameters& p, int states, int rows, int split, int row, int head) {
  const int64_t state = int64_t{states} + int64_t{split} * rows + row;
  return p.states + (state * p.query_heads + head) * (p.head_dim + kStateExtra);
}

// ---------------------------------------------------------------- the end of a row

// Writes bf(o / l) elementwise; `reciprocal` is RN(1 / l), or NaN where l is not finite.
__device__ __forceinline__ float reciprocal_of(float l) {
  return l < kInfinity ? numerics::div(1.0f, l) : __int_as_float(0x7fffffff);
}
__device__ __forceinline__ Bf16 output_of(float o, float reciprocal) { return numerics::bf(numerics::fma(o, reciprocal, 0.0f)); }

}  // namespace invar::cuda
