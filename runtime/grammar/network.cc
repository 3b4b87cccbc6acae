#include "runtime/grammar/network.h"

#include <algorithm>
#include <map>
#include <unordered_set>
#include <utility>

#include "runtime/model_config/message.h"

namespace invar::grammar {

size_t Network::bytes() const {
  return edges_.size() * sizeof(Edge) + epsilons_.size() * 4 + calls_.size() * sizeof(Call) + ends_.size() * 17 +
         rules_.size() * sizeof(Rule);
}

int32_t NetworkBuilder::state() {
  if (static_cast<int32_t>(states_.size()) >= kMostStates) full_ = true;
  if (full_ && !states_.empty()) return 0;
  states_.emplace_back();
  alike_.push_back(static_cast<int32_t>(alike_.size()));
  return static_cast<int32_t>(states_.size()) - 1;
}

void NetworkBuilder::edge(int32_t from, uint8_t low, uint8_t high, int32_t to) {
  full_ |= ++edges_ > kMostEdges;
  if (!full_) states_[from].edges.push_back({low, high, to});
}

void NetworkBuilder::epsilon(int32_t from, int32_t to) {
  full_ |= ++edges_ > kMostEdges;
  if (!full_) states_[from].epsilons.push_back(to);
}

void NetworkBuilder::call(int32_t from, int32_t rule, int32_t to) {
  full_ |= ++edges_ > kMostEdges;
  if (!full_) states_[from].calls.push_back({rule, to});
}

int32_t NetworkBuilder::rule(std::string_view name) {
  const int32_t start = state();
  rules_.push_back({start, state()});
  names_.emplace_back(name);
  return static_cast<int32_t>(rules_.size()) - 1;
}

void NetworkBuilder::literal(int32_t from, std::string_view bytes, int32_t to) {
  if (bytes.empty()) return epsilon(from, to);
  for (size_t i = 0; i < bytes.size() && !full_; ++i) {
    const int32_t next = i + 1 == bytes.size() ? to : state();
    edge(from, static_cast<uint8_t>(bytes[i]), static_cast<uint8_t>(bytes[i]), next);
    from = next;
  }
}

void NetworkBuilder::literals(int32_t from, const std::vector<std::string> &texts, int32_t to) {
  std::map<std::pair<int32_t, char>, int32_t> children;
  for (const std::string &text : texts) {
    int32_t at = from;
    for (const char c : text) {
      if (full_) return;
      const auto [child, added] = children.try_emplace({at, c}, 0);
      if (added) {
        child->second = state();
        edge(at, static_cast<uint8_t>(c), static_cast<uint8_t>(c), child->second);
      }
      at = child->second;
    }
    epsilon(at, to);
  }
}

void NetworkBuilder::sequences(int32_t from, const std::vector<std::vector<ByteRange>> &sequences, int32_t to) {
  std::map<std::vector<ByteRange>, int32_t> tails;  // what is left of a sequence -> the state before it
  for (const std::vector<ByteRange> &sequence : sequences) {
    int32_t next = to;
    for (size_t i = sequence.size(); i-- > 0 && !full_;) {
      if (i == 0) {
        edge(from, sequence[0].low, sequence[0].high, next);
        break;
      }
      const auto [tail, added] = tails.try_emplace({sequence.begin() + static_cast<int64_t>(i), sequence.end()}, 0);
      if (added) {
        tail->second = state();
        edge(tail->second, sequence[i].low, sequence[i].high, next);
      }
      next = tail->second;
    }
  }
}

// Copy i lies at first + i * block. A text of `reach` bytes goes through at
// most so many copies, each of which takes a byte: so copies from which neither
// the least nor the most number can be met in that many are alike.
void NetworkBuilder::mark_alike(int32_t first, int32_t block, int64_t copies, int64_t min, int64_t max) {
  for (int64_t i = 0; i < copies; ++i) {
    int64_t same = i;
    if (i + reach_ + 1 < min) {
      same = 0;
    } else if (i >= min && max >= 0 && i + reach_ + 1 < max) {
      same = min;
    }
    for (int32_t k = 0; k < block && same != i; ++k) alike_[first + i * block + k] -= static_cast<int32_t>((i - same) * block);
  }
}

// Rules that may take nothing. Each state is looked at once: a call whose rule
// is not known to be one of them waits for it.
std::vector<bool> NetworkBuilder::nullable_rules() const {
  struct Waiting {
    int32_t rule, target;
  };
  std::vector<bool> nullable(rules_.size());
  std::vector<std::vector<Waiting>> waiting(rules_.size());
  std::vector<std::unordered_set<int32_t>> seen(rules_.size());
  std::vector<std::pair<int32_t, int32_t>> todo;  // a rule, and a state reached from its start without a byte
  const auto visit = [&](int32_t rule, int32_t s) {
    if (seen[rule].insert(s).second) todo.emplace_back(rule, s);
  };
  for (size_t r = 0; r < rules_.size(); ++r) visit(static_cast<int32_t>(r), rules_[r].start);
  while (!todo.empty()) {
    const auto [rule, s] = todo.back();
    todo.pop_back();
    for (const int32_t t : states_[s].epsilons) visit(rule, t);
    for (const Network::Call &c : states_[s].calls) {
      if (nullable[c.rule]) {
        visit(rule, c.target);
      } else {
        waiting[c.rule].push_back({rule, c.target});
      }
    }
    if (s != rules_[rule].end || nullable[rule]) continue;
    nullable[rule] = true;
    for (const Waiting &w : std::exchange(waiting[rule], {})) visit(w.rule, w.target);
  }
  return nullable;
}

// Such a rule would be entered again and again without a byte being taken.
std::optional<int32_t> NetworkBuilder::begins_with_itself(const std::vector<bool> &nullable, std::vector<int32_t> *ranks) const {
  std::vector<std::vector<int32_t>> begins(rules_.size());
  for (size_t r = 0; r < rules_.size(); ++r) {
    std::vector<int32_t> todo = {rules_[r].start};
    std::unordered_set<int32_t> seen = {rules_[r].start};
    const auto visit = [&](int32_t s) {
      if (seen.insert(s).second) todo.push_back(s);
    };
    while (!todo.empty()) {
      const State &s = states_[todo.back()];
      todo.pop_back();
      for (const int32_t t : s.epsilons) visit(t);
      for (const Network::Call &c : s.calls) {
        begins[r].push_back(c.rule);
        if (nullable[c.rule]) visit(c.target);
      }
    }
  }
  // Rules that no remaining rule begins with are taken away, again and again:
  // what is left lies on or behind a circle.
  std::vector<int> count(rules_.size());
  for (const auto &list : begins)
    for (const int32_t b : list) ++count[b];
  std::vector<int32_t> todo;
  for (size_t r = 0; r < rules_.size(); ++r)
    if (count[r] == 0) todo.push_back(static_cast<int32_t>(r));
  ranks->assign(rules_.size(), 0);
  for (int32_t rank = 0; !todo.empty(); ++rank) {
    const int32_t r = todo.back();
    todo.pop_back();
    (*ranks)[r] = rank;
    for (const int32_t b : begins[r])
      if (--count[b] == 0) todo.push_back(b);
  }
  // Each of them is begun with by another one of them: going that way back ends
  // in a circle.
  std::vector<int32_t> before(rules_.size(), -1);
  int32_t at = -1;
  for (size_t r = 0; r < rules_.size(); ++r) {
    if (count[r] == 0) continue;
    at = static_cast<int32_t>(r);
    for (const int32_t b : begins[r]) before[b] = at;
  }
  if (at < 0) return std::nullopt;
  for (size_t i = 0; i < rules_.size(); ++i) at = before[at];
  return at;
}

// States from which the end of their rule can be reached, through rules of
// which the same is true.
std::vector<bool> NetworkBuilder::productive_states() const {
  const size_t count = states_.size();
  std::vector<std::vector<int32_t>> before(count);
  struct Waiting {
    int32_t from, target;
  };
  std::vector<std::vector<Waiting>> callers(rules_.size());
  std::vector<int32_t> rule_of_start(count, -1);
  for (size_t r = 0; r < rules_.size(); ++r) rule_of_start[rules_[r].start] = static_cast<int32_t>(r);
  for (size_t s = 0; s < count; ++s) {
    const auto from = static_cast<int32_t>(s);
    for (const Network::Edge &e : states_[s].edges) before[e.target].push_back(from);
    for (const int32_t t : states_[s].epsilons) before[t].push_back(from);
    for (const Network::Call &c : states_[s].calls) callers[c.rule].push_back({from, c.target});
  }
  std::vector<bool> good(count);
  std::vector<int32_t> todo;
  const auto visit = [&](int32_t s) {
    if (!good[s]) good[s] = true, todo.push_back(s);
  };
  // A call is an edge from its place to its target once its rule is known to
  // end.
  std::vector<bool> ends(rules_.size());
  for (const Network::Rule &r : rules_) visit(r.end);
  while (!todo.empty()) {
    const int32_t s = todo.back();
    todo.pop_back();
    for (const int32_t b : before[s]) visit(b);
    if (const int32_t r = rule_of_start[s]; r >= 0 && !ends[r]) {
      ends[r] = true;
      for (const Waiting &w : callers[r]) {
        before[w.target].push_back(w.from);
        if (good[w.target]) visit(w.from);
      }
    }
  }
  return good;
}

std::vector<int32_t> NetworkBuilder::shortcuts(const std::vector<bool> &good) const {
  const auto only_way = [&](int32_t s) {
    const State &state = states_[s];
    int32_t target = -1;
    for (const Network::Edge &e : state.edges)
      if (good[e.target]) return -1;
    for (const Network::Call &c : state.calls)
      if (good[c.target] && good[rules_[c.rule].start]) return -1;
    for (const int32_t t : state.epsilons) {
      if (!good[t] || t == s || t == target) continue;
      if (target >= 0) return -1;
      target = t;
    }
    return target;
  };
  std::vector<bool> end(states_.size());
  for (const Network::Rule &r : rules_) end[r.end] = true;
  std::vector<int32_t> to(states_.size(), -1), way;
  for (size_t s = 0; s < states_.size(); ++s) {
    int32_t at = static_cast<int32_t>(s);
    way.clear();
    while (to[at] < 0) {
      to[at] = at;  // should the way lead back here
      way.push_back(at);
      const int32_t next = end[at] ? -1 : only_way(at);
      if (next < 0) break;
      at = next;
    }
    for (const int32_t w : way) to[w] = to[at];
  }
  return to;
}

absl::StatusOr<Network> NetworkBuilder::build(int32_t root) {
  if (full_)
    return absl::InvalidArgumentError(message("is too large: more than ", kMostStates, " states or ", kMostEdges,
                                              " transitions; counted repetitions and long lists make many"));
  const std::vector<bool> nullable = nullable_rules();
  std::vector<int32_t> ranks;
  if (const std::optional<int32_t> rule = begins_with_itself(nullable, &ranks)) {
    const std::string &name = names_[*rule];
    return absl::InvalidArgumentError(message(name.empty() ? "" : message("rule ", name, " "),
                                              "refers to itself without anything in between, so that no text "
                                              "would ever begin"));
  }
  const std::vector<bool> good = productive_states();
  if (!good[rules_[root].start]) return absl::InvalidArgumentError("is satisfied by no text at all");
  const std::vector<int32_t> to = shortcuts(good);
  Network n;
  n.root_ = root;
  n.rules_ = rules_;
  for (Network::Rule &r : n.rules_) r.start = to[r.start];
  n.ranks_ = std::move(ranks);
  n.nullable_ = nullable;
  n.alike_ = alike_;
  n.ends_.assign(states_.size(), false);
  for (const Network::Rule &r : rules_) n.ends_[r.end] = true;
  std::array<bool, 257> border{};
  for (const State &s : states_) {
    n.first_edge_.push_back(static_cast<int32_t>(n.edges_.size()));
    n.first_epsilon_.push_back(static_cast<int32_t>(n.epsilons_.size()));
    n.first_call_.push_back(static_cast<int32_t>(n.calls_.size()));
    for (const Network::Edge &e : s.edges) {
      if (!good[e.target]) continue;
      n.edges_.push_back({e.low, e.high, to[e.target]});
      border[e.low] = border[e.high + 1] = true;
    }
    for (const int32_t t : s.epsilons)
      if (good[t]) n.epsilons_.push_back(to[t]);
    for (const Network::Call &c : s.calls)
      if (good[c.target] && good[rules_[c.rule].start]) n.calls_.push_back({c.rule, to[c.target]});
  }
  n.first_edge_.push_back(static_cast<int32_t>(n.edges_.size()));
  n.first_epsilon_.push_back(static_cast<int32_t>(n.epsilons_.size()));
  n.first_call_.push_back(static_cast<int32_t>(n.calls_.size()));
  int c = 0;
  for (int b = 0; b < 256; ++b) {
    if (b > 0 && border[b]) ++c;
    n.class_of_[b] = static_cast<uint8_t>(c);
  }
  n.classes_ = c + 1;
  return n;
}

}  // namespace invar::grammar
