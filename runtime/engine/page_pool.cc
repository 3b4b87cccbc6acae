#include "runtime/engine/page_pool.h"

#include <cassert>

namespace invar::engine {

PagePool::PagePool(int64_t pages) : references_(pages, 0), place_(pages) {
  free_.reserve(pages);
  for (int64_t p = pages; p-- > 0;) free_.push_back(static_cast<uint32_t>(p));
}

bool PagePool::allocate(int64_t count, std::vector<uint32_t>* pages) {
  if (count > available()) return false;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t page;
    if (!free_.empty()) {
      page = free_.back();
      free_.pop_back();
    } else {
      page = idle_.front();
      idle_.pop_front();
      cache_.forget(page);
    }
    references_[page] = 1;
    pages->push_back(page);
  }
  return true;
}

void PagePool::share(uint32_t page) {
  assert(references_[page] > 0 || cache_.holds(page));
  if (references_[page]++ == 0) idle_.erase(place_[page]);
}

void PagePool::release(std::span<const uint32_t> pages) {
  for (size_t i = pages.size(); i-- > 0;) {
    const uint32_t page = pages[i];
    assert(references_[page] > 0);
    if (--references_[page] > 0) continue;
    if (cache_.holds(page)) {
      place_[page] = idle_.insert(idle_.end(), page);
    } else {
      free_.push_back(page);
    }
  }
}

void PagePool::forget(uint32_t page) {
  if (!cache_.holds(page)) return;
  cache_.forget(page);
  if (references_[page] > 0) return;
  idle_.erase(place_[page]);
  free_.push_back(page);
}

int64_t PagePool::flush() {
  const int64_t count = cached();
  for (const uint32_t page : idle_) {
    cache_.forget(page);
    free_.push_back(page);
  }
  idle_.clear();
  return count;
}

}  // namespace invar::engine
