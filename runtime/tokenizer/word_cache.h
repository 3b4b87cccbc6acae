// Ids of words seen before. Text repeats its words, and merging one costs some twenty times a look-up.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "runtime/tokenizer/strings.h"

namespace invar::tokenizer {

// Bounded: a part that is full is emptied and fills anew with the words of the day. Safe for many threads.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 48;

  // Appends the ids of `word` to `out` if it is here.
  bool find(std::string_view word, std::vector<int32_t>& out) const;
  void put(std::string_view word, const int32_t* ids, size_t count);
  size_t size() const;

  static constexpr size_t kParts = 32;  // one lock each: requests are encoded on many threads
  static constexpr size_t kWordsPerPart = 1024;

 private:
  struct alignas(64) Part {
    mutable std::mutex mutex;
    absl::flat_hash_map<std::string, absl::InlinedVector<int32_t, 4>, TextHash, std::equal_to<>> words;
  };
  static size_t part_of(std::string_view word);
  std::array<Part, kParts> parts_;
};

}  // namespace invar::tokenizer
