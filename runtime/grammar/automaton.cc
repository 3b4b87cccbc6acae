#include "runtime/grammar/automaton.h"

#include <algorithm>
#include <map>
#include <utility>

namespace invar::grammar {

size_t Automaton::ListHash::operator()(const std::vector<int32_t>& list) const {
  uint64_t h = 0x9e3779b97f4a7c15ull + list.size();
  for (const int32_t v : list) {
    h ^= static_cast<uint32_t>(v);
    h *= 0xbf58476d1ce4e5b9ull;
    h ^= h >> 29;
  }
  return h;
}

Automaton::Automaton(const Network& network) : network_(network) {}

void Automaton::clear() {
  nodes_.clear();
  node_of_.clear();
  states_.clear();
  state_of_.clear();
  seen_.clear();
  bytes_ = 0;
}

int32_t Automaton::node(int32_t state, int32_t around) {
  const auto key = static_cast<uint64_t>(static_cast<uint32_t>(state)) << 32 | static_cast<uint32_t>(around);
  const auto [found, added] = node_of_.try_emplace(key, static_cast<int32_t>(nodes_.size()));
  if (added) {
    nodes_.push_back({state, around, around < 0 ? 0 : nodes_[around].depth + 1});
    seen_.push_back(0);
    bytes_ += 64;
  }
  return found->second;
}

// All places that are reached from this one without taking a byte; those from which a byte can be taken are kept.
void Automaton::enter(int32_t state, int32_t around) {
  todo_.push_back({state, around});
  while (!todo_.empty()) {
    const auto [s, a] = todo_.back();
    todo_.pop_back();
    const int32_t here = node(s, a);
    if (seen_[here] == making_) continue;
    seen_[here] = making_;
    if (nodes_[here].depth > kDeepest || places_.size() > kMostPlaces) too_complex_ = true;
    if (too_complex_) {
      todo_.clear();
      return;
    }
    if (!network_.edges(s).empty()) places_.push_back(here);
    for (const int32_t t : network_.epsilons(s)) todo_.push_back({t, a});
    for (const Network::Call& c : network_.calls(s))
      // Nothing is left to do behind the call: what is around it is around this rule.
      todo_.push_back({network_.rule(c.rule).start, network_.only_ends(c.target) ? a : node(c.target, a)});
    if (!network_.is_end(s)) continue;
    if (a == kNothing) {
      accepts_ = true;
    } else if (a == kWhatever) {
      left_ = true;
    } else {
      todo_.push_back({nodes_[a].state, nodes_[a].around});
    }
  }
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
    bytes_ += 200 + made.places.size() * 8 + made.next.size() * 4;
    states_.push_back(std::move(made));
  }
  return found->second;
}

int32_t Automaton::start() {
  ++making_;
  enter(network_.rule(network_.root()).start, kNothing);
  return finish();
}

int32_t Automaton::step(int32_t state, uint8_t byte) {
  ++making_;
  for (size_t i = 0; i < states_[state].places.size(); ++i) {
    const Node at = nodes_[states_[state].places[i]];
    for (const Network::Edge& e : network_.edges(at.state))
      if (e.low <= byte && byte <= e.high) enter(e.target, at.around);
  }
  const int32_t made = finish();
  states_[state].next[network_.class_of(byte)] = made;
  return made;
}

std::vector<Automaton::Group> Automaton::groups(int32_t state) {
  std::map<int32_t, std::vector<int32_t>> by_around;
  for (const int32_t place : states_[state].places) by_around[nodes_[place].around].push_back(nodes_[place].state);
  std::vector<Group> out;
  for (const auto& [around, inner] : by_around) {
    // Places, not what they lead to: a state in `inner` is where a byte is taken, so nothing is entered again.
    for (const int32_t s : inner) places_.push_back(node(network_.alike(s), kWhatever));
    std::sort(places_.begin(), places_.end());
    places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
    Group g{.frame = finish(), .outside = kDead};
    if (around >= 0) {
      ++making_;
      enter(nodes_[around].state, nodes_[around].around);
      g.outside = finish();
    }
    out.push_back(g);
  }
  return out;
}

}  // namespace invar::grammar
