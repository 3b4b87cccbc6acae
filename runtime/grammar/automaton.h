// The network as a deterministic machine, made state by state as texts are
// read: a state is the set of all places the network may be in, each with the
// calls it is inside of.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/grammar/network.h"

namespace invar::grammar {

// Not for two threads at once. Numbers of states mean nothing beyond
// keep_only(), but for those that it renames.
class Automaton {
 public:
  static constexpr int32_t kDead = -1;
  // More places at once than kMostPlaces, calls nested deeper than kDeepest, or
  // more than kMostEntered places looked at for one byte.
  static constexpr int32_t kTooComplex = -2;
  static constexpr size_t kMostPlaces = 4096;
  static constexpr int32_t kDeepest = 2000;
  static constexpr int64_t kMostEntered = 20'000;
  static constexpr int64_t kMostHeld = 10'000;

  explicit Automaton(const Network &network);

  int32_t start();
  // The state behind one byte, kDead or kTooComplex. `state` is neither.
  int32_t next(int32_t state, uint8_t byte) {
    const int32_t known = states_[state].next[network_.class_of(byte)];
    return known != kUnknown ? known : step(state, byte);
  }
  // The text may end here.
  bool accepts(int32_t state) const { return states_[state].accepts; }
  // The text may go on from here.
  bool goes_on(int32_t state) const { return !states_[state].places.empty(); }

  // What a walk costs, in nanoseconds or so, as if nothing had been cached
  // before it: the same whenever it is asked. The first time that a walk takes
  // a class of bytes from a state it costs what that takes to find out; later
  // ones cost nothing.
  void begin_walk() { ++walk_; }
  int64_t first_cost(int32_t state, uint8_t byte);
  // Every class of characters in this set leads from the state back to it, but
  // for TokenTrie::kBroken; `cost` is what it takes to find out, once a state.
  // Only asked for the second time that a walk comes by (0 before).
  uint64_t stays(int32_t state, int64_t *cost);

  // A state is the union of groups of places with the same calls around them.
  // The frame of a group knows only the innermost rule: where that ends the
  // frame says left(), and what follows is `outside`, the state right behind
  // the call. Groups with equal places have the same frame whatever is around
  // them.
  struct Group {
    int32_t frame;    // a state of this machine
    int32_t outside;  // kDead: nothing is around, the text would end
  };
  // Adds to `cost`; beyond `most_cost` it ends early, and what it returns is
  // worth nothing.
  std::vector<Group> groups(int32_t state, int64_t *cost, int64_t most_cost);
  bool left(int32_t frame_state) const { return states_[frame_state].left; }

  // Places in the stacks of calls that the state holds on to; counted as far as
  // kMostHeld + 1.
  int64_t held(int32_t state);

  size_t bytes() const { return bytes_; }
  // Forgets all states but these, which get new numbers, and everything that
  // was found out about them.
  void keep_only(std::span<int32_t *const> states);

 private:
  static constexpr int32_t kUnknown = -3;
  // What is around a rule (a context): the places to go on at behind it, nodes
  // all of them, or nothing at all, or whatever (in frames). All that call a
  // rule at the same place of the text share its context: so a text that can be
  // read in many ways has no more places than rules begun where it has
  // characters.
  static constexpr int32_t kNothing = 0, kWhatever = 1;  // contexts
  static constexpr int32_t kEnd = -1, kLeft = -2;        // their only members

  struct Node {
    int32_t state, around;
  };
  struct Context {
    std::vector<int32_t> members;  // ascending
    int32_t depth;
    size_t nodes_before;  // of all nodes, those that are older
  };
  struct Call {
    int32_t rank, rule, member;
    bool operator<(const Call &o) const { return rank > o.rank; }  // the least rank on top of a heap
  };
  struct State {
    std::vector<int32_t> places;  // nodes, ascending
    std::vector<int32_t> next;    // by class of byte
    std::vector<uint16_t> cost;   // of finding it, in units of kCostUnit
    bool accepts = false, left = false, stays_known = false;
    uint32_t walk = 0;               // that met it last
    uint32_t met = 0;                // how often, in that walk
    std::array<uint64_t, 4> paid{};  // classes of bytes, in that walk
    uint64_t stays = 0;
    int64_t stays_cost = 0;
    int64_t held = -1;
  };
  static constexpr int64_t kCostUnit = 16;
  int32_t node(int32_t state, int32_t around);
  int32_t context(std::vector<int32_t> members);
  void close();
  void close_calls();
  void begin_making();
  int32_t step(int32_t state, uint8_t byte);
  int32_t finish();
  int64_t cost_of(int32_t state, uint8_t byte) const { return states_[state].cost[network_.class_of(byte)] * kCostUnit; }
  void find_stays(int32_t state);

  const Network &network_;
  std::vector<Node> nodes_;
  std::vector<Context> contexts_;
  absl::flat_hash_map<std::vector<int32_t>, int32_t> context_of_;  // members -> context
  absl::flat_hash_map<uint64_t, int32_t> node_of_;                 // state and around -> node
  std::vector<int32_t> alone_, whatever_;                          // state -> node with nothing or
                                                                   // whatever around it; -1 = none yet
  std::vector<State> states_;
  absl::flat_hash_map<std::vector<int32_t>, int32_t> state_of_;  // places and marks -> state
  size_t bytes_ = 0;
  // Of the state being made.
  std::vector<int32_t> places_;
  std::vector<uint32_t> seen_;  // by node: the number of the state being made that saw it last
  uint32_t making_ = 0;
  uint32_t walk_ = 0;
  int64_t entered_ = 0, entered_cost_ = 0;
  bool accepts_ = false, left_ = false, too_complex_ = false;
  std::vector<std::pair<int32_t, int32_t>> todo_;  // places to be looked at
  std::vector<Call> calls_;                        // a heap: rules to be begun
};

}  // namespace invar::grammar
