// Paged attention over absolute key positions (clause 7): decode = prefill = any chunking = any cache state, bit for bit.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/device/device.h"

namespace invar {

// Keys and values of one layer on one rank. The inner layout is the backend's own; a page is `page_size` token slots.
// Slot s of page p is addressed as p * page_size + s. Slots never written hold zeros; what a slot holds that no query may see yet
// (a page used before) changes no bit.
class KvPages {
 public:
  KvPages() = default;
  KvPages(const Device& device, int64_t pages, int64_t page_size, int64_t kv_heads, int64_t head_dim);
  int64_t pages() const { return pages_; }
  int64_t page_size() const { return page_size_; }  // a multiple of 16
  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }  // a multiple of 8
  // Row r of k and v ([rows][kv_heads * head_dim], strides in elements) goes to slots[r].
  void write(const Device& device, int64_t rows, const Bf16* k, const Bf16* v, int64_t stride, const int64_t* slots);
  Bf16 key(int64_t slot, int64_t head, int64_t d) const;  // for references and tests
  Bf16 value(int64_t slot, int64_t head, int64_t d) const;
  Bf16* keys() const { return keys_.as<Bf16>(); }
  Bf16* values() const { return values_.as<Bf16>(); }
  size_t bytes() const { return keys_.size() + values_.size(); }

 private:
  Buffer keys_;
  Buffer values_;
  int64_t pages_ = 0, page_size_ = 0, kv_heads_ = 0, head_dim_ = 0;
};

// Row r is a query at absolute position positions[r] of sequence sequences[r]; it sees keys [0, position] (or the last `window`
// of them). Local query head h reads local KV head kv_head_of[h] (several ranks may hold the same KV head).
struct Attention {
  int64_t rows = 0;
  int64_t query_heads = 0;
  int64_t head_dim = 0;
  const Bf16* q = nullptr;  // [rows][query_heads * head_dim]
  int64_t q_stride = 0;
  const int32_t* positions = nullptr;
  const int32_t* sequences = nullptr;
  // Per sequence: page of tokens [i * page_size, (i + 1) * page_size). Entries outside every row's window are not read.
  std::span<const std::span<const int32_t>> page_tables;
  std::span<const int32_t> kv_head_of;
  const KvPages* pages = nullptr;
  int64_t window = 0;  // 0 = all keys
  float scale = 0;     // > 0; 1 / sqrt(head_dim) unless the model says otherwise
  Bf16* y = nullptr;   // [rows][query_heads * head_dim]
  int64_t y_stride = 0;
};
// y must not overlap q. A row whose scores overflowed or were NaN gets NaN in every element of that head.
void attention(const Device& device, const Attention& problem);
void attention_reference(Profile profile, const Attention& problem);

}  // namespace invar
