#include "parallel/grid/grid.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/numerics.h"

namespace invar::parallel {

std::string to_string(const Layout& layout) {
  return absl::StrCat("tp", layout.tp, " pp", layout.pp, " ep", layout.ep, " dp", layout.dp);
}

Coordinates coordinates_of(const Layout& layout, int rank) {
  Coordinates at;
  at.tp = rank % layout.tp;
  rank /= layout.tp;
  at.ep = rank % layout.ep;
  rank /= layout.ep;
  at.pp = rank % layout.pp;
  at.dp = rank / layout.pp;
  return at;
}

int rank_of(const Layout& layout, const Coordinates& at) {
  return ((at.dp * layout.pp + at.pp) * layout.ep + at.ep) * layout.tp + at.tp;
}

namespace {

std::vector<int> members_along(const Layout& layout, Coordinates at, int Coordinates::*axis, int count) {
  std::vector<int> members;
  for (at.*axis = 0; at.*axis < count; ++(at.*axis)) members.push_back(rank_of(layout, at));
  return members;
}

}  // namespace

std::vector<int> tp_members(const Layout& layout, const Coordinates& at) {
  return members_along(layout, at, &Coordinates::tp, layout.tp);
}
std::vector<int> pp_members(const Layout& layout, const Coordinates& at) {
  return members_along(layout, at, &Coordinates::pp, layout.pp);
}
std::vector<int> ep_members(const Layout& layout, const Coordinates& at) {
  return members_along(layout, at, &Coordinates::ep, layout.ep);
}
std::vector<int> replica_members(const Layout& layout, const Coordinates& at) {
  std::vector<int> members;
  for (int i = 0; i < layout.replica(); ++i) members.push_back(at.dp * layout.replica() + i);
  return members;
}

Range shard(int64_t n, int64_t parts, int64_t index) { return {n * index / parts, n * (index + 1) / parts}; }

int64_t shard_owner(int64_t n, int64_t parts, int64_t i) {
  // i < floor(n (p + 1) / parts) for the smallest p: p + 1 = ceil((i + 1) parts / n).
  return ((i + 1) * parts + n - 1) / n - 1;
}

Range segments_of(int tp, int tp_index) { return shard(numerics::kSegments, tp, tp_index); }
Range layers_of(int64_t layers, int pp, int pp_index) { return shard(layers, pp, pp_index); }
Range experts_of(int64_t experts, int ep, int ep_index) { return shard(experts, ep, ep_index); }

std::vector<int> expert_owners(int64_t experts, int ep) {
  std::vector<int> owner(experts);
  for (int64_t e = 0; e < experts; ++e) owner[e] = static_cast<int>(shard_owner(experts, ep, e));
  return owner;
}

Range groups_touched(Range things, int64_t group) {
  if (things.empty()) return {things.begin / group, things.begin / group};
  return {things.begin / group, (things.end + group - 1) / group};
}

absl::Status validate(const Layout& layout, const ModelFacts& model) {
  const auto refuse = [](const char* field, int value, const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat(field, " = ", value, ": ", why));
  };
  if (layout.tp < 1 || layout.tp > numerics::kSegments)
    return refuse("tp", layout.tp, absl::StrCat("must be 1 to ", numerics::kSegments, ", the segments of a row-parallel linear"));
  if (layout.pp < 1) return refuse("pp", layout.pp, "must be 1 or more");
  if (layout.pp > model.layers) return refuse("pp", layout.pp, absl::StrCat("the model has only ", model.layers, " layers"));
  if (layout.ep < 1) return refuse("ep", layout.ep, "must be 1 or more");
  if (layout.ep > 1 && model.experts == 0) return refuse("ep", layout.ep, "the model is dense, it has no experts to place");
  if (layout.ep > 1 && layout.ep > model.experts)
    return refuse("ep", layout.ep, absl::StrCat("the model has only ", model.experts, " experts"));
  if (layout.dp < 1) return refuse("dp", layout.dp, "must be 1 or more");
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  int64_t world = int64_t{layout.tp} * layout.pp;  // each factor is bounded by int, so check before every product
  for (const int factor : {layout.ep, layout.dp}) {
    if (world > kMost / factor)
      return absl::InvalidArgumentError(absl::StrCat("layout ", to_string(layout), ": more ranks than an int can number"));
    world *= factor;
  }
  return absl::OkStatus();
}

}  // namespace invar::parallel
