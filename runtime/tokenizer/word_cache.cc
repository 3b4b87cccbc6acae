#include "runtime/tokenizer/word_cache.h"

#include "absl/hash/hash.h"

namespace invar::tokenizer {

size_t WordCache::part_of(std::string_view word) {
  return absl::Hash<std::string_view>{}(word) >> 7 & (kParts - 1);  // the map itself uses the low 7 bits most
}

bool WordCache::find(std::string_view word, std::vector<int32_t>& out) const {
  if (word.size() > kMaxWordBytes) return false;
  const Part& part = parts_[part_of(word)];
  const std::lock_guard lock(part.mutex);
  const auto found = part.words.find(word);
  if (found == part.words.end()) return false;
  out.insert(out.end(), found->second.begin(), found->second.end());
  return true;
}

void WordCache::put(std::string_view word, const int32_t* ids, size_t count) {
  if (word.size() > kMaxWordBytes) return;
  Part& part = parts_[part_of(word)];
  const std::lock_guard lock(part.mutex);
  if (part.words.size() >= kWordsPerPart) part.words.clear();
  part.words.try_emplace(std::string(word), ids, ids + count);
}

size_t WordCache::size() const {
  size_t words = 0;
  for (const Part& part : parts_) {
    const std::lock_guard lock(part.mutex);
    words += part.words.size();
  }
  return words;
}

}  // namespace invar::tokenizer
