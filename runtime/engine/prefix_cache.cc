#include "runtime/engine/prefix_cache.h"

namespace invar::engine {

void extend_block_keys(std::span<const int32_t> tokens, int64_t page_size, std::vector<BlockKey>* keys) {
  const size_t full = tokens.size() / page_size;
  if (keys->size() >= full) return;
  receipt::Sha256 sha;
  while (keys->size() < full) {
    const size_t i = keys->size();
    if (i) sha.digest(keys->back());
    sha.ids(tokens.subspan(i * page_size, page_size));
    keys->push_back(sha.finish());
  }
}

std::optional<uint32_t> PrefixCache::find(const BlockKey& key) const {
  const auto it = page_of_key_.find(key);
  if (it == page_of_key_.end()) return std::nullopt;
  return it->second;
}

bool PrefixCache::insert(const BlockKey& key, uint32_t page) {
  if (key_of_page_.contains(page) || page_of_key_.contains(key)) return false;
  page_of_key_.emplace(key, page);
  key_of_page_.emplace(page, key);
  return true;
}

void PrefixCache::forget(uint32_t page) {
  const auto it = key_of_page_.find(page);
  if (it == key_of_page_.end()) return;
  page_of_key_.erase(it->second);
  key_of_page_.erase(it);
}

}  // namespace invar::engine
