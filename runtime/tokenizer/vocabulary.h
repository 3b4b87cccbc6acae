// The model's tokens by id and by text. Added tokens are kept apart (added_tokens.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/document.h"

namespace invar::tokenizer {

// Largest id a table of `tokens` entries may have: tables are vectors, so one huge id must not cost gigabytes.
inline int64_t largest_id(size_t tokens) { return static_cast<int64_t>(tokens) * 4 + (1 << 20); }

class Vocabulary {
 public:
  static constexpr int32_t kNone = -1;

  // Errors: InvalidArgument for a token or an id that is there twice, an id below 0 or above largest_id.
  static absl::StatusOr<Vocabulary> build(const Document& document);

  int32_t find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? kNone : found->second;
  }
  bool has(int64_t id) const { return id >= 0 && id < size() && texts_[id].data() != nullptr; }
  std::string_view text(int32_t id) const { return has(id) ? texts_[id] : std::string_view(); }
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }  // largest id + 1

 private:
  std::vector<char> characters_;         // what all the views below point into; a vector's buffer stays when it is moved
  std::vector<std::string_view> texts_;  // data() == nullptr: no token has this id
  absl::flat_hash_map<std::string_view, int32_t> ids_;
};

}  // namespace invar::tokenizer
