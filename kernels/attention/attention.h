// Paged attention over absolute key positions (clause 7): decode = prefill = any chunking = any cache state, bit for bit.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention/attention_step.h"
#include "kernels/device/device.h"

namespace invar {

// Keys and values of one layer on one rank. The inner layout is the backend's own; a page is `page_size` token slots.
// Slot s of page p is addressed as p * page_size + s. Slots never written hold zeros; what a slot holds that no query may see yet
// (a page used before, NaN and infinities too) changes no bit.
class KvPages {
 public:
  KvPages() = default;
  KvPages(const Device& device, int64_t pages, int64_t page_size, int64_t kv_heads, int64_t head_dim);
  int64_t pages() const { return pages_; }
  int64_t page_size() const { return page_size_; }  // a multiple of 16
  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }  // a multiple of 8
  // Row r of k and v ([rows][kv_heads * head_dim], strides in elements) goes to slots[r]. kCuda: a negative slot takes nothing.
  void write(const Device& device, int64_t rows, const Bf16* k, const Bf16* v, int64_t stride, const int64_t* slots);
  Bf16 key(int64_t slot, int64_t head, int64_t d) const;  // for references and tests; kCuda: reads one element back, slowly
  Bf16 value(int64_t slot, int64_t head, int64_t d) const;
  Bf16* keys() const { return keys_.as<Bf16>(); }
  Bf16* values() const { return values_.as<Bf16>(); }
  size_t bytes() const { return keys_.size() + values_.size(); }

 private:
  Buffer keys_;
  Buffer values_;
  const Device* cuda_ = nullptr;  // kCuda: for key() and value()
  int64_t pages_ = 0, page_size_ = 0, kv_heads_ = 0, head_dim_ = 0;
};

// Row r of the step sees the keys [0, position] of its sequence, or the last `window` of them. Local query head h reads local KV
// head kv_head_of[h] (several ranks may hold the same KV head). kCuda: head_dim at most 256, at most 256 query and 128 KV heads.
struct Attention {
  int64_t query_heads = 0;
  int64_t head_dim = 0;
  const Bf16* q = nullptr;  // [rows][query_heads * head_dim]
  int64_t q_stride = 0;
  const AttentionStep* step = nullptr;  // made for the same device and page size
  std::span<const int32_t> kv_head_of;  // host
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
