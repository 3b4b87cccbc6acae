// The KV pages of one home: who uses them, which are free, and which free ones still hold a prefix worth keeping.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "runtime/engine/prefix_cache.h"

namespace invar::engine {

// A page is used (references > 0), idle and cached (no reference, but found by its prefix), or free. Ranks execute plans in
// order, so a page released here may be given to the next plan at once, even while surplus work on it is still in flight.
class PagePool {
 public:
  explicit PagePool(int64_t pages);

  int64_t total() const { return static_cast<int64_t>(references_.size()); }
  int64_t available() const { return static_cast<int64_t>(free_.size() + idle_.size()); }  // free or evictable
  int64_t used() const { return total() - available(); }
  int64_t cached() const { return static_cast<int64_t>(idle_.size()); }
  int64_t references(uint32_t page) const { return references_[page]; }

  // Appends `count` pages with one reference each; free ones first, then the least recently used cached ones, which are
  // forgotten. All or nothing.
  bool allocate(int64_t count, std::vector<uint32_t>* pages);
  // The page that holds this block, used or idle.
  std::optional<uint32_t> find(const BlockKey& key) const { return cache_.find(key); }
  bool idle(uint32_t page) const { return references_[page] == 0; }
  // One reference more; an idle page becomes used.
  void share(uint32_t page);
  // Drops one reference of each. Given in the order of the page table: the tail becomes the first to be evicted, because
  // a cached block is found only through the blocks before it.
  void release(std::span<const uint32_t> pages);

  void remember(const BlockKey& key, uint32_t page) { cache_.insert(key, page); }
  // The page's content is no longer trusted: nobody new may find it.
  void forget(uint32_t page);
  // Forgets every idle page; returns how many became free.
  int64_t flush();

 private:
  std::vector<int32_t> references_;
  std::vector<uint32_t> free_;
  std::list<uint32_t> idle_;                          // cached and unused, the next to be evicted first
  std::vector<std::list<uint32_t>::iterator> place_;  // valid for idle pages
  PrefixCache cache_;
};

}  // namespace invar::engine
