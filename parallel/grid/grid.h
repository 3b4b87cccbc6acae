// The rank grid: who a rank is among dp x pp x ep x tp, and which share of a model it holds. Pure integers, no communication.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace invar::parallel {

// Ranks of each kind of parallelism. World = dp * pp * ep * tp, numbered dp slowest, then pp, then ep, tp fastest, so that the
// ranks that talk most (tp) are neighbours and a replica is one run of ranks.
struct Layout {
  int tp = 1;  // tensor parallel: each linear is cut over these ranks; 1 to 8, any count
  int pp = 1;  // pipeline parallel: consecutive layers
  int ep = 1;  // expert parallel: experts are cut over these ranks, and each is the home of some of the sequences
  int dp = 1;  // replicas: each serves requests of its own

  int replica() const { return pp * ep * tp; }  // ranks of one replica
  int world() const { return dp * replica(); }
  bool operator==(const Layout&) const = default;
};
// "tp2 pp1 ep4 dp1"
std::string to_string(const Layout& layout);

struct Coordinates {
  int dp = 0;
  int pp = 0;
  int ep = 0;
  int tp = 0;
  bool operator==(const Coordinates&) const = default;
};
Coordinates coordinates_of(const Layout& layout, int rank);
int rank_of(const Layout& layout, const Coordinates& at);

// World ranks that differ from `at` in one coordinate only, ascending in it; `at` itself is among them.
std::vector<int> tp_members(const Layout& layout, const Coordinates& at);
std::vector<int> pp_members(const Layout& layout, const Coordinates& at);
std::vector<int> ep_members(const Layout& layout, const Coordinates& at);
// All ranks of the replica of `at`; the first takes the plans.
std::vector<int> replica_members(const Layout& layout, const Coordinates& at);

// [begin, end)
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return begin == end; }
  bool contains(int64_t i) const { return begin <= i && i < end; }
  bool operator==(const Range&) const = default;
};
// Share `index` of n things cut into `parts`: [floor(n i / parts), floor(n (i + 1) / parts)). Shares are consecutive, cover
// everything once and differ by at most one in size; with parts > n some are empty.
Range shard(int64_t n, int64_t parts, int64_t index);
// Which share holds thing i of n: the inverse of shard().
int64_t shard_owner(int64_t n, int64_t parts, int64_t i);

// Segments of a row-parallel linear that a tp rank owns (clause 4): shard(8, tp, tp_index).
Range segments_of(int tp, int tp_index);
Range layers_of(int64_t layers, int pp, int pp_index);
Range experts_of(int64_t experts, int ep, int ep_index);
// owner[expert] = ep index, the inverse of experts_of.
std::vector<int> expert_owners(int64_t experts, int ep);
// The groups of `group` consecutive things that `things` touches, e.g. the KV heads of a range of query heads. Two ranks may
// touch one group: both hold it.
Range groups_touched(Range things, int64_t group);

// What validation needs to know of a model.
struct ModelFacts {
  int64_t layers = 0;
  int64_t experts = 0;  // 0 = dense
};
// Every refusal names the field and its value: tp in 1..8, pp in 1..layers, ep in 1..experts (1 for a dense model), dp >= 1,
// and a world that fits an int.
absl::Status validate(const Layout& layout, const ModelFacts& model);

}  // namespace invar::parallel
