// Where a sub-block of 16 slots lies in KvPages (layout: kv_pages.cc).
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"

namespace invar {

inline constexpr int64_t kSubBlock = 16;

// Elements from the start of keys() or values() to the sub-block that holds `slot`, for one KV head.
inline int64_t sub_block_offset(const KvPages& pages, int64_t slot, int64_t head) {
  const int64_t page = slot / pages.page_size(), in_page = slot % pages.page_size();
  return ((page * pages.kv_heads() + head) * pages.page_size() + in_page / kSubBlock * kSubBlock) * pages.head_dim();
}

}  // namespace invar
