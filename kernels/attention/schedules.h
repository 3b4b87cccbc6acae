// One split of one KV head for a tile of query vectors: the unit of work the vector schedules share. Plain data, because the
// files that implement it are compiled for other instruction sets and may not instantiate common inline code.
#pragma once

#include <cstdint>

#include "kernels/linear/tensor_core.h"
#include "kernels/numerics.h"

namespace invar::attention_schedule {

inline constexpr int kTileRows = 6;  // most query vectors that meet one load of keys in registers
inline constexpr int kTensorCoreTileRows = 4;
inline constexpr int kSubBlocksPerSplit = numerics::kAttentionSplit / 16;

struct SplitTile {
  int64_t head_dim = 0;
  int64_t vectors = 0;        // query vectors: rows x heads that read this KV head
  int64_t rows_per_tile = 0;  // vectors are taken in register tiles of this many, at most kTileRows
  float c = 0;                // attention_order::exponent_scale
  float step = 0;             // attention_order::exponent_step(c)
  // portable: fp32 [register tile][head_dim][kTileRows]; tc: [register tile][groups of 16 d][rows_per_tile]
  const float* q = nullptr;
  const TensorCoreGroup* q_groups = nullptr;
  // Sub-blocks of the split in key order (KvPages layout). Never null inside a visible block; what they hold where no key is
  // visible does not matter, NaN included.
  // One block more than a split: the schedules prefetch a block ahead.
  const numerics::Bf16* keys[kSubBlocksPerSplit + 4];
  const numerics::Bf16* values[kSubBlocksPerSplit + 4];
  const int32_t* begin = nullptr;  // [vectors] visible keys of the split, counted from its start; empty when begin >= end
  const int32_t* end = nullptr;
  uint32_t* lines = nullptr;  // tc: room for tensor_core_words(head_dim) words
  // Result. o is [vectors][o_stride], o_stride a multiple of kOutputStep and >= head_dim; what lies behind head_dim is garbage.
  float* reference = nullptr;  // [vectors]; -inf where the split is empty
  float* l = nullptr;          // [vectors], the denominator
  float* o = nullptr;
  int64_t o_stride = 0;
};

inline constexpr int64_t kOutputStep = 32;
// Keys and values of a split, two bf16 a word.
constexpr int64_t tensor_core_words(int64_t head_dim) {
  return numerics::kAttentionSplit * (head_dim + (head_dim + kOutputStep - 1) / kOutputStep * kOutputStep) / 2;
}

using Schedule = void (*)(const SplitTile&);
void portable_avx2(const SplitTile& tile);
void portable_avx512(const SplitTile& tile);
void tc_avx2(const SplitTile& tile);
void tc_avx512(const SplitTile& tile);

}  // namespace invar::attention_schedule
