// A network of byte automata that call each other: what every constraint is
// compiled to. A rule is a nondeterministic automaton from its start to its
// end; an edge takes a byte, or runs a whole rule.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/grammar/code_points.h"

namespace invar::grammar {

// Immutable. States of all rules are numbered together.
class Network {
 public:
  struct Edge {
    uint8_t low, high;
    int32_t target;
  };
  struct Call {
    int32_t rule;
    int32_t target;  // where to go on behind it
  };
  struct Rule {
    int32_t start, end;
  };

  std::span<const Edge> edges(int32_t state) const { return part(edges_, first_edge_, state); }
  std::span<const int32_t> epsilons(int32_t state) const { return part(epsilons_, first_epsilon_, state); }
  std::span<const Call> calls(int32_t state) const { return part(calls_, first_call_, state); }
  const Rule &rule(int32_t rule) const { return rules_[rule]; }
  // Rules that a rule may begin with have higher ranks than it has; no two have
  // the same.
  int32_t rank(int32_t rule) const { return ranks_[rule]; }
  // It may take nothing.
  bool nullable(int32_t rule) const { return nullable_[rule]; }
  int32_t root() const { return root_; }
  int32_t states() const { return static_cast<int32_t>(ends_.size()); }
  bool is_end(int32_t state) const { return ends_[state]; }
  // Nothing leaves it: what calls and goes on here may as well not come back.
  bool only_ends(int32_t state) const {
    return is_end(state) && edges(state).empty() && epsilons(state).empty() && calls(state).empty();
  }
  // A state from which the same texts of up to `reach` bytes (see
  // NetworkBuilder) can be taken with the same ends: copies of a counted
  // repetition far from its limits are alike.
  int32_t alike(int32_t state) const { return alike_[state]; }
  // Bytes that no edge tells apart have the same class.
  int classes() const { return classes_; }
  uint8_t class_of(uint8_t byte) const { return class_of_[byte]; }
  size_t bytes() const;

 private:
  friend class NetworkBuilder;
  template <class T>
  static std::span<const T> part(const std::vector<T> &all, const std::vector<int32_t> &first, int32_t state) {
    return {all.data() + first[state], static_cast<size_t>(first[state + 1] - first[state])};
  }

  std::vector<Edge> edges_;
  std::vector<int32_t> epsilons_;
  std::vector<Call> calls_;
  std::vector<int32_t> first_edge_, first_epsilon_, first_call_;
  std::vector<bool> ends_;
  std::vector<int32_t> alike_;
  std::vector<Rule> rules_;
  std::vector<int32_t> ranks_;
  std::vector<bool> nullable_;
  int32_t root_ = 0;
  int classes_ = 1;
  std::array<uint8_t, 256> class_of_{};
};

class NetworkBuilder {
 public:
  static constexpr int32_t kMostStates = 100'000;
  static constexpr int64_t kMostEdges = 400'000;

  // `reach`: nothing longer than this many bytes is asked of states that are
  // alike.
  explicit NetworkBuilder(int64_t reach) : reach_(reach) {}

  // Beyond the limits nothing more is added, and build() says so: loops must
  // look at full().
  bool full() const { return full_; }
  int32_t states() const { return static_cast<int32_t>(states_.size()); }
  int32_t state();
  void edge(int32_t from, uint8_t low, uint8_t high, int32_t to);
  void epsilon(int32_t from, int32_t to);
  void call(int32_t from, int32_t rule, int32_t to);
  // A rule with a start and an end that nothing connects yet; errors call it by
  // its name, if it has one.
  int32_t rule(std::string_view name = "");
  int32_t start(int32_t rule) const { return rules_[rule].start; }
  int32_t end(int32_t rule) const { return rules_[rule].end; }

  void literal(int32_t from, std::string_view bytes, int32_t to);
  // One of these; shared beginnings are one path.
  void literals(int32_t from, const std::vector<std::string> &texts, int32_t to);
  void sequences(int32_t from, const std::vector<std::vector<ByteRange>> &sequences, int32_t to);

  // Body(from, to) adds one copy; every call must add the same states in the
  // same order. max < 0: no limit. `nullable`: a copy may be empty.
  template <class Body>
  void repeat(int32_t from, int64_t min, int64_t max, bool nullable, int32_t to, const Body &body);

  // Drops what can never reach an end. InvalidArgument: too large, nothing
  // matches, or a rule that begins with itself.
  absl::StatusOr<Network> build(int32_t root);

 private:
  struct State {
    std::vector<Network::Edge> edges;
    std::vector<int32_t> epsilons;
    std::vector<Network::Call> calls;
  };
  void mark_alike(int32_t first, int32_t block, int64_t copies, int64_t min, int64_t max);
  std::vector<bool> productive_states() const;
  // Of states that only lead on to one other: that one.
  std::vector<int32_t> shortcuts(const std::vector<bool> &good) const;
  // One of them; if there is none, ranks of all rules.
  std::optional<int32_t> begins_with_itself(const std::vector<bool> &nullable, std::vector<int32_t> *ranks) const;
  std::vector<bool> nullable_rules() const;

  const int64_t reach_;
  std::vector<State> states_;
  std::vector<int32_t> alike_;
  std::vector<Network::Rule> rules_;
  std::vector<std::string> names_;
  int64_t edges_ = 0;
  bool full_ = false;
};

template <class Body>
void NetworkBuilder::repeat(int32_t from, int64_t min, int64_t max, bool nullable, int32_t to, const Body &body) {
  const int64_t copies = max < 0 ? min : max;
  const int32_t first = static_cast<int32_t>(states_.size());
  int32_t block = 0, at = from;
  for (int64_t i = 0; i < copies && !full_; ++i) {
    const auto begin = static_cast<int32_t>(states_.size());
    const int32_t here = state(), next = state();
    epsilon(at, here);
    if (i >= min) epsilon(here, to);
    body(here, next);
    at = next;
    block = static_cast<int32_t>(states_.size()) - begin;
  }
  if (max < 0) {
    const int32_t loop = state();
    epsilon(at, loop);
    body(loop, loop);
    epsilon(loop, to);
  } else {
    epsilon(at, to);
  }
  if (!nullable && !full_) mark_alike(first, block, copies, min, max);
}

}  // namespace invar::grammar
