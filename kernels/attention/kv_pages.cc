// Layout of a page on the CPU. A page holds, per KV head, sub-blocks of 16 slots; a sub-block is 16 * head_dim elements both in
// keys and in values, at the same offset:
//   keys    [head_dim / 2][16 slots][2]   lanes are keys, two neighbouring d of one key in one 32-bit lane
//   values  [16 slots / 2][head_dim][2]   lanes are d, two neighbouring keys of one d in one 32-bit lane
// so that a score kernel and a value kernel are the same outer product over pairs: one load gives two fp32 vectors by a shift
// and a mask, and nothing is transposed when read. The price is that write() scatters, once a token.
#include <algorithm>

#include "kernels/attention/attention.h"
#include "kernels/attention/cuda/attention.h"
#include "kernels/attention/cuda/layout.h"
#include "kernels/attention/sub_block.h"

namespace invar {
namespace {

// Vector loads of the last 8 elements of a head_dim that is no multiple of 16 read one vector too far.
constexpr size_t kSlackBytes = 64;

Bf16 read_back(const Device& device, const KvPages& pages, const Bf16* base, int64_t slot, int64_t head, int64_t d) {
  const int64_t page_size = pages.page_size(), head_dim = pages.head_dim();
  Bf16 element;
  device.download(&element,
                  base + cuda::page_offset(slot / page_size, pages.kv_heads(), head, page_size, head_dim) +
                      cuda::kv_offset(static_cast<int>(head_dim), static_cast<int>(slot % page_size), static_cast<int>(d)),
                  sizeof(element));
  return element;
}

}  // namespace

KvPages::KvPages(const Device& device, int64_t pages, int64_t page_size, int64_t kv_heads, int64_t head_dim)
    : keys_(device, static_cast<size_t>(pages * page_size * kv_heads * head_dim) * sizeof(Bf16) + kSlackBytes),
      values_(device, static_cast<size_t>(pages * page_size * kv_heads * head_dim) * sizeof(Bf16) + kSlackBytes),
      cuda_(device.backend() == Backend::kCuda ? &device : nullptr),
      pages_(pages),
      page_size_(page_size),
      kv_heads_(kv_heads),
      head_dim_(head_dim) {}

void KvPages::write(const Device& device, int64_t rows, const Bf16* k, const Bf16* v, int64_t stride, const int64_t* slots) {
  if constexpr (kCudaBuilt)
    if (cuda_) return cuda::write_pages(device, *this, rows, k, v, stride, slots);
  const auto write_rows = [&](int64_t first, int64_t last) {
    for (int64_t h = 0; h < kv_heads_; ++h) {
      for (int64_t r = first; r < last; ++r) {
        const int64_t base = sub_block_offset(*this, slots[r], h), lane = slots[r] % kSubBlock;
        const Bf16* key = k + r * stride + h * head_dim_;
        const Bf16* value = v + r * stride + h * head_dim_;
        Bf16* key_to = keys() + base + lane * 2;
        Bf16* value_to = values() + base + lane / 2 * head_dim_ * 2 + lane % 2;
        for (int64_t d = 0; d < head_dim_; d += 2) {
          key_to[d * kSubBlock] = key[d];
          key_to[d * kSubBlock + 1] = key[d + 1];
        }
        for (int64_t d = 0; d < head_dim_; ++d) value_to[d * 2] = value[d];
      }
    }
  };
  // Cut at multiples of 16 rows: neighbours in a sub-block share cache lines, and a thread should own them.
  constexpr int64_t kRowsPerPart = 16;
  const int64_t parts = (rows + kRowsPerPart - 1) / kRowsPerPart;
  if (parts <= 1 || device.pool().threads() == 1) return write_rows(0, rows);
  device.pool().run(parts, [&](int64_t i) { write_rows(i * kRowsPerPart, std::min(rows, (i + 1) * kRowsPerPart)); });
}

Bf16 KvPages::key(int64_t slot, int64_t head, int64_t d) const {
  if (cuda_) return read_back(*cuda_, *this, keys(), slot, head, d);
  return keys()[sub_block_offset(*this, slot, head) + (d / 2 * kSubBlock + slot % kSubBlock) * 2 + d % 2];
}

Bf16 KvPages::value(int64_t slot, int64_t head, int64_t d) const {
  if (cuda_) return read_back(*cuda_, *this, values(), slot, head, d);
  return values()[sub_block_offset(*this, slot, head) + (slot % kSubBlock / 2 * head_dim_ + d) * 2 + slot % 2];
}

}  // namespace invar
