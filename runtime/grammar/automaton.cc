#include "runtime/grammar/automaton.h"

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/grammar/token_trie.h"

namespace invar::grammar {

namespace {

// Nanoseconds, seen where nothing is in a cache: of a place that is looked at
// (with calls around it), of an edge, of a state that is made.
constexpr int64_t kPlaceCost = 15, kInnerPlaceCost = 120, kEdgeCost = 2, kStateCost = 500;
// For more than this nobody asks whether a state leads back to itself.
constexpr int64_t kMostStaysCost = 200'000;

}  // namespace

Automaton::Automaton(const Network &network) : network_(network) {
  context({kEnd});
  context({kLeft});
}

void Automaton::keep_only(std::span<int32_t *const> kept) {
  const std::vector<Node> nodes = std::exchange(nodes_, {});
  const std::vector<Context> contexts = std::exchange(contexts_, {});
  const std::vector<State> states = std::exchange(states_, {});
  std::vector<bool> wanted(nodes.size()), wanted_context(contexts.size());
  std::vector<int32_t> todo;
  for (const int32_t *s : kept)
    for (const int32_t place : states[*s].places) todo.push_back(place);
  while (!todo.empty()) {
    const int32_t n = todo.back();
    todo.pop_back();
    if (n < 0 || wanted[n]) continue;
    wanted[n] = true;
    if (wanted_context[nodes[n].around]) continue;
    wanted_context[nodes[n].around] = true;
    for (const int32_t member : contexts[nodes[n].around].members) todo.push_back(member);
  }
  node_of_ = {};
  context_of_ = {};
  alone_ = {};
  whatever_ = {};
  state_of_ = {};
  seen_ = {};
  bytes_ = 0;
  context({kEnd});
  context({kLeft});
  // What is around a node is older than it is, and so are the members of a
  // context; order stays.
  std::vector<int32_t> renamed(nodes.size(), -1), renamed_context(contexts.size(), -1);
  renamed_context[kNothing] = kNothing;
  renamed_context[kWhatever] = kWhatever;
  size_t n = 0;
  const auto rename_nodes = [&](size_t end) {
    for (; n < end; ++n)
      if (wanted[n]) renamed[n] = node(nodes[n].state, renamed_context[nodes[n].around]);
  };
  for (size_t c = kWhatever + 1; c < contexts.size(); ++c) {
    rename_nodes(contexts[c].nodes_before);
    if (!wanted_context[c]) continue;
    std::vector<int32_t> members = contexts[c].members;
    for (int32_t &m : members)
      if (m >= 0) m = renamed[m];
    renamed_context[c] = context(std::move(members));
  }
  rename_nodes(nodes.size());
  for (int32_t *s : kept) {
    const State &old = states[*s];
    for (const int32_t place : old.places) places_.push_back(renamed[place]);
    accepts_ = old.accepts;
    left_ = old.left;
    *s = finish();
  }
}

int64_t Automaton::held(int32_t state) {
  if (states_[state].held >= 0) return states_[state].held;
  ++making_;
  int64_t count = 0;
  std::vector<int32_t> todo = states_[state].places;
  while (!todo.empty() && count <= kMostHeld) {
    const int32_t n = todo.back();
    todo.pop_back();
    if (n < 0 || seen_[n] == making_) continue;
    seen_[n] = making_;
    const std::vector<int32_t> &members = contexts_[nodes_[n].around].members;
    count += static_cast<int64_t>(members.size());
    todo.insert(todo.end(), members.begin(), members.end());
  }
  return states_[state].held = count;
}

int32_t Automaton::context(std::vector<int32_t> members) {
  const auto [found, added] = context_of_.try_emplace(std::move(members), static_cast<int32_t>(contexts_.size()));
  if (added) {
    int32_t depth = 0;
    for (const int32_t m : found->first)
      if (m >= 0) depth = std::max(depth, contexts_[nodes_[m].around].depth + 1);
    contexts_.push_back({found->first, depth, nodes_.size()});
    bytes_ += 150 + found->first.size() * 8;
  }
  return found->second;
}

int32_t Automaton::node(int32_t state, int32_t around) {
  int32_t *found = nullptr;
  if (around <= kWhatever) {  // most of them: a table is faster
    std::vector<int32_t> &table = around == kNothing ? alone_ : whatever_;
    if (table.empty()) table.assign(network_.states(), -1);
    found = &table[state];
  } else {
    const auto key = static_cast<uint64_t>(static_cast<uint32_t>(state)) << 32 | static_cast<uint32_t>(around);
    found = &node_of_.try_emplace(key, -1).first->second;
  }
  if (*found < 0) {
    *found = static_cast<int32_t>(nodes_.size());
    nodes_.push_back({state, around});
    seen_.push_back(0);
    bytes_ += 64;
  }
  return *found;
}

void Automaton::begin_making() {
  ++making_;
  entered_ = entered_cost_ = 0;
}

// All places that are reached from those in todo_ without taking a byte; those
// from which a byte can be taken are kept. Rules are begun in the order of
// their ranks: when the turn of one comes, all that call it here are known.
void Automaton::close() {
  while (!todo_.empty() || !calls_.empty()) {
    if (todo_.empty()) {
      close_calls();
      continue;
    }
    const auto [s, a] = todo_.back();
    todo_.pop_back();
    const int32_t here = node(s, a);
    if (seen_[here] == making_) continue;
    seen_[here] = making_;
    ++entered_;
    entered_cost_ += a <= kWhatever ? kPlaceCost : kInnerPlaceCost;
    if (contexts_[a].depth > kDeepest || places_.size() > kMostPlaces || entered_ > kMostEntered) too_complex_ = true;
    if (too_complex_) {
      todo_.clear();
      calls_.clear();
      return;
    }
    const auto call = [&](int32_t rule, int32_t member) {
      calls_.push_back({network_.rank(rule), rule, member});
      std::push_heap(calls_.begin(), calls_.end());
      ++entered_;
      entered_cost_ += kPlaceCost;
    };
    if (!network_.edges(s).empty()) places_.push_back(here);
    for (const int32_t t : network_.epsilons(s)) todo_.push_back({t, a});
    for (const Network::Call &c : network_.calls(s)) {
      if (network_.only_ends(c.target)) {  // nothing is left to do behind it: what is around
                                           // this rule is around that one
        for (const int32_t member : contexts_[a].members) call(c.rule, member);
      } else {
        call(c.rule, node(c.target, a));
      }
      if (network_.nullable(c.rule)) todo_.push_back({c.target, a});
    }
    if (!network_.is_end(s)) continue;
    for (const int32_t member : contexts_[a].members) {
      if (member == kEnd) {
        accepts_ = true;
      } else if (member == kLeft) {
        left_ = true;
      } else {
        todo_.push_back({nodes_[member].state, nodes_[member].around});
        entered_cost_ += kPlaceCost;
      }
    }
  }
}

void Automaton::close_calls() {
  const int32_t rule = calls_.front().rule;
  std::vector<int32_t> members;
  while (!calls_.empty() && calls_.front().rule == rule) {
    members.push_back(calls_.front().member);
    std::pop_heap(calls_.begin(), calls_.end());
    calls_.pop_back();
  }
  std::sort(members.begin(), members.end());
  members.erase(std::unique(members.begin(), members.end()), members.end());
  todo_.push_back({network_.rule(rule).start, context(std::move(members))});
}

int32_t Automaton::finish() {
  const bool accepts = std::exchange(accepts_, false), left = std::exchange(left_, false);
  std::vector<int32_t> key = std::exchange(places_, {});
  if (std::exchange(too_complex_, false)) return kTooComplex;
  if (key.empty() && !accepts && !left) return kDead;
  std::sort(key.begin(), key.end());
  State made{.places = key, .accepts = accepts, .left = left};
  key.push_back(accepts ? -1 : -2);
  key.push_back(left ? -1 : -2);
  const auto [found, added] = state_of_.try_emplace(std::move(key), static_cast<int32_t>(states_.size()));
  if (added) {
    made.next.assign(network_.classes(), kUnknown);
    made.cost.assign(network_.classes(), 0);
    bytes_ += 300 + made.places.size() * 8 + made.next.size() * 6;
    states_.push_back(std::move(made));
  }
  return found->second;
}

int32_t Automaton::start() {
  begin_making();
  todo_.push_back({network_.rule(network_.root()).start, kNothing});
  close();
  return finish();
}

int32_t Automaton::step(int32_t state, uint8_t byte) {
  begin_making();
  int64_t edges = 0;
  for (const int32_t place : states_[state].places) {
    const Node at = nodes_[place];
    const std::span<const Network::Edge> all = network_.edges(at.state);
    edges += static_cast<int64_t>(all.size());
    for (const Network::Edge &e : all)
      if (e.low <= byte && byte <= e.high) todo_.push_back({e.target, at.around});
  }
  close();
  const int64_t cost = entered_cost_ + kPlaceCost * static_cast<int64_t>(states_[state].places.size()) + kEdgeCost * edges +
                       (entered_ > 0 ? kStateCost : 0);
  const int32_t made = finish();
  const uint8_t c = network_.class_of(byte);
  states_[state].next[c] = made;
  states_[state].cost[c] = static_cast<uint16_t>(std::min<int64_t>(cost / kCostUnit, UINT16_MAX));
  return made;
}

int64_t Automaton::first_cost(int32_t state, uint8_t byte) {
  State &s = states_[state];
  if (s.walk != walk_) {
    s.walk = walk_;
    s.met = 0;
    s.paid = {};
  }
  const uint8_t c = network_.class_of(byte);
  uint64_t &paid = s.paid[c / 64];
  const uint64_t bit = uint64_t{1} << c % 64;
  if ((paid & bit) != 0) return 0;
  paid |= bit;
  next(state, byte);
  return cost_of(state, byte);
}

uint64_t Automaton::stays(int32_t state, int64_t *cost) {
  if (states_[state].walk != walk_ || ++states_[state].met < 2) return 0;
  if (!states_[state].stays_known) find_stays(state);
  if (states_[state].met == 2) *cost += states_[state].stays_cost;
  return states_[state].stays;
}

void Automaton::find_stays(int32_t state) {
  // Tries a byte of each class once; a state with many classes of bytes has few
  // sets of characters that lead back.
  uint64_t stays = ~uint64_t{0};
  int64_t cost = 0;
  std::array<bool, 256> tried{};
  const auto step_from = [&](int32_t from, uint8_t byte) {
    const int32_t to = next(from, byte);
    if (from != state || !std::exchange(tried[network_.class_of(byte)], true)) cost += cost_of(from, byte);
    return to;
  };
  for (int b = 0; b < 128; ++b) {
    const uint64_t bit = TokenTrie::kind_of(static_cast<uint8_t>(b));
    if ((stays & bit) != 0 && cost <= kMostStaysCost && step_from(state, static_cast<uint8_t>(b)) != state) stays &= ~bit;
  }
  // Characters of several bytes: all of them, or none.
  static const std::vector<std::vector<ByteRange>> all = utf8_sequences({{0x80, kLastCodePoint}});
  constexpr size_t kMostWays = 4;
  const auto leads_back = [&](const std::vector<ByteRange> &sequence) {
    std::vector<int32_t> at = {state};
    for (const ByteRange range : sequence) {
      std::vector<int32_t> behind;
      for (const int32_t from : at)
        for (int b = range.low; b <= range.high; ++b) {
          if (b > range.low && network_.class_of(static_cast<uint8_t>(b)) == network_.class_of(static_cast<uint8_t>(b - 1)))
            continue;
          const int32_t to = cost <= kMostStaysCost ? step_from(from, static_cast<uint8_t>(b)) : kDead;
          if (to < 0) return false;
          if (std::find(behind.begin(), behind.end(), to) == behind.end()) behind.push_back(to);
          if (behind.size() > kMostWays) return false;
        }
      at = std::move(behind);
    }
    return at == std::vector<int32_t>{state};
  };
  if (!std::all_of(all.begin(), all.end(), leads_back)) stays &= ~TokenTrie::kCharacters;
  states_[state].stays = cost <= kMostStaysCost ? stays & ~TokenTrie::kBroken : 0;
  states_[state].stays_cost = cost;
  states_[state].stays_known = true;
}

std::vector<Automaton::Group> Automaton::groups(int32_t state, int64_t *cost, int64_t most_cost) {
  std::map<int32_t, std::vector<int32_t>> by_around;
  for (const int32_t place : states_[state].places) by_around[nodes_[place].around].push_back(nodes_[place].state);
  std::vector<Group> out;
  for (const auto &[around, inner] : by_around) {
    if (*cost > most_cost) break;
    // Places, not what they lead to: a state in `inner` is where a byte is
    // taken, so nothing is entered again.
    for (const int32_t s : inner) places_.push_back(node(network_.alike(s), kWhatever));
    std::sort(places_.begin(), places_.end());
    places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
    *cost += kStateCost + kPlaceCost * static_cast<int64_t>(inner.size());
    Group g{.frame = finish(), .outside = kDead};
    begin_making();
    for (const int32_t member : contexts_[around].members)
      if (member >= 0) todo_.push_back({nodes_[member].state, nodes_[member].around});
    if (!todo_.empty()) {
      close();
      g.outside = finish();
      *cost += kStateCost + entered_cost_;
    }
    out.push_back(g);
  }
  return out;
}

}  // namespace invar::grammar
