// The "added_tokens" of tokenizer.json: tokens that are found in the text before anything is split or merged.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/fields.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/vocabulary.h"

namespace invar::tokenizer {

// A piece of text: an added token, or (id == Vocabulary::kNone) text between them.
struct Segment {
  uint32_t begin, end;
  int32_t id;
};

class AddedTokens {
 public:
  struct Token {
    std::string content;
    int32_t id;
    bool single_word, left_strip, right_strip, special;
  };

  // `root` has the field "added_tokens". Errors: InvalidArgument for an id out of range or used twice, empty or overlong
  // content, and content that the vocabulary has under another id.
  static absl::StatusOr<AddedTokens> read(const Fields& root, const Vocabulary& vocabulary, const Normalizer& normalizer);

  // Cuts `text` into segments. Tokens with "normalized": false are looked for in the text as it came, the others in
  // normalized text; the longest token at the leftmost place is taken.
  void split(std::string_view text, bool normalized, std::vector<Segment>& out) const;

  const Token* find(std::string_view content) const;
  const Token* find(int32_t id) const;
  int32_t size() const { return size_; }  // largest id + 1, 0 without tokens

 private:
  class Trie {
   public:
    void add(std::string_view text, size_t token);
    // The longest token that `text` begins with at `at`, and its end.
    std::optional<size_t> longest(std::string_view text, size_t at, size_t& end) const;
    bool begins(char c) const { return first_[static_cast<unsigned char>(c)]; }

   private:
    static constexpr size_t kNoToken = SIZE_MAX;
    static uint64_t edge(size_t node, char c) { return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(c); }
    std::vector<size_t> tokens_{kNoToken};  // by node; node 0 is the root
    absl::flat_hash_map<uint64_t, size_t> children_;
    bool first_[256] = {};
  };

  std::vector<Token> tokens_;
  absl::flat_hash_map<int32_t, size_t> by_id_;
  absl::flat_hash_map<std::string, size_t, TextHash, std::equal_to<>> by_content_;
  Trie raw_, normalized_;
  int32_t size_ = 0;
};

}  // namespace invar::tokenizer
