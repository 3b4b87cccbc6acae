#include "runtime/tokenizer/vocabulary.h"

#include <algorithm>

#include "absl/status/status.h"
#include "runtime/tokenizer/strings.h"

namespace invar::tokenizer {

absl::StatusOr<Vocabulary> Vocabulary::build(const Document& document) {
  const auto refuse = [](std::string_view token, int64_t id, std::string_view why) {
    return absl::InvalidArgumentError(concat("tokenizer.json: model.vocab['", token.substr(0, 80), "']: id ", id, " ", why));
  };
  Vocabulary vocabulary;
  size_t bytes = 1;  // never an empty buffer: the empty token, too, needs a pointer that is not null
  int64_t last = -1;
  for (const auto& entry : document.vocabulary) {
    if (entry.id < 0 || entry.id > largest_id(document.vocabulary.size())) {
      return refuse(document.text(entry.begin, entry.length), entry.id, "is out of range");
    }
    bytes += entry.length;
    last = std::max(last, entry.id);
  }
  vocabulary.characters_.reserve(bytes);
  vocabulary.characters_.push_back('\0');
  vocabulary.texts_.resize(static_cast<size_t>(last + 1));
  vocabulary.ids_.reserve(document.vocabulary.size());
  for (const auto& entry : document.vocabulary) {
    const std::string_view token = document.text(entry.begin, entry.length);
    const char* begin = vocabulary.characters_.data() + vocabulary.characters_.size();
    vocabulary.characters_.insert(vocabulary.characters_.end(), token.begin(), token.end());
    const std::string_view text(begin, token.size());
    if (vocabulary.has(entry.id)) return refuse(token, entry.id, "has another token already");
    vocabulary.texts_[entry.id] = text;
    if (!vocabulary.ids_.emplace(text, static_cast<int32_t>(entry.id)).second) return refuse(token, entry.id, "is its second id");
  }
  return vocabulary;
}

}  // namespace invar::tokenizer
