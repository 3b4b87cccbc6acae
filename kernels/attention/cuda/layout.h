// Layout of a page on the GPU, host and device code.
//
// A page holds, per KV head, page_size * head_dim elements of keys, and as many of values at the same offset. Eight slots form a
// group, whole groups follow each other; a group is head_dim / 64 panels of 8 slots x 64 elements (1 KB), the 16-byte piece c of
// slot r at piece c ^ r. This is the 128-byte swizzle of wgmma and ldmatrix: a page of one head lands in shared memory by one
// bulk copy, ready to be multiplied, pages one behind the other. Where head_dim is no multiple of 64 slots are plain rows.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda {

inline constexpr int kPanel = 64;     // elements of a row that lie together
inline constexpr int kSlotGroup = 8;  // slots that share a panel

INVAR_HD bool has_panels(int head_dim) { return head_dim % kPanel == 0; }

// Offset of element d of a slot from the start of its page and head.
INVAR_HD int kv_offset(int head_dim, int slot_in_page, int d) {
  if (!has_panels(head_dim)) return slot_in_page * head_dim + d;
  const int r = slot_in_page % kSlotGroup;
  return slot_in_page / kSlotGroup * (kSlotGroup * head_dim) + d / kPanel * (kSlotGroup * kPanel) + r * kPanel +
         ((d % kPanel / 8) ^ r) * 8 + d % 8;
}

// Elements from the start of keys() or values() to a page of one head.
INVAR_HD int64_t page_offset(int64_t page, int64_t kv_heads, int64_t head, int64_t page_size, int64_t head_dim) {
  return (page * kv_heads + head) * page_size * head_dim;
}

}  // namespace invar::cuda
