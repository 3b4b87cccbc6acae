// The tokens a draw may still choose, narrowed by min-p, top-k and top-p (README.md, clause 13).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/logits/vocabulary_loops.h"

namespace invar {

// top_p as a fixed-point number, floor(top_p * 2^kTopPBits).
using numerics::kTopPBits;
uint64_t fixed_top_p(float top_p);
// Least mass that min_p lets stay, floor(min_p * 2^40); never more than the largest token's own 2^40.
uint64_t least_mass(float min_p);
// Does an entry stay whose predecessors in order have the mass `before` of a `total`? In 128-bit integers, so exact. The first
// one always does.
bool inside_nucleus(uint64_t before, uint64_t fixed_top_p, uint64_t total);

// Ids ascending, each with its scaled logit y. "Order" is (key of y descending, id ascending). A reset takes y, or the part of it
// that can matter; the part is always a prefix of the order that ends between two keys.
class Candidates {
 public:
  explicit Candidates(const VocabularyLoops& loops) : loops_(loops) {}
  void reset(const float* y, int64_t count);
  void reset_listed(std::span<const int32_t> ids, std::span<const float> y);  // a prefix of the order, ids ascending
  void reset_top(const float* y, int64_t count, int64_t k);                   // at least the k first of the order
  void reset_mass(const float* y, int64_t count, uint64_t least, float max);  // at least those with this mass
  int64_t size() const { return size_; }
  const int32_t* ids() const { return ids_.data(); }
  const float* y() const { return y_.data(); }

  void keep_mass(uint64_t least, float max);
  void keep_top(int64_t k);
  // The nucleus of a whole with mass `total`. False, and nothing done, if these candidates end inside it.
  bool keep_nucleus(float top_p, float max, uint64_t total);
  uint64_t total_mass(float max) const { return loops_.mass_sum(y(), size(), max); }
  // The ids in order.
  std::vector<int32_t> sorted() const;

 private:
  void make_room(int64_t count);
  template <class Weight, class Inside>
  void keep_prefix(const Weight& weight, const Inside& inside);
  template <class Keep>
  void keep_where(const Keep& keep);

  // Entries with at least this key, given the keys of blocks.
  void reset_from(const float* y, int64_t count, int32_t key);

  const VocabularyLoops& loops_;
  int64_t size_ = 0;  // of the arrays; they only grow
  std::vector<int32_t> ids_;
  std::vector<float> y_;
  std::vector<uint64_t> masses_;
  std::vector<int32_t> block_keys_, sorted_keys_;
  std::vector<int32_t> active_;  // of keep_prefix: positions that share the digits seen so far
};

}  // namespace invar
