// Which full pages of keys and values are known by the tokens they were computed from.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/receipt/sha256.h"

namespace invar::engine {

// Names the content of a page: SHA-256 chained over all token blocks from the sequence's start up to and including this page's.
// A collision would serve one prompt another's keys, so the hash is cryptographic: nobody can construct two such prompts.
using BlockKey = receipt::Digest;
struct BlockKeyHash {
  size_t operator()(const BlockKey& key) const {
    size_t h;
    std::memcpy(&h, key.data(), sizeof(h));
    return h;
  }
};

// Appends the keys of the full blocks of `tokens` that `keys` does not hold yet.
void extend_block_keys(std::span<const int32_t> tokens, int64_t page_size, std::vector<BlockKey>* keys);

// The map of one home, both ways. Knows nothing of references; PagePool decides which pages live.
class PrefixCache {
 public:
  std::optional<uint32_t> find(const BlockKey& key) const;
  // False, and nothing changes, where the key is already there (two sequences computed the same block) or the page is.
  bool insert(const BlockKey& key, uint32_t page);
  void forget(uint32_t page);
  bool holds(uint32_t page) const { return key_of_page_.contains(page); }
  int64_t size() const { return static_cast<int64_t>(page_of_key_.size()); }

 private:
  std::unordered_map<BlockKey, uint32_t, BlockKeyHash> page_of_key_;
  std::unordered_map<uint32_t, BlockKey> key_of_page_;
};

}  // namespace invar::engine
