#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>

#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr size_t kMaxContent = 1024;  // bytes; bounds the look-ahead at each place of the text

}  // namespace

void AddedTokens::Trie::add(std::string_view text, size_t token) {
  if (text.empty()) return;
  first_[static_cast<unsigned char>(text[0])] = true;
  size_t node = 0;
  for (const char c : text) {
    const auto [child, is_new] = children_.try_emplace(edge(node, c), tokens_.size());
    if (is_new) tokens_.push_back(kNoToken);
    node = child->second;
  }
  if (tokens_[node] == kNoToken) tokens_[node] = token;
}

std::optional<size_t> AddedTokens::Trie::longest(std::string_view text, size_t at, size_t& end) const {
  std::optional<size_t> best;
  size_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto child = children_.find(edge(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (tokens_[node] != kNoToken) {
      best = tokens_[node];
      end = i + 1;
    }
  }
  return best;
}

absl::StatusOr<AddedTokens> AddedTokens::read(const Fields& root, const Vocabulary& vocabulary, const Normalizer& normalizer) {
  AddedTokens added;
  if (!root.present("added_tokens")) return added;
  const std::vector<Fields> list = root.list("added_tokens");
  const int64_t largest = largest_id(static_cast<size_t>(vocabulary.size()) + list.size());
  std::vector<bool> is_normalized;
  for (const Fields& field : list) {
    field.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    Token token;
    token.content = field.text("content");
    token.id = static_cast<int32_t>(field.integer("id", 0, largest));
    token.single_word = field.flag("single_word", false);
    token.left_strip = field.flag("lstrip", false);
    token.right_strip = field.flag("rstrip", false);
    token.special = field.flag("special", false);
    is_normalized.push_back(field.flag("normalized", !token.special));
    if (field.ok() && token.content.empty()) field.fail("content", "is empty");
    if (token.content.size() > kMaxContent)
      field.fail("content", concat(token.content.size(), " bytes are more than ", kMaxContent));
    if (const int32_t id = vocabulary.find(token.content); id != Vocabulary::kNone && id != token.id) {
      field.fail("id", concat(token.id, " but model.vocab says ", id, " for '", token.content, "'"));
    } else if (id == Vocabulary::kNone && vocabulary.has(token.id)) {
      field.fail("id", concat(token.id, " is '", vocabulary.text(token.id).substr(0, 80), "' in model.vocab, not '",
                              token.content, "'"));
    }
    if (!added.by_id_.emplace(token.id, added.tokens_.size()).second) field.fail("id", concat(token.id, " is there twice"));
    if (!added.by_content_.emplace(token.content, added.tokens_.size()).second)
      field.fail("content", concat("'", token.content, "' is there twice"));
    if (!field.ok()) return field.error();
    added.size_ = std::max(added.size_, token.id + 1);
    added.tokens_.push_back(std::move(token));
  }
  // Two tokens may become one by normalizing. Then the special one is found, as in Hugging Face, or else the earlier.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < added.tokens_.size(); ++i) {
      const Token& token = added.tokens_[i];
      if (token.special != special) continue;
      if (!is_normalized[i]) {
        added.raw_.add(token.content, i);
        continue;
      }
      auto content = normalizer.apply(token.content, MatchBudget(token.content.size()));
      if (!content.ok()) return content.status();
      if (content->size() > kMaxContent) list[i].fail("content", concat("normalized it is longer than ", kMaxContent, " bytes"));
      if (!root.ok()) return root.error();
      added.normalized_.add(*content, i);
    }
  }
  return added;
}

void AddedTokens::split(std::string_view text, bool normalized, std::vector<Segment>& out) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  size_t covered = 0;  // text before this is in `out`
  const auto put = [&](size_t begin, size_t end, int32_t id) {
    out.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end), id});
  };
  for (size_t at = 0; at < text.size();) {
    size_t begin = at, end = 0;
    const auto found = trie.begins(text[at]) ? trie.longest(text, at, end) : std::nullopt;
    if (!found) {
      ++at;
      continue;
    }
    const Token& token = tokens_[*found];
    at = end;
    if (token.single_word && ((begin > 0 && is_word(code_point_before(text, begin).value)) ||
                              (end < text.size() && is_word(code_point_at(text, end).value)))) {
      continue;
    }
    while (token.left_strip && begin > covered && is_white_space(code_point_before(text, begin).value)) {
      begin -= code_point_before(text, begin).length;
    }
    while (token.right_strip && end < text.size() && is_white_space(code_point_at(text, end).value)) {
      end += code_point_at(text, end).length;
    }
    // A token of white space may lie in what the one before it stripped, and is gone then.
    if (token.left_strip && begin < covered) begin = covered;
    if (begin >= end) continue;
    if (covered < begin) put(covered, begin, Vocabulary::kNone);
    put(begin, end, token.id);
    covered = end;
  }
  if (covered < text.size()) put(covered, text.size(), Vocabulary::kNone);
}

const AddedTokens::Token* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedTokens::Token* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace invar::tokenizer
