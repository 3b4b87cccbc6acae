#include "runtime/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "runtime/grammar/json_schema.h"
#include "runtime/grammar/regex.h"
#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

// What one mask may cost, counted in a way that does not depend on what is cached: nodes of the trie, each weighted by the number
// of places of its state, and states met. A free JSON string over 150,000 tokens visits half a million nodes and a dozen states.
constexpr int64_t kMostWork = 4'000'000;
constexpr int64_t kMostStates = 20'000;
constexpr size_t kMostChoices = 10'000;

void set(std::vector<uint8_t>* mask, int32_t token) { (*mask)[token / 8] |= static_cast<uint8_t>(1 << token % 8); }

absl::StatusOr<Network> network_of(const Specification& s, int64_t reach) {
  NetworkBuilder b(reach);
  switch (s.kind) {
    case Specification::Kind::kJsonSchema:
      return json_schema_network(s.text, reach);
    case Specification::Kind::kJsonObject:
      return json_object_network(reach);
    case Specification::Kind::kRegex: {
      absl::StatusOr<Regex> regex = parse_regex(s.text);
      if (!regex.ok()) return regex.status();
      const int32_t root = b.rule();
      add_regex(b, Utf8Spelling(), *regex, /*search=*/false, b.start(root), b.end(root));
      return b.build(root);
    }
    case Specification::Kind::kChoice:
      break;
  }
  if (s.choices.empty()) return absl::InvalidArgumentError("has no choices");
  if (s.choices.size() > kMostChoices)
    return absl::InvalidArgumentError(message("has ", s.choices.size(), " choices, at most ", kMostChoices, " are allowed"));
  for (size_t i = 0; i < s.choices.size(); ++i) {
    if (s.choices[i].empty()) return absl::InvalidArgumentError(message("choice ", i, " is empty"));
    if (const size_t at = tokenizer::first_invalid_utf8(s.choices[i]); at != std::string::npos)
      return absl::InvalidArgumentError(message("choice ", i, " is not valid UTF-8 at byte ", at));
  }
  const int32_t root = b.rule();
  b.literals(b.start(root), s.choices, b.end(root));
  return b.build(root);
}

}  // namespace

absl::StatusOr<std::shared_ptr<Grammar>> Grammar::compile(const Specification& specification,
                                                          std::shared_ptr<const TokenTexts> tokens, size_t most_cached_bytes) {
  size_t size = specification.text.size();
  for (const std::string& choice : specification.choices) size += choice.size();
  if (size > kMostSpecificationBytes)
    return absl::InvalidArgumentError(message("has ", size, " bytes, at most ", kMostSpecificationBytes, " are allowed"));
  absl::StatusOr<Network> network = network_of(specification, tokens->trie.longest());
  if (!network.ok()) return network.status();
  return std::shared_ptr<Grammar>(new Grammar(*std::move(network), std::move(tokens), most_cached_bytes));
}

Grammar::Grammar(Network network, std::shared_ptr<const TokenTexts> tokens, size_t most_cached_bytes)
    : network_(std::move(network)),
      tokens_(std::move(tokens)),
      most_cached_bytes_(most_cached_bytes),
      automaton_(network_),
      by_depth_(tokens_->longest() + 1) {}

void Grammar::make_room() {
  // Whole masks are cheap to make anew from frames, and a long counted string has one for each count: they go first.
  if (masks_.size() * tokens_->mask_bytes() > most_cached_bytes_ / 3) masks_.clear();
  if (cached_bytes_ + automaton_.bytes() < most_cached_bytes_) return;
  automaton_.clear();
  frames_.clear();
  masks_.clear();
  visited_.clear();
  cached_bytes_ = 0;
  ++life_;
}

int32_t Grammar::read(int32_t state, std::string_view text) {
  for (const char c : text) {
    if (state < 0) return state;
    state = automaton_.next(state, static_cast<uint8_t>(c));
  }
  return state;
}

// Calls visit(node, state) for the nodes [begin, end) of the trie that can be reached from `state`, which is that of the node
// they all lie below. False: too much work.
template <class Visit>
bool Grammar::walk(const TokenTrie& trie, int32_t begin, int32_t end, int32_t state, const Visit& visit) {
  if (begin == end) return true;
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  by_depth_[nodes[begin].depth - 1] = state;
  for (int32_t i = begin; i < end;) {
    const TokenTrie::Node& node = nodes[i];
    const int32_t next = automaton_.next(by_depth_[node.depth - 1], node.byte);
    if (next == Automaton::kTooComplex) return false;
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    by_depth_[node.depth] = next;
    if (!visit(i, next)) return false;
    i = automaton_.goes_on(next) ? i + 1 : node.end;
  }
  return true;
}

const Grammar::Frame& Grammar::frame(int32_t state) {
  const auto [found, added] = frames_.try_emplace(state);
  Frame& f = found->second;
  if (!added) return f;
  const TokenTrie& trie = tokens_->trie;
  f.allowed.resize(tokens_->mask_bytes());
  int64_t work = 0, states = 0;
  ++walks_;
  f.too_complex = !walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), state, [&](int32_t node, int32_t at) {
    for (const int32_t token : trie.tokens_of(node)) set(&f.allowed, token);
    if (automaton_.left(at) && trie.nodes()[node].end > node + 1) f.exits.push_back(node);
    if (visited_.size() <= static_cast<size_t>(at)) visited_.resize(2 * static_cast<size_t>(at) + 64);
    const auto size = static_cast<int64_t>(automaton_.size(at));
    if (std::exchange(visited_[at], walks_) != walks_) states += 1 + size / 16;
    return (work += 1 + size / 8) <= kMostWork && states <= kMostStates;
  });
  cached_bytes_ += f.allowed.size() + f.exits.size() * 4 + 100;
  return f;
}

bool Grammar::compute(int32_t state, bool first, std::vector<uint8_t>* allowed) {
  int64_t work = 0;
  const auto take = [&](const TokenTrie& trie) {
    return [&, this](int32_t node, int32_t at) {
      for (const int32_t token : trie.tokens_of(node)) set(allowed, token);
      return (work += 1 + static_cast<int64_t>(automaton_.size(at)) / 8) <= kMostWork;
    };
  };
  if (first) {
    const TokenTrie& trie = tokens_->first_trie;
    return walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), state, take(trie));
  }
  const TokenTrie& trie = tokens_->trie;
  for (const Automaton::Group& g : automaton_.groups(state)) {
    if (g.outside == Automaton::kTooComplex || g.frame < 0) return false;
    const Frame& f = frame(g.frame);
    if (f.too_complex) return false;
    for (size_t i = 0; i < f.allowed.size(); ++i) (*allowed)[i] |= f.allowed[i];
    if (g.outside == Automaton::kDead) continue;
    for (const int32_t exit : f.exits)
      if (!walk(trie, exit + 1, trie.nodes()[exit].end, g.outside, take(trie))) return false;
  }
  const TokenTrie& rest = tokens_->long_trie;
  return walk(rest, 0, static_cast<int32_t>(rest.nodes().size()), state, take(rest));
}

int32_t Matcher::state() {
  if (life_ != grammar_->life_) {
    state_ = grammar_->read(grammar_->automaton_.start(), text_);
    life_ = grammar_->life_;
  }
  return state_;
}

bool Matcher::accept(int32_t token) {
  const TokenTexts& tokens = grammar_->tokens();
  if (ended_ || token < 0 || token >= tokens.vocab_size()) return false;
  std::lock_guard lock(grammar_->mutex_);
  const int32_t from = state();
  if (from < 0) return false;
  if (std::find(tokens.end_tokens.begin(), tokens.end_tokens.end(), token) != tokens.end_tokens.end())
    return ended_ = grammar_->automaton_.accepts(from);
  const std::string& text = tokens.text(token, !any_);
  if (text.empty()) return false;
  const int32_t to = grammar_->read(from, text);
  if (to < 0) return false;
  text_ += text;
  any_ = true;
  state_ = to;
  return true;
}

bool Matcher::may_end() {
  std::lock_guard lock(grammar_->mutex_);
  const int32_t at = state();
  return ended_ || (at >= 0 && grammar_->automaton_.accepts(at));
}

bool Matcher::must_end() {
  std::lock_guard lock(grammar_->mutex_);
  const int32_t at = state();
  return ended_ || (at >= 0 && grammar_->automaton_.accepts(at) && !grammar_->automaton_.goes_on(at));
}

absl::StatusOr<TokenMask> Matcher::mask(bool end_tokens) {
  Grammar& g = *grammar_;
  const bool first = !any_ && !g.tokens_->first_texts.empty();
  std::lock_guard lock(g.mutex_);
  g.make_room();
  const int32_t at = state();
  const auto too_complex = [] { return absl::ResourceExhaustedError("too many ways to go on: the constraint is too complex"); };
  if (at == Automaton::kTooComplex) return too_complex();
  if (ended_) return std::make_shared<const std::vector<uint8_t>>(g.tokens_->mask_bytes());
  const bool ends = end_tokens && at >= 0 && g.automaton_.accepts(at);
  const auto [cached, added] = g.masks_.try_emplace(int64_t{at} * 4 + (first ? 2 : 0) + (ends ? 1 : 0));
  if (added) {
    std::vector<uint8_t> allowed(g.tokens_->mask_bytes());
    if (at < 0 || g.compute(at, first, &allowed)) {
      if (ends)
        for (const int32_t id : g.tokens_->end_tokens) set(&allowed, id);
      cached->second = std::make_shared<const std::vector<uint8_t>>(std::move(allowed));
    }
  }
  if (!cached->second) return too_complex();
  return cached->second;
}

}  // namespace invar::grammar
