// The bytes of all tokens of a vocabulary as a tree, in the order in which it is walked.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar::grammar {

// Immutable.
class TokenTrie {
 public:
  // texts[id] = the bytes of a token; it is there if they are at least `shortest` and at most `longest`. Empty ones never are.
  explicit TokenTrie(std::span<const std::string> texts, size_t shortest = 1, size_t longest = SIZE_MAX);

  // Kinds of characters, as bits of a set. ASCII: a bit each, or one for a range of them. kCharacters: characters of several
  // bytes, whole but for the last. kBroken: bytes that are no characters, or that begin within one.
  static constexpr uint64_t kCharacters = uint64_t{1} << 63, kBroken = uint64_t{1} << 62;
  static uint64_t kind_of(uint8_t ascii);

  // Nodes in depth-first order; the root is no node. Children of the root have depth 1.
  struct Node {
    int32_t end;          // behind the last node below it
    int32_t first_token;  // its tokens: tokens()[first_token .. next node's first_token)
    uint16_t depth;
    uint8_t byte;
    uint64_t below;  // kinds of the characters on all ways down from here
  };
  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  std::span<const int32_t> tokens_of(int32_t node) const {
    return {tokens_.data() + nodes_[node].first_token,
            static_cast<size_t>(nodes_[node + 1].first_token - nodes_[node].first_token)};
  }
  // Those of the nodes [begin, end).
  std::span<const int32_t> tokens_of(int32_t begin, int32_t end) const {
    return {tokens_.data() + nodes_[begin].first_token, static_cast<size_t>(nodes_[end].first_token - nodes_[begin].first_token)};
  }
  int64_t longest() const { return longest_; }  // bytes of a token

 private:
  void find_below();

  std::vector<Node> nodes_;  // and one behind the last
  std::vector<int32_t> tokens_;
  int64_t longest_ = 0;
};

// What a vocabulary can spell. Immutable.
struct TokenTexts {
  std::vector<std::string> texts;        // by id, the model's vocab_size of them; empty = holes, special tokens, padding
  std::vector<std::string> first_texts;  // of the first token of an answer; empty = the same
  std::vector<int32_t> end_tokens;       // may be drawn where the text may end, and mean that it does
  // Few tokens are long, and they are kept apart: what a walk over the others finds holds for more states (Network::alike).
  static constexpr size_t kShort = 24;
  TokenTrie trie;        // of those with up to kShort bytes
  TokenTrie long_trie;   // of the others
  TokenTrie first_trie;  // of all; empty where first_texts is

  TokenTexts(std::vector<std::string> texts, std::vector<std::string> first_texts, std::vector<int32_t> end_tokens);
  int64_t vocab_size() const { return static_cast<int64_t>(texts.size()); }
  int64_t longest() const { return std::max({trie.longest(), long_trie.longest(), first_trie.longest()}); }
  size_t mask_bytes() const { return (texts.size() + 7) / 8; }
  const std::string& text(int32_t id, bool first) const { return first && !first_texts.empty() ? first_texts[id] : texts[id]; }

  // Unimplemented for a tokenizer whose decoder puts text between tokens: then the text of an answer is not that of its tokens.
  static absl::StatusOr<std::shared_ptr<const TokenTexts>> of(const Tokenizer& tokenizer, int64_t vocab_size,
                                                              std::span<const int32_t> end_tokens);
};

}  // namespace invar::grammar
