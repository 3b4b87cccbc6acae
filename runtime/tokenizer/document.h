// tokenizer.json as data: vocabulary and merges as flat lists, all the rest as a small JSON tree.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace invar::tokenizer {

struct Document {
  struct Entry {
    uint32_t begin, length;
    int64_t id;
  };
  struct Merge {
    uint32_t begin, left, right;  // the left token's bytes are followed by the right one's
  };

  std::string_view text(uint32_t begin, uint32_t length) const { return {characters.data() + begin, length}; }

  nlohmann::json root;  // without model.vocab and model.merges
  std::vector<char> characters;
  std::vector<Entry> vocabulary;
  std::vector<Merge> merges;
  bool has_vocabulary = false;
  bool has_merges = false;
};

// Errors: InvalidArgument for text that is no JSON object, is nested deeper than 64, has a key twice in one object (of two
// readers of such a file each may believe another value), or whose vocabulary and merges are not of the form BPE models
// have. A model.vocab that is no object is left in the tree: whether the model type is supported is said elsewhere.
absl::StatusOr<Document> parse_document(std::string_view json);

}  // namespace invar::tokenizer
