// For tests: a small vocabulary, a real one where it is there, and walks through grammars.
#pragma once

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "runtime/grammar/grammar.h"

namespace invar::grammar {

// Every byte, the last token ends the text, and pieces as a tokenizer would have them: some cut through JSON's punctuation, some
// through characters.
inline std::shared_ptr<const TokenTexts> sample_tokens() {
  static const auto* const all = [] {
    std::vector<std::string> texts;
    for (int b = 0; b < 256; ++b) texts.push_back(std::string(1, static_cast<char>(b)));
    const std::string corpus =
        "{\"name\": \"Ada\", \"age\": 36, \"tags\": [\"a\", \"b\"], \"ok\": true, \"none\": null}, {\n  \"x\": -12.5e-3,\n    "
        "\"y\": [[1,2],[3]]\n}\n"
        "false, \"\\n\\u00e9\\\"\", 0.125, 2024-02-29T12:30:00Z, a1b2c3d4-0000, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 "
        "na\xc3\xafve, yes no maybe hello world 12345 ab aab abab";
    std::mt19937 rng(1);
    for (int i = 0; i < 1500; ++i) {
      const size_t length = 2 + rng() % (i % 10 == 0 ? 45 : 6), at = rng() % (corpus.size() - length);
      texts.push_back(corpus.substr(at, length));
    }
    texts.emplace_back();  // a hole
    texts.emplace_back();
    const auto end = static_cast<int32_t>(texts.size()) - 1;
    return new std::shared_ptr<const TokenTexts>(
        std::make_shared<const TokenTexts>(std::move(texts), std::vector<std::string>(), std::vector<int32_t>{end}));
  }();
  return *all;
}

// Of Qwen3, from the shared material; null where that, or xz, is not there.
inline std::shared_ptr<const TokenTexts> real_tokens() {
  static const auto* const all = [] {
    auto* out = new std::shared_ptr<const TokenTexts>();
    const std::filesystem::path file =
        std::filesystem::path(INVAR_SOURCE_DIR) / ".." / "shared" / "tokenizers" / "qwen3" / "tokenizer.json.xz";
    std::string text;
    FILE* pipe = popen(("xz -dc '" + file.string() + "' 2>/dev/null").c_str(), "r");
    char buffer[1 << 16];
    for (size_t n; pipe && (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    if (pipe) pclose(pipe);
    const auto tokenizer = Tokenizer::parse(text);
    if (!tokenizer.ok()) return out;
    const int32_t end = (*tokenizer)->id_of("<|im_end|>").value_or(-1);
    const auto tokens = TokenTexts::of(**tokenizer, 151936, {&end, 1});
    if (tokens.ok()) *out = *tokens;
    return out;
  }();
  return *all;
}

inline Specification regex_of(std::string text) {
  return {.kind = Specification::Kind::kRegex, .text = std::move(text), .choices = {}};
}
inline Specification schema_of(std::string text) {
  return {.kind = Specification::Kind::kJsonSchema, .text = std::move(text), .choices = {}};
}

inline Specification ebnf_of(std::string text) {
  return {.kind = Specification::Kind::kEbnf, .text = std::move(text), .choices = {}};
}

inline bool token_allowed(const std::vector<uint8_t>& mask, int32_t token) { return mask[token / 8] >> token % 8 & 1; }

inline std::vector<int32_t> allowed_ids(const std::vector<uint8_t>& mask) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < mask.size(); ++i)
    for (int bit = 0; mask[i] >> bit; ++bit)
      if (mask[i] >> bit & 1) ids.push_back(static_cast<int32_t>(i) * 8 + bit);
  return ids;
}

// A text cut into tokens at random. Bytes are always tokens, so any text can be.
inline std::vector<int32_t> random_cut(const TokenTexts& tokens, std::string_view text, std::mt19937* rng) {
  std::vector<int32_t> out;
  for (size_t at = 0; at < text.size();) {
    std::vector<int32_t> fits;
    const std::span<const TokenTrie::Node> nodes = tokens.trie.nodes();
    int32_t begin = 0, end = static_cast<int32_t>(nodes.size());
    for (size_t i = at; i < text.size() && begin < end;) {
      const TokenTrie::Node& n = nodes[begin];
      if (n.byte != static_cast<uint8_t>(text[i])) {
        begin = n.end;
        continue;
      }
      for (const int32_t t : tokens.trie.tokens_of(begin)) fits.push_back(t);
      end = n.end;
      ++begin;
      ++i;
    }
    if (fits.empty()) return {};
    out.push_back(fits[(*rng)() % fits.size()]);
    at += tokens.texts[out.back()].size();
  }
  return out;
}

// "" if every token of the text may be taken and the text may end; otherwise where it is refused.
inline std::string refusal(const std::shared_ptr<Grammar>& grammar, std::string_view text, std::mt19937* rng) {
  Matcher m(grammar);
  std::string taken;
  for (const int32_t token : random_cut(grammar->tokens(), text, rng)) {
    const auto mask = m.mask(true);
    if (!mask.ok()) return std::string(mask.status().message());
    const std::string& bytes = grammar->tokens().texts[token];
    if (!token_allowed(**mask, token)) return "the mask forbids \"" + bytes + "\" after \"" + taken + "\"";
    if (!m.accept(token)) return "accept() refuses \"" + bytes + "\" after \"" + taken + "\"";
    taken += bytes;
  }
  if (taken != text) return "cannot be cut into tokens";
  return m.may_end() ? "" : "may not end after \"" + taken + "\"";
}

// Draws allowed tokens until the text ends; nothing if it does not within `most` tokens. Impatient: rather ends than not, and
// after some tokens takes what closes.
inline std::optional<std::string> random_text(const std::shared_ptr<Grammar>& grammar, std::mt19937* rng, int most = 600) {
  Matcher m(grammar);
  const TokenTexts& tokens = grammar->tokens();
  std::string text;
  for (int i = 0; i < most; ++i) {
    const auto mask = m.mask(true);
    if (!mask.ok()) return std::nullopt;
    const std::vector<int32_t> ids = allowed_ids(**mask);
    if (ids.empty()) return std::nullopt;
    int32_t token = ids[(*rng)() % ids.size()];
    if (m.may_end() && (*rng)() % 3 == 0) token = tokens.end_tokens[0];
    if (i > 20) {
      for (const char* closing : {"\"", "}", "]", ":", ",", "0", "e"})
        for (const int32_t id : ids)
          if (tokens.texts[id] == closing && (*rng)() % 2) token = id;
      if (m.may_end()) token = tokens.end_tokens[0];
    }
    if (!m.accept(token)) return "the mask allows what accept() refuses: \"" + tokens.texts[token] + "\" after \"" + text + "\"";
    if (token == tokens.end_tokens[0]) return text;
    text += tokens.texts[token];
  }
  return std::nullopt;
}

// The mask asked token by token, without caches and frames.
inline std::vector<uint8_t> plain_mask(const Matcher& m, const TokenTexts& tokens) {
  std::vector<uint8_t> mask(tokens.mask_bytes());
  for (int32_t id = 0; id < tokens.vocab_size(); ++id) {
    Matcher copy = m;
    if (copy.accept(id)) mask[id / 8] |= static_cast<uint8_t>(1 << id % 8);
  }
  return mask;
}

}  // namespace invar::grammar
