#include "runtime/grammar/token_trie.h"

#include <algorithm>
#include <numeric>

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
      nodes_.push_back({0, static_cast<int32_t>(tokens_.size()), static_cast<uint16_t>(i + 1), static_cast<uint8_t>(text[i])});
    }
    tokens_.push_back(id);
    last = text;
  }
  for (const int32_t node : path) nodes_[node].end = static_cast<int32_t>(nodes_.size());
  nodes_.push_back({static_cast<int32_t>(nodes_.size()) + 1, static_cast<int32_t>(tokens_.size()), 0, 0});
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
