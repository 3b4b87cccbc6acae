// Rows of one node a member, merged, and what follows in a decoder: bias, residual, norm. Three ways, by size.
#include "kernels/peer/cuda/peer_members.cuh"
#include "kernels/peer/cuda/peer_nodes.cuh"

namespace invar::cuda {
namespace {

// One round of units: the least waiting.
template <int kRanks, int kSweeps>
__global__ void __launch_bounds__(kLanes / 2)
    merge_norm_units(const __grid_constant__ PeerView v, const __grid_constant__ Rows p) {
  constexpr int kCount = 2;  // more threads a row, fewer accesses of each one behind the other
  using P = Place<kSweeps, kCount>;
  const int width = p.target.width;
  if (!v.crowded) let_successor_start();
  Pieces<P, kSweeps, kCount> weight, bias, x, y;
  weight.load(p.target.weight, width);
  if (p.bias) bias.load(p.bias, width);
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);
  const size_t area = v.layout.quick(operation);
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    Share<P, kSweeps, kCount> own, sum;
    own.load(p.own + row * width, width);
    x.load(p.x + row * width, width);
#pragma unroll
    for (int step = 1; step < kRanks; ++step)
      own.send_units(v.window[(v.rank + step) % kRanks] + area + (v.rank * p.rows + row) * unit_row_bytes(kSweeps), width,
                     operation);
    member_tree<0, kRanks>(
        [&](int member, auto& share) {
          if (member == v.rank)
            share = own;
          else
            share.receive_units(v, v.window[v.rank] + area + (member * p.rows + row) * unit_row_bytes(kSweeps), width, member,
                                operation);
        },
        sum);
    finish(sum.v, bias, p.bias != nullptr, y);
    if (row >= gridDim.x) __syncthreads();  // the norm's shared memory may still be read for the row before
    add_and_norm(p, row, x, y, weight);
  }
  __syncthreads();
  if (threadIdx.x == 0) end_operation(v, operation);
}

// Plain values, and a flag for each row; every row to all.
template <int kRanks, int kSweeps>
__global__ void __launch_bounds__(kLanes / 4)
    merge_norm_flags(const __grid_constant__ PeerView v, const __grid_constant__ Rows p) {
  using F = FlaggedRows<kRanks, kSweeps>;
  const int width = p.target.width, t = static_cast<int>(threadIdx.x);
  if (!v.crowded) let_successor_start();
  F f{v, p};
  f.weight.load(p.target.weight, width);
  if (p.bias) f.bias.load(p.bias, width);
  wait_for_predecessors();
  f.operation = this_operation(v);
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const auto values = [&](int at, int of) {
      return reinterpret_cast<float*>(v.window[at] + v.layout.rows(f.operation)) + (of * p.rows + row) * width;
    };
    typename F::Values own;
    typename F::Row x, y;
    own.load(p.own + row * width, width);
    x.load(p.x + row * width, width);
#pragma unroll
    for (int step = 1; step < kRanks; ++step) own.store(values((v.rank + step) % kRanks, v.rank), width);
    __syncthreads();
    if (t < kRanks && t != v.rank) f.post_row(t, v.rank, row);
    f.await_values(row, PeerPhase::kValues);
    f.merge(
        own, [&](int member) { return values(v.rank, member); }, y);
    add_and_norm(p, row, x, y, f.weight);
  }
  __syncthreads();
  if (t == 0) end_operation(v, f.operation);
}

// The same in two rounds: a row's values to the member that merges it (row mod kRanks), its bf16 result to all. First the rows
// that go away, which wait for nothing, then those merged here, then the results of those that went: so the link is always busy.
template <int kRanks, int kSweeps>
__global__ void __launch_bounds__(kLanes / 4)
    merge_norm_rounds(const __grid_constant__ PeerView v, const __grid_constant__ Rows p) {
  using F = FlaggedRows<kRanks, kSweeps>;
  const int width = p.target.width, t = static_cast<int>(threadIdx.x);
  if (!v.crowded) let_successor_start();
  F f{v, p};
  f.weight.load(p.target.weight, width);
  if (p.bias) f.bias.load(p.bias, width);
  wait_for_predecessors();
  f.operation = this_operation(v);
  const int64_t slots = (p.rows + kRanks - 1) / kRanks, kept = (p.rows - v.rank + kRanks - 1) / kRanks, away = p.rows - kept;
  const auto values = [&](int at, int of, int64_t row) {
    return reinterpret_cast<float*>(v.window[at] + v.layout.values()) + (of * slots + row / kRanks) * width;
  };
  for (int64_t job = blockIdx.x; job < away + p.rows; job += gridDim.x) {
    const bool merges = job >= away && job < away + kept;
    const int64_t i = job < away ? job : job - away - (merges ? 0 : kept);
    // The i-th row of this member, or of the others.
    const int among = static_cast<int>(i % (kRanks - 1));
    const int64_t row = merges ? i * kRanks + v.rank : i / (kRanks - 1) * kRanks + among + (among >= v.rank);
    const int owner = static_cast<int>(row % kRanks);
    typename F::Values own;
    if (job < away) {
      own.load(p.own + row * width, width);
      own.store(values(owner, v.rank, row), width);
      __syncthreads();
      if (t == 0) f.post_row(owner, v.rank, row);
      continue;
    }
    typename F::Row x, y;
    x.load(p.x + row * width, width);
    if (merges) {
      own.load(p.own + row * width, width);
      f.await_values(row, PeerPhase::kSlices);
      f.merge(
          own, [&](int member) { return values(v.rank, member, row); }, y);
#pragma unroll
      for (int step = 1; step < kRanks; ++step) y.store(f.result((v.rank + step) % kRanks, row), width);
      __syncthreads();
      if (t < kRanks && t != v.rank) f.post_row(t, kResultFlag, row);
    } else {
      if (t == 0) wait_for(v, row_flag(v, v.rank, kResultFlag, row), owner, PeerPhase::kResults, f.operation);
      __syncthreads();
      y.load(f.result(v.rank, row), width);
    }
    add_and_norm(p, row, x, y, f.weight);
  }
  __syncthreads();
  if (t == 0) end_operation(v, f.operation);
}

template <int kRanks, int kSweeps>
void launch_way(const Device& device, const PeerView& view, const Rows& rows, PeerWay way) {
  const int64_t sent = way == PeerWay::kTwoRounds ? rows.rows - (rows.rows - view.rank + kRanks - 1) / kRanks : 0;
  const int64_t jobs = rows.rows + sent;
  const Launch shape{.grid = static_cast<unsigned>(view.crowded ? std::min<int64_t>(jobs, kCrowdedBlocks) : jobs),
                     .block = kLanes / (way == PeerWay::kUnits ? 2 : 4),
                     .dependent = true};
  launch(device, shape,
         way == PeerWay::kUnits   ? merge_norm_units<kRanks, kSweeps>
         : way == PeerWay::kFlags ? merge_norm_flags<kRanks, kSweeps>
                                  : merge_norm_rounds<kRanks, kSweeps>,
         view, rows);
}

}  // namespace

int64_t peer_merge_norm_limit(const PeerView& view, const PeerMerge& p, const PeerNorm& next, PeerWay way) {
  const int64_t width = p.outputs;
  const bool pieces = aligned(p.partials) && aligned(p.bias) && aligned(next.x) && aligned(next.weight) && aligned(next.normed) &&
                      width % kPiece == 0 && width <= kMostSweeps * kLanes;
  if (!pieces || !one_node_each(view, p)) return 0;
  const auto area = [](size_t bytes, int64_t row) { return static_cast<int64_t>(bytes) / row; };
  if (way == PeerWay::kUnits) return area(view.layout.quick_bytes, unit_row_bytes(sweeps_of(width)) * view.ranks);
  if (way == PeerWay::kFlags) return std::min<int64_t>(kMostPeerRows, area(view.layout.rows_bytes, width * 4 * view.ranks));
  // Member m's values of its peers' rows lie in `ranks` lists of rows / ranks.
  return std::min({int64_t{kMostPeerRows}, area(view.layout.values_bytes, width * 4) / view.ranks * view.ranks,
                   area(view.layout.results_bytes, width * 2)});
}

void peer_merge_norm(const Device& device, const PeerView& view, const PeerMerge& p, const PeerNorm& next, PeerWay way) {
  const Rows rows = rows_of(p, next, p.partials + p.begin);
  with_shape(view, rows, [&](auto ranks, auto sweeps) { launch_way<ranks(), sweeps()>(device, view, rows, way); });
}

}  // namespace invar::cuda
