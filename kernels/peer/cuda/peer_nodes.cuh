// Nodes on several members as kernels see them: which place of the tree is whose (kernels/merge/cuda/merge_tree.cuh).
#pragma once

#include "kernels/merge/cuda/merge_tree.cuh"
#include "kernels/peer/peer.h"

namespace invar::cuda {

struct PeerNodes {
  const float* own[numerics::kSegments];  // by place: this member's values from element `begin` on, or null
  int8_t owner[numerics::kSegments];      // by place
  int8_t number[numerics::kSegments];     // by place: which of all nodes it is
  int8_t first[kMostPeers + 1];           // by member: the number of its first node
  unsigned present;                       // bit i: place i is taken
};

// Which of the nodes that `member` receives the one at `place` is.
__device__ inline int received_number(const PeerNodes& n, int place, int member) {
  const int number = n.number[place];
  return number < n.first[member] ? number : number - (n.first[member + 1] - n.first[member]);
}

inline PeerNodes nodes_of(const PeerView& view, const PeerMerge& p) {
  PeerNodes n{};
  for (int member = 0; member <= view.ranks; ++member) n.first[member] = static_cast<int8_t>(p.first[member]);
  for (int member = 0; member < view.ranks; ++member)
    for (int i = p.first[member]; i < p.first[member + 1]; ++i) {
      const int place = p.listed_order ? i : p.nodes[i].index << p.nodes[i].level;
      n.owner[place] = static_cast<int8_t>(member);
      n.number[place] = static_cast<int8_t>(i);
      n.present |= 1u << place;
      if (member == view.rank) n.own[place] = p.partials + (i - p.first[member]) * p.stride + p.begin;
    }
  return n;
}

// Each member has one node, all of one level, and there are 2, 4 or 8: the tree over the members, without choices.
inline bool one_node_each(const PeerView& view, const PeerMerge& p) {
  if (p.listed_order || static_cast<int>(p.nodes.size()) != view.ranks) return false;
  for (int member = 0; member < view.ranks; ++member)
    if (p.first[member] != member || p.nodes[member].index != member ||
        view.ranks << p.nodes[member].level != numerics::kSegments)
      return false;
  return view.ranks > 1;
}

}  // namespace invar::cuda
