#include "parallel/reduce/tree_all_reduce.h"

#include <algorithm>

#include "kernels/merge/merge.h"
#include "kernels/norm/residual_norm.h"
#include "parallel/grid/grid.h"

namespace invar::parallel {
namespace {

constexpr int64_t kSliceUnit = 64;  // elements: slices of y begin on cache lines of their own

Range slice_of(int64_t count, int ranks, int rank) {
  const Range units = shard((count + kSliceUnit - 1) / kSliceUnit, ranks, rank);
  return {std::min(count, units.begin * kSliceUnit), std::min(count, units.end * kSliceUnit)};
}

}  // namespace

std::vector<numerics::TreeNode> shipped_nodes(ControlArm arm, const RowSegments& segments, int first, int last) {
  if (arm != ControlArm::kRankOrderAllReduce) return maximal_subtrees(segments, first, last);
  std::vector<numerics::TreeNode> nodes;
  for (int i = first; i < last; ++i)
    if (!segments.empty(i, i + 1)) nodes.push_back({0, i});
  return nodes;
}

// The values that meet, in ascending order, and which rank has which.
struct TreeAllReduce::Pieces {
  std::vector<numerics::TreeNode> nodes;
  std::vector<int> first;   // by rank: its nodes are [first[rank], first[rank + 1])
  const float* mine;        // [own nodes][rows][outputs]
  bool rank_order = false;  // control arm: one value a rank, added left to right
  int count(int rank) const { return first[rank + 1] - first[rank]; }
};

TreeAllReduce::TreeAllReduce(const Device& device, const Group& tp, ReduceAlgorithm algorithm, PeerMemory* peer)
    : device_(&device), tp_(tp), algorithm_(algorithm), peer_(tp.size() > 1 ? peer : nullptr) {}

float* TreeAllReduce::scratch(Buffer& buffer, int64_t floats) {
  const size_t bytes = floats * sizeof(float);
  if (buffer.size() < bytes) buffer = Buffer(*device_, bytes);
  return buffer.as<float>();
}

void TreeAllReduce::run(const RowReduction& problem) {
  const int64_t count = problem.rows * problem.outputs;
  if (count == 0 || problem.values == RowValues::kFinished) return;
  const Pieces pieces = pieces_of(problem);
  if (peer_) return run_on_peers(problem, pieces, nullptr);
  if (scatters(count))
    scatter(problem, pieces);
  else
    merge(problem, pieces, gather_values(problem, pieces), 0, count);
}

void TreeAllReduce::run(const RowReduction& problem, const ResidualNorm& next) {
  const int64_t count = problem.rows * problem.outputs;
  if (count == 0) return;
  if (problem.values == RowValues::kFinished) {
    residual_rms_norm(*device_, {.rows = problem.rows,
                                 .width = problem.outputs,
                                 .x = next.x,
                                 .y = problem.y,
                                 .weight = next.weight,
                                 .epsilon = next.epsilon,
                                 .normed = next.normed});
    return;
  }
  const Pieces pieces = pieces_of(problem);
  if (peer_) return run_on_peers(problem, pieces, &next);
  if (scatters(count)) {
    scatter(problem, pieces);
    residual_rms_norm(*device_, {.rows = problem.rows,
                                 .width = problem.outputs,
                                 .x = next.x,
                                 .y = problem.y,
                                 .weight = next.weight,
                                 .epsilon = next.epsilon,
                                 .normed = next.normed});
    return;
  }
  const std::vector<const float*> values = gather_values(problem, pieces);
  MergeNodes m{
      .outputs = problem.outputs, .end = count, .nodes = pieces.nodes, .listed_order = pieces.rank_order, .bias = problem.bias};
  std::copy(values.begin(), values.end(), m.values.begin());
  merge_residual_norm(*device_, {.merge = m, .x = next.x, .weight = next.weight, .epsilon = next.epsilon, .normed = next.normed});
}

bool TreeAllReduce::scatters(int64_t count) const {
  if (tp_.size() == 1 || algorithm_ == ReduceAlgorithm::kGather) return false;
  const int64_t least = peer_ ? kPeerScatterBytes : kScatterBytes;
  return algorithm_ == ReduceAlgorithm::kScatter || count * int64_t{sizeof(float)} >= least;
}

PeerWay TreeAllReduce::norm_way(int64_t count) const {
  const int64_t bytes = count * int64_t{sizeof(float)};
  const bool two = algorithm_ == ReduceAlgorithm::kScatter ||
                   (algorithm_ == ReduceAlgorithm::kAuto && bytes >= kPeerNormScatterBytes / (tp_.size() - 1));
  return two ? PeerWay::kTwoRounds : bytes <= kPeerUnitBytes ? PeerWay::kUnits : PeerWay::kFlags;
}

RowTargets TreeAllReduce::targets(const RowReduction& problem) const {
  RowTargets to;
  const int64_t count = problem.rows * problem.outputs;
  if constexpr (kCudaBuilt) {
    if (!peer_ || count == 0 || device_->control_arm() == ControlArm::kRankOrderAllReduce) return to;
    if (norm_way(count) == PeerWay::kTwoRounds) return to;  // fewer bytes
    int first = 0, total = 0;
    for (int rank = 0; rank < tp_.size(); ++rank) {
      const Range own = segments_of(tp_.size(), rank);
      const int begin = static_cast<int>(own.begin), end = static_cast<int>(own.end);
      const auto nodes = shipped_nodes(device_->control_arm(), problem.segments, begin, end);
      if (!row_sends(*device_, problem.rows, problem.outputs, problem.segments, begin, end, nodes)) return to;
      if (rank == tp_.index()) first = total;
      total += static_cast<int>(nodes.size());
    }
    if (problem.rows > cuda::peer_arrivals_norm_limit(peer_->view(), problem.outputs, total)) return to;
    to = cuda::peer_targets(peer_->view(), first, count);
  }
  return to;
}

RowOwners TreeAllReduce::owners(const RowReduction& problem) const {
  if constexpr (kCudaBuilt) {
    const int ranks = tp_.size();
    if (!peer_ || problem.rows == 0 || problem.outputs == 0 || algorithm_ == ReduceAlgorithm::kGather ||
        device_->control_arm() == ControlArm::kRankOrderAllReduce)
      return {};
    for (int rank = 0; rank < ranks; ++rank) {
      const Range own = segments_of(ranks, rank);
      const int begin = static_cast<int>(own.begin), end = static_cast<int>(own.end);
      const auto nodes = shipped_nodes(device_->control_arm(), problem.segments, begin, end);
      // One subtree a rank, all of one size.
      if (nodes.size() != 1 || nodes[0].index != rank || ranks << nodes[0].level != numerics::kSegments) return {};
      if (!row_deals(*device_, problem.rows, problem.outputs, problem.segments, begin, nodes[0])) return {};
    }
    if (problem.rows <= cuda::peer_dealt_norm_limit(peer_->view(), problem.outputs))
      return cuda::peer_owners(peer_->view(), problem.rows, problem.outputs);
  }
  return {};
}

TreeAllReduce::Pieces TreeAllReduce::pieces_of(const RowReduction& problem) {
  const int64_t count = problem.rows * problem.outputs;
  Pieces pieces{.first = {0}, .mine = problem.partials};
  pieces.rank_order = device_->control_arm() == ControlArm::kRankOrderAllReduce;
  for (int rank = 0; rank < tp_.size(); ++rank) {
    const Range own = segments_of(tp_.size(), rank);
    auto nodes = shipped_nodes(device_->control_arm(), problem.segments, static_cast<int>(own.begin), static_cast<int>(own.end));
    if (pieces.rank_order && !nodes.empty()) {
      // What an ordinary linear leaves on a rank: one sum over its share of K, formed from left to right.
      if (rank == tp_.index() && nodes.size() > 1) {
        std::vector<const float*> segments;
        for (size_t i = 0; i < nodes.size(); ++i) segments.push_back(problem.partials + i * count);
        float* sum = scratch(folded_, count);
        add_listed(*device_, segments, count, sum);
        pieces.mine = sum;
      }
      nodes.resize(1);
    }
    pieces.nodes.insert(pieces.nodes.end(), nodes.begin(), nodes.end());
    pieces.first.push_back(static_cast<int>(pieces.nodes.size()));
  }
  return pieces;
}

// Every node's values, on each rank.
std::vector<const float*> TreeAllReduce::gather_values(const RowReduction& problem, const Pieces& pieces) {
  const int64_t count = problem.rows * problem.outputs;
  const int me = tp_.index();
  const int total = static_cast<int>(pieces.nodes.size());
  float* received = scratch(received_, (total - pieces.count(me)) * count);
  const auto mine = std::as_bytes(std::span(pieces.mine, pieces.count(me) * count));
  std::vector<const float*> values(total);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int step = 0; step < tp_.size(); ++step) {
    const int peer = (me + step) % tp_.size();
    const bool self = peer == me;
    for (int i = 0; i < pieces.count(peer); ++i) values[pieces.first[peer] + i] = (self ? pieces.mine : received) + i * count;
    if (self) continue;
    const int64_t floats = pieces.count(peer) * count;
    sends.push_back({peer, mine});
    receives.push_back({peer, std::as_writable_bytes(std::span(received, floats))});
    received += floats;
  }
  if (tp_.size() > 1) tp_.exchange(sends, receives, "tree all-reduce (gather)");
  return values;
}

void TreeAllReduce::run_on_peers(const RowReduction& problem, const Pieces& pieces, const ResidualNorm* next) {
  if constexpr (kCudaBuilt) {
    const int64_t count = problem.rows * problem.outputs, outputs = problem.outputs;
    PeerMerge m{.outputs = outputs,
                .nodes = pieces.nodes,
                .partials = pieces.mine,
                .stride = count,
                .listed_order = pieces.rank_order,
                .bias = problem.bias};
    std::copy(pieces.first.begin(), pieces.first.end(), m.first.begin());
    // As many calls as the window's areas ask for.
    const auto in_parts = [&](int64_t most, const auto& queue) {
      for (m.begin = 0; m.begin < count; m.begin = m.end) {
        m.end = std::min(count, m.begin + most);
        peer_->run(queue);
      }
    };
    const PeerView& view = peer_->view();
    const bool scatter = scatters(count);
    if (next) {
      const PeerNorm norm{next->x, next->weight, next->epsilon, next->normed};
      if (problem.values == RowValues::kSent) {
        m.end = count;
        return peer_->run([&] { cuda::peer_arrivals_norm(*device_, view, m, norm); });
      }
      if (problem.values == RowValues::kDealt) {
        m.end = count;
        return peer_->run([&] { cuda::peer_dealt_norm(*device_, view, m, norm); });
      }
      const PeerWay way = norm_way(count);
      const int64_t rows = cuda::peer_merge_norm_limit(view, m, norm, way);
      if (rows > 0) return in_parts(rows * outputs, [&] { cuda::peer_merge_norm(*device_, view, m, norm, way); });
    }
    const int64_t sliced = scatter ? cuda::peer_merge_slices_limit(view, m, problem.y) : 0;
    if (sliced > 0)
      in_parts(sliced, [&] { cuda::peer_merge_slices(*device_, view, m, problem.y); });
    else
      in_parts(cuda::peer_merge_quick_limit(view, m), [&] { cuda::peer_merge_quick(*device_, view, m, problem.y); });
    if (next)
      residual_rms_norm(*device_, {.rows = problem.rows,
                                   .width = outputs,
                                   .x = next->x,
                                   .y = problem.y,
                                   .weight = next->weight,
                                   .epsilon = next->epsilon,
                                   .normed = next->normed});
  }
}

void TreeAllReduce::scatter(const RowReduction& problem, const Pieces& pieces) {
  const int64_t count = problem.rows * problem.outputs;
  const int me = tp_.index();
  const Range own = slice_of(count, tp_.size(), me);
  const int total = static_cast<int>(pieces.nodes.size());
  float* received = scratch(received_, (total - pieces.count(me)) * own.size());
  std::vector<const float*> values(total);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int step = 0; step < tp_.size(); ++step) {
    const int peer = (me + step) % tp_.size();
    const Range slice = slice_of(count, tp_.size(), peer);
    for (int i = 0; i < pieces.count(peer); ++i) {
      const float*& value = values[pieces.first[peer] + i];
      if (peer == me) {
        value = pieces.mine + i * count + own.begin;
        continue;
      }
      value = received;
      receives.push_back({peer, std::as_writable_bytes(std::span(received, own.size()))});
      received += own.size();
    }
    if (peer == me) continue;
    for (int i = 0; i < pieces.count(me); ++i)
      sends.push_back({peer, std::as_bytes(std::span(pieces.mine + i * count + slice.begin, slice.size()))});
  }
  tp_.exchange(sends, receives, "tree all-reduce (scatter)");
  merge(problem, pieces, values, own.begin, own.end);
  std::vector<std::span<std::byte>> slices;
  for (int rank = 0; rank < tp_.size(); ++rank) {
    const Range slice = slice_of(count, tp_.size(), rank);
    slices.push_back(std::as_writable_bytes(std::span(problem.y + slice.begin, slice.size())));
  }
  tp_.all_gather_v(slices[me], slices, "tree all-reduce (gather of slices)");
}

// values[i]: node i's values from flat element `begin` on. Writes y of elements [begin, end).
void TreeAllReduce::merge(const RowReduction& problem, const Pieces& pieces, const std::vector<const float*>& values,
                          int64_t begin, int64_t end) {
  MergeNodes m{.outputs = problem.outputs,
               .begin = begin,
               .end = end,
               .nodes = pieces.nodes,
               .listed_order = pieces.rank_order,
               .bias = problem.bias,
               .y = problem.y};
  std::copy(values.begin(), values.end(), m.values.begin());
  merge_nodes(*device_, m);
}

}  // namespace invar::parallel
