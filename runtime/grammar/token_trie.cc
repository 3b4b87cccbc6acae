#include "runtime/grammar/token_trie.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

// Longer ones are never taken: a mask without them is still sound, and no model lives from them.
constexpr size_t kLongestToken = 4096;

std::vector<std::string> without_long(std::vector<std::string> texts) {
  for (std::string& text : texts)
    if (text.size() > kLongestToken) text.clear();
  return texts;
}

}  // namespace

TokenTrie::TokenTrie(std::span<const std::string> texts, size_t shortest, size_t longest) {
  std::vector<int32_t> order;
  for (size_t id = 0; id < texts.size(); ++id)
    if (!texts[id].empty() && texts[id].size() >= shortest && texts[id].size() <= longest)
      order.push_back(static_cast<int32_t>(id));
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const int c = texts[a].compare(texts[b]);
    return c != 0 ? c < 0 : a < b;
  });
  std::vector<int32_t> path;  // nodes from the root down to the last text
  std::string_view last;
  for (const int32_t id : order) {
    const std::string_view text = texts[id];
    longest_ = std::max(longest_, static_cast<int64_t>(text.size()));
    const size_t shared =
        std::mismatch(last.begin(), last.begin() + static_cast<int64_t>(std::min(last.size(), text.size())), text.begin())
            .second -
        text.begin();
    while (path.size() > shared) {
      nodes_[path.back()].end = static_cast<int32_t>(nodes_.size());
      path.pop_back();
    }
    for (size_t i = shared; i < text.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<int32_t>(tokens_.size()), static_cast<uint16_t>(i + 1), static_cast<uint8_t>(text[i]), 0});
    }
    tokens_.push_back(id);
    last = text;
  }
  for (const int32_t node : path) nodes_[node].end = static_cast<int32_t>(nodes_.size());
  nodes_.push_back({static_cast<int32_t>(nodes_.size()) + 1, static_cast<int32_t>(tokens_.size()), 0, 0, 0});
  find_below();
}

uint64_t TokenTrie::kind_of(uint8_t c) {
  static const std::array<uint64_t, 128> kinds = [] {
    std::array<uint64_t, 128> out{};
    int bits = 0;
    const auto together = [&](int first, int last) {
      bool any = false;
      for (int i = first; i <= last; ++i) {
        if (out[i] != 0) continue;
        out[i] = uint64_t{1} << bits;
        any = true;
      }
      bits += any ? 1 : 0;
    };
    for (const char alone : {'\t', '\n', '\r'}) together(alone, alone);
    together(0, 0x1f);
    for (const auto& [first, last] : {std::pair('0', '9'), {'a', 'f'}, {'g', 'z'}, {'A', 'F'}, {'G', 'Z'}}) together(first, last);
    for (int i = 0x20; i < 128; ++i) together(i, i);
    return out;
  }();
  return kinds[c];
}

// A node within a character, or behind bytes that are none, has kBroken: what is below it is not the same behind every character.
void TokenTrie::find_below() {
  const auto count = static_cast<int32_t>(nodes_.size()) - 1;
  struct Place {
    int32_t node;
    std::string begun;  // of a character
  };
  std::vector<Place> path;
  std::vector<int32_t> parent(count, -1);
  std::vector<uint64_t> kind(count);
  std::vector<bool> whole(count);
  for (int32_t i = 0; i < count; ++i) {
    path.resize(nodes_[i].depth - 1);
    std::string begun;
    kind[i] = kCharacters;
    if (!path.empty()) {
      parent[i] = path.back().node;
      begun = path.back().begun;
      kind[i] |= kind[parent[i]] & kBroken;
    }
    begun += static_cast<char>(nodes_[i].byte);
    std::string rest = begun, read;
    tokenizer::drain_lossy(rest, /*last=*/false, read);
    if (!read.empty() && read != begun) kind[i] |= kBroken;
    whole[i] = rest.empty() && (kind[i] & kBroken) == 0;
    if (begun.size() == 1 && nodes_[i].byte < 128) kind[i] = kind_of(nodes_[i].byte) | (kind[i] & kBroken);
    path.push_back({i, std::move(rest)});
  }
  for (int32_t i = count; i-- > 0;)
    if (parent[i] >= 0) nodes_[parent[i]].below |= kind[i] | nodes_[i].below;
  for (int32_t i = 0; i < count; ++i)
    if (!whole[i]) nodes_[i].below |= kBroken;
}

TokenTexts::TokenTexts(std::vector<std::string> t, std::vector<std::string> f, std::vector<int32_t> e)
    : texts(without_long(std::move(t))),
      first_texts(without_long(std::move(f))),
      end_tokens(std::move(e)),
      trie(texts, 1, kShort),
      long_trie(texts, kShort + 1),
      first_trie(first_texts) {}

absl::StatusOr<std::shared_ptr<const TokenTexts>> TokenTexts::of(const Tokenizer& tokenizer, int64_t vocab_size,
                                                                 std::span<const int32_t> end_tokens) {
  std::vector<std::string> texts(vocab_size);
  const auto known = static_cast<int32_t>(std::min<int64_t>(vocab_size, tokenizer.vocab_size()));
  std::vector<int32_t> ends(end_tokens.begin(), end_tokens.end());
  std::erase_if(ends, [&](int32_t id) { return id < 0 || id >= vocab_size; });
  for (int32_t id = 0; id < known; ++id)
    if (!tokenizer.is_special(id) && std::find(ends.begin(), ends.end(), id) == ends.end()) texts[id] = tokenizer.token_bytes(id);
  // Some decoders drop the space before the first word, and some put one between all tokens.
  std::vector<std::string> first = texts;
  bool differs = false, probed = false;
  for (int32_t id = 0; id < known; ++id) {
    if (texts[id].empty() || tokenizer::first_invalid_utf8(texts[id]) != std::string::npos) continue;
    if (!probed && texts[id][0] > ' ' && texts[id].size() > 1) {
      const int32_t twice[] = {id, id};
      if (tokenizer.decode(twice, false) != texts[id] + texts[id])
        return absl::UnimplementedError(
            "this model's tokenizer puts text between tokens: structured output is not implemented for it");
      probed = true;
    }
    if (texts[id][0] != ' ') continue;
    first[id] = tokenizer.decode({&id, 1}, false);
    differs |= first[id] != texts[id];
  }
  if (!differs) first.clear();
  return std::make_shared<const TokenTexts>(std::move(texts), std::move(first), std::move(ends));
}

}  // namespace invar::grammar
