#include "runtime/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "runtime/grammar/ebnf.h"
#include "runtime/grammar/json_schema.h"
#include "runtime/grammar/regex.h"
#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

// What one mask may cost, in nanoseconds or so, counted as if nothing were cached: the engine's thread waits for it, and whether
// there is one must not depend on what other answers have left in the caches.
constexpr int64_t kMostWork = 8'500'000;
constexpr int64_t kNodeCost = 9, kTokenCost = 1, kGroupCost = 2500, kExitCost = 20;
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
    case Specification::Kind::kEbnf:
      return ebnf_network(s.text, reach);
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
  if (cached_bytes_ + automaton_.bytes() < kept_bytes_ + most_cached_bytes_) return;
  std::vector<int32_t*> kept;
  for (Matcher* m : matchers_)
    if (m->state_ >= 0) kept.push_back(&m->state_);
  automaton_.keep_only(kept);
  frames_.clear();
  masks_.clear();
  cached_bytes_ = 0;
  kept_bytes_ = automaton_.bytes();
}

// Allows the tokens of the nodes [begin, end) of the trie that can be reached from `state`, which is that of the node they all
// lie below, and calls visit(node, state). Where all that is below a node leads back to its state, all of it is allowed at once
// and not visited; where the text may leave its frame there, only with `skip`. False: too much work.
template <class Visit>
bool Grammar::walk(const TokenTrie& trie, int32_t begin, int32_t end, int32_t state, bool skip, std::vector<uint8_t>* allowed,
                   int64_t* work, const Visit& visit) {
  if (begin == end) return true;
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  by_depth_[nodes[begin].depth - 1] = state;
  for (int32_t i = begin; i < end;) {
    const TokenTrie::Node& node = nodes[i];
    const int32_t from = by_depth_[node.depth - 1];
    *work -= kNodeCost + automaton_.first_cost(from, node.byte);
    if (*work < 0) return false;
    const int32_t next = automaton_.next(from, node.byte);
    if (next == Automaton::kTooComplex) return false;
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    by_depth_[node.depth] = next;
    visit(i, next);
    int32_t behind = automaton_.goes_on(next) ? i + 1 : node.end;
    if ((skip || !automaton_.left(next)) && behind < node.end) {
      int64_t cost = 0;
      if ((node.below & ~automaton_.stays(next, &cost)) == 0) behind = node.end;
      *work -= cost;
    }
    const std::span<const int32_t> tokens =
        behind == node.end && automaton_.goes_on(next) ? trie.tokens_of(i, behind) : trie.tokens_of(i);
    for (const int32_t token : tokens) set(allowed, token);
    *work -= static_cast<int64_t>(tokens.size()) * kTokenCost;
    i = behind;
  }
  return true;
}

const Grammar::Frame& Grammar::frame(const Automaton::Group& group, int64_t most_work) {
  const bool alone = group.outside == Automaton::kDead;
  Frame& f = frames_[int64_t{group.frame} * 2 + (alone ? 1 : 0)];
  if (f.complete || f.work > most_work) return f;
  const TokenTrie& trie = tokens_->trie;
  f.allowed.assign(tokens_->mask_bytes(), 0);
  f.exits.clear();
  automaton_.begin_walk();
  int64_t work = most_work;
  f.complete = walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), group.frame, alone, &f.allowed, &work,
                    [&](int32_t node, int32_t at) {
                      if (!alone && automaton_.left(at) && trie.nodes()[node].end > node + 1) f.exits.push_back(node);
                    });
  f.work = f.complete ? most_work - work : most_work + 1;
  if (!f.complete) f.allowed = {}, f.exits = {};
  cached_bytes_ += f.allowed.size() + f.exits.size() * 4 + 100;
  return f;
}

bool Grammar::compute(int32_t state, bool first, std::vector<uint8_t>* allowed) {
  int64_t work = kMostWork;
  const auto nothing = [](int32_t, int32_t) {};
  if (first) {
    const TokenTrie& trie = tokens_->first_trie;
    automaton_.begin_walk();
    return walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), state, true, allowed, &work, nothing);
  }
  const TokenTrie& trie = tokens_->trie;
  int64_t cost = 0;
  const std::vector<Automaton::Group> groups = automaton_.groups(state, &cost, work);
  if ((work -= cost) < 0) return false;
  std::vector<const Frame*> frames;
  for (const Automaton::Group& g : groups) {
    if (g.outside == Automaton::kTooComplex || g.frame < 0) return false;
    const Frame& f = frame(g, work);
    if ((work -= f.work + kGroupCost) < 0 || !f.complete) return false;
    if (std::find(frames.begin(), frames.end(), &f) == frames.end())
      for (size_t i = 0; i < f.allowed.size(); ++i) (*allowed)[i] |= f.allowed[i];
    frames.push_back(&f);
  }
  automaton_.begin_walk();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].outside == Automaton::kDead) continue;
    for (const int32_t exit : frames[i]->exits)
      if ((work -= kExitCost) < 0 ||
          !walk(trie, exit + 1, trie.nodes()[exit].end, groups[i].outside, true, allowed, &work, nothing))
        return false;
  }
  const TokenTrie& rest = tokens_->long_trie;
  return walk(rest, 0, static_cast<int32_t>(rest.nodes().size()), state, true, allowed, &work, nothing);
}

Matcher::Matcher(std::shared_ptr<Grammar> grammar) : grammar_(std::move(grammar)) {
  std::lock_guard lock(grammar_->mutex_);
  grammar_->matchers_.insert(this);
  state_ = grammar_->automaton_.start();
}

Matcher::Matcher(const Matcher& other) : grammar_(other.grammar_), any_(other.any_), ended_(other.ended_) {
  std::lock_guard lock(grammar_->mutex_);
  grammar_->matchers_.insert(this);
  state_ = other.state_;
}

Matcher& Matcher::operator=(const Matcher& other) {
  if (this == &other) return *this;
  {
    std::lock_guard lock(grammar_->mutex_);
    grammar_->matchers_.erase(this);
  }
  grammar_ = other.grammar_;
  any_ = other.any_;
  ended_ = other.ended_;
  std::lock_guard lock(grammar_->mutex_);
  grammar_->matchers_.insert(this);
  state_ = other.state_;
  return *this;
}

Matcher::~Matcher() {
  std::lock_guard lock(grammar_->mutex_);
  grammar_->matchers_.erase(this);
}

bool Matcher::accept(int32_t token) {
  const TokenTexts& tokens = grammar_->tokens();
  if (ended_ || token < 0 || token >= tokens.vocab_size()) return false;
  std::lock_guard lock(grammar_->mutex_);
  if (state_ < 0) return false;
  Automaton& automaton = grammar_->automaton_;
  if (std::find(tokens.end_tokens.begin(), tokens.end_tokens.end(), token) != tokens.end_tokens.end())
    return ended_ = automaton.accepts(state_);
  const std::string& text = tokens.text(token, !any_);
  if (text.empty()) return false;
  int32_t to = state_;
  for (const char c : text) {
    to = automaton.next(to, static_cast<uint8_t>(c));
    if (to < 0) return false;
  }
  any_ = true;
  state_ = to;
  return true;
}

bool Matcher::may_end() {
  std::lock_guard lock(grammar_->mutex_);
  return ended_ || (state_ >= 0 && grammar_->automaton_.accepts(state_));
}

bool Matcher::must_end() {
  std::lock_guard lock(grammar_->mutex_);
  return ended_ || (state_ >= 0 && grammar_->automaton_.accepts(state_) && !grammar_->automaton_.goes_on(state_));
}

absl::StatusOr<TokenMask> Matcher::mask(bool end_tokens) {
  Grammar& g = *grammar_;
  const bool first = !any_ && !g.tokens_->first_texts.empty();
  std::lock_guard lock(g.mutex_);
  g.make_room();
  const auto too_complex = [] { return absl::ResourceExhaustedError("too many ways to go on: the constraint is too complex"); };
  if (state_ == Automaton::kTooComplex) return too_complex();
  if (ended_) return std::make_shared<const std::vector<uint8_t>>(g.tokens_->mask_bytes());
  const bool ends = end_tokens && state_ >= 0 && g.automaton_.accepts(state_);
  const auto [cached, added] = g.masks_.try_emplace(int64_t{state_} * 4 + (first ? 2 : 0) + (ends ? 1 : 0));
  if (added) {
    std::vector<uint8_t> allowed(g.tokens_->mask_bytes());
    if (state_ < 0 || (g.automaton_.held(state_) <= Automaton::kMostHeld && g.compute(state_, first, &allowed))) {
      if (ends)
        for (const int32_t id : g.tokens_->end_tokens) set(&allowed, id);
      cached->second = std::make_shared<const std::vector<uint8_t>>(std::move(allowed));
    }
  }
  if (!cached->second) return too_complex();
  return cached->second;
}

}  // namespace invar::grammar
