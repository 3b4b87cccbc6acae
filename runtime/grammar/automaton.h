// The network as a deterministic machine, made state by state as texts are read: a state is the set of all places the network
// may be in, each with the calls it is inside of.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/grammar/network.h"

namespace invar::grammar {

// Not for two threads at once. Numbers of states mean nothing beyond one life between two clear()s.
class Automaton {
 public:
  static constexpr int32_t kDead = -1;
  // More places at once than kMostPlaces, or calls nested deeper than kDeepest.
  static constexpr int32_t kTooComplex = -2;
  static constexpr size_t kMostPlaces = 4096;
  static constexpr int32_t kDeepest = 2000;

  explicit Automaton(const Network& network);

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
  // How much one step from it costs.
  size_t size(int32_t state) const { return states_[state].places.size(); }

  // A state is the union of groups of places with the same calls around them. The frame of a group knows only the innermost
  // rule: where that ends the frame says left(), and what follows is `outside`, the state right behind the call. Groups with
  // equal places have the same frame whatever is around them.
  struct Group {
    int32_t frame;    // a state of this machine
    int32_t outside;  // kDead: nothing is around, the text would end
  };
  std::vector<Group> groups(int32_t state);
  bool left(int32_t frame_state) const { return states_[frame_state].left; }

  size_t bytes() const { return bytes_; }
  void clear();

 private:
  static constexpr int32_t kUnknown = -3;
  // What is around a rule: a node, or nothing at all, or whatever (in frames).
  static constexpr int32_t kNothing = -1, kWhatever = -2;

  struct Node {
    int32_t state, around;
    int32_t depth;
    bool operator==(const Node& o) const { return state == o.state && around == o.around; }
  };
  struct State {
    std::vector<int32_t> places;  // nodes, ascending
    std::vector<int32_t> next;    // by class of byte
    bool accepts = false, left = false;
  };
  struct ListHash {
    size_t operator()(const std::vector<int32_t>& list) const;
  };

  int32_t node(int32_t state, int32_t around);
  void enter(int32_t state, int32_t around);
  int32_t step(int32_t state, uint8_t byte);
  int32_t finish();

  const Network& network_;
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, int32_t> node_of_;  // state and around -> node
  std::vector<State> states_;
  std::unordered_map<std::vector<int32_t>, int32_t, ListHash> state_of_;  // places and marks -> state
  size_t bytes_ = 0;
  // Of the state being made.
  std::vector<int32_t> places_;
  std::vector<uint32_t> seen_;  // by node: the number of the state being made that saw it last
  uint32_t making_ = 0;
  bool accepts_ = false, left_ = false, too_complex_ = false;
  std::vector<std::pair<int32_t, int32_t>> todo_;
};

}  // namespace invar::grammar
