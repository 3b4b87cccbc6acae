#include "parallel/reduce/tree_all_reduce.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "parallel/grid/grid.h"

namespace invar::parallel {
namespace {

constexpr int64_t kSliceUnit = 64;     // elements: slices of y begin on cache lines of their own
constexpr int64_t kMergeBlock = 4096;  // elements handed to one worker: small enough to stay in its first cache
constexpr numerics::TreeNode kRoot{3, 0};
static_assert(1 << kRoot.level == numerics::kSegments);

Range slice_of(int64_t count, int ranks, int rank) {
  const Range units = shard((count + kSliceUnit - 1) / kSliceUnit, ranks, rank);
  return {std::min(count, units.begin * kSliceUnit), std::min(count, units.end * kSliceUnit)};
}

// What an ordinary all-reduce does: left to right, whoever is there.
void add_in_order(const float* const* values, size_t terms, int64_t count, float* sum) {
  if (terms == 0) std::memset(sum, 0, count * sizeof(float));
  else std::memcpy(sum, values[0], count * sizeof(float));
  for (size_t i = 1; i < terms; ++i)
    for (int64_t k = 0; k < count; ++k) sum[k] = numerics::add(sum[k], values[i][k]);
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

TreeAllReduce::TreeAllReduce(const Device& device, const Group& tp, ReduceAlgorithm algorithm)
    : device_(&device), tp_(tp), algorithm_(algorithm) {}

float* TreeAllReduce::scratch(Buffer& buffer, int64_t floats) {
  const size_t bytes = floats * sizeof(float);
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer.as<float>();
}

void TreeAllReduce::run(const RowReduction& problem) {
  const int64_t count = problem.rows * problem.outputs;
  if (count == 0) return;
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
        add_in_order(segments.data(), segments.size(), count, sum);
        pieces.mine = sum;
      }
      nodes.resize(1);
    }
    pieces.nodes.insert(pieces.nodes.end(), nodes.begin(), nodes.end());
    pieces.first.push_back(static_cast<int>(pieces.nodes.size()));
  }
  const bool scatters = algorithm_ == ReduceAlgorithm::kScatter ||
                        (algorithm_ == ReduceAlgorithm::kAuto && count * int64_t{sizeof(float)} >= kScatterBytes);
  if (scatters && tp_.size() > 1) scatter(problem, pieces);
  else gather(problem, pieces);
}

void TreeAllReduce::gather(const RowReduction& problem, const Pieces& pieces) {
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
  merge_and_finish(problem, pieces, values.data(), 0, count);
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
  merge_and_finish(problem, pieces, values.data(), own.begin, own.end);
  std::vector<std::span<std::byte>> slices;
  for (int rank = 0; rank < tp_.size(); ++rank) {
    const Range slice = slice_of(count, tp_.size(), rank);
    slices.push_back(std::as_writable_bytes(std::span(problem.y + slice.begin, slice.size())));
  }
  tp_.all_gather_v(slices[me], slices, "tree all-reduce (gather of slices)");
}

// values[i]: node i's values from flat element `begin` on. Writes y of elements [begin, end). A root lives for one block only, in
// cache: it is rounded to y before the next block is merged.
void TreeAllReduce::merge_and_finish(const RowReduction& problem, const Pieces& pieces, const float* const* values, int64_t begin,
                                     int64_t end) {
  const size_t total = pieces.nodes.size();
  const TreeMerge tree(pieces.nodes, kRoot);
  device_->pool().run((end - begin + kMergeBlock - 1) / kMergeBlock, [&](int64_t block) {
    const int64_t first = begin + block * kMergeBlock;
    const int64_t count = std::min(kMergeBlock, end - first);
    std::array<const float*, numerics::kSegments> from{};
    for (size_t i = 0; i < total; ++i) from[i] = values[i] + (first - begin);
    alignas(64) std::array<float, kMergeBlock> root;
    if (pieces.rank_order) add_in_order(from.data(), total, count, root.data());
    else tree.apply(from.data(), count, root.data());
    finish(problem, root.data(), first, count);
  });
}

// A block may begin and end inside a row: the ragged ends are finished as shorter rows of their own.
void TreeAllReduce::finish(const RowReduction& problem, const float* root, int64_t first, int64_t count) {
  const int64_t width = problem.outputs;
  for (int64_t at = 0; at < count;) {
    const int64_t column = (first + at) % width;
    const bool whole = column == 0 && count - at >= width;
    const int64_t rows = whole ? (count - at) / width : 1;
    const int64_t length = whole ? width : std::min(width - column, count - at);
    finish_row_linear(*device_, root + at, problem.bias ? problem.bias + column : nullptr, rows, length, problem.y + first + at);
    at += rows * length;
  }
}

}  // namespace invar::parallel
