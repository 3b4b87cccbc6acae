// Rows of one node a member, merged, and what follows in a decoder: bias, residual, norm. Three ways, by size.
#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_nodes.cuh"
#include "kernels/peer/cuda/peer_rows.cuh"

namespace invar::cuda {
namespace {

using namespace peers;  // NOLINT: rows on a block

constexpr int kUnit = 16;          // bytes in a window: two floats and the number of the operation
constexpr int kCrowdedBlocks = 4;  // of a member that shares its GPU

// Of a row's units in a window.
__host__ __device__ constexpr int64_t unit_row_bytes(int64_t sweeps) { return sweeps * kLanes / 2 * kUnit; }

// Unit i of sweep s: a warp's units of one access are neighbours.
template <int kCount>
__device__ inline std::byte* unit_at(std::byte* row, int s, int i) {
  return row + ((s * (kCount / 2) + i) * (kLanes / kCount) + static_cast<int>(threadIdx.x)) * kUnit;
}

// A thread's values of one member's row.
template <class P, int kSweeps, int kCount>
struct Share {
  float v[kSweeps][kCount];

  __device__ void load(const float* row, int width) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
        const FloatPiece<kCount> piece = load_piece<kCount>(row + P::first() + s * kLanes);
#pragma unroll
        for (int i = 0; i < kCount; ++i) v[s][i] = piece.v[i];
      }
  }
  __device__ void store(float* row, int width) const {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
        FloatPiece<kCount> piece;
#pragma unroll
        for (int i = 0; i < kCount; ++i) piece.v[i] = v[s][i];
        *reinterpret_cast<FloatPiece<kCount>*>(row + P::first() + s * kLanes) = piece;
      }
  }
  __device__ void send_units(std::byte* row, int width, uint64_t operation) const {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
#pragma unroll
        for (int i = 0; i < kCount / 2; ++i)
          store_unit(unit_at<kCount>(row, s, i), pack(v[s][2 * i], v[s][2 * i + 1]), operation);
      }
  }
  // All units at once, again and again until the last of them is there: they arrive together.
  __device__ void receive_units(const PeerView& view, std::byte* row, int width, int peer, uint64_t operation) {
    PeerPatience patience;
    for (;;) {
      bool here = true;
#pragma unroll
      for (int s = 0; s < kSweeps; ++s)
        if (P::within(s, width)) {
#pragma unroll
          for (int i = 0; i < kCount / 2; ++i) {
            uint64_t number;
            const uint64_t bytes = load_unit(unit_at<kCount>(row, s, i), number);
            here &= number == operation;
            v[s][2 * i] = first_of(bytes);
            v[s][2 * i + 1] = second_of(bytes);
          }
        }
      if (here || !patient(view, patience, peer, PeerPhase::kValues, operation)) return;
    }
  }
  __device__ void add(const Share& right) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[s][i] = numerics::add(v[s][i], right.v[s][i]);
  }
};

// The value of the node over members [kFirst, kFirst + kMembers). `get(member, share)` fetches one member's.
template <int kFirst, int kMembers, class AShare, class Get>
__device__ inline void member_tree(const Get& get, AShare& sum) {
  if constexpr (kMembers == 1) {
    get(kFirst, sum);
  } else {
    AShare right;
    member_tree<kFirst, kMembers / 2>(get, sum);
    member_tree<kFirst + kMembers / 2, kMembers / 2>(get, right);
    sum.add(right);
  }
}

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

__device__ inline uint64_t* row_flag(const PeerView& v, int at, int kind, int64_t row) {
  return reinterpret_cast<uint64_t*>(v.window[at] + PeerLayout::kRowFlags) + kind * kMostPeerRows + row;
}
constexpr int kResultFlag = kMostPeers;  // the flags before are of the members' values

// Where member `of` deals its values of the rows that member `at` owns.
__host__ __device__ inline float* dealt_values(const PeerView& v, int at, int of, int64_t rows, int64_t width) {
  return reinterpret_cast<float*>(v.window[at] + v.layout.values()) + of * RowOwners::held(rows, v.ranks, 0) * width;
}

template <int kRanks, int kSweeps>
struct FlaggedRows {
  static constexpr int kCount = 4;
  using P = Place<kSweeps, kCount>;
  using Values = Share<P, kSweeps, kCount>;
  using Row = Pieces<P, kSweeps, kCount>;
  const PeerView& v;
  const Rows& p;
  uint64_t operation;
  Row weight, bias;

  __device__ int width() const { return p.target.width; }
  __device__ void post_row(int at, int kind, int64_t row) const { post(row_flag(v, at, kind, row), operation); }
  // Every thread of the block sees what the flags of `row` speak for, from each peer.
  __device__ void await_values(int64_t row, PeerPhase phase) const {
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < kRanks && peer != v.rank) wait_for(v, row_flag(v, v.rank, peer, row), peer, phase, operation);
    __syncthreads();
  }
  __device__ Bf16* result(int at, int64_t row) const {
    return reinterpret_cast<Bf16*>(v.window[at] + v.layout.results()) + row * width();
  }
  // at(member): where the member's values of the row are in this rank's window.
  template <class At>
  __device__ void merge(const Values& own, const At& at, Row& y) const {
    Values sum;
    member_tree<0, kRanks>(
        [&](int member, auto& share) {
          if (member == v.rank)
            share = own;
          else
            share.load(at(member), width());
        },
        sum);
    finish(sum.v, bias, p.bias != nullptr, y);
  }
};

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

// Two rounds whose first one the linears have done: values came while they multiplied, each member's to its place here. A member
// merges the rows it owns, then waits for the others' results. A row is a chain of latencies, so several are at it on a
// multiprocessor: weights and bias are fetched where they are needed, and take no registers before.
constexpr int kDealtBlocks = 3;
template <int kRanks, int kSweeps>
__global__ void __launch_bounds__(kLanes / 4, kDealtBlocks)
    merge_norm_dealt(const __grid_constant__ PeerView v, const __grid_constant__ Rows p) {
  using F = FlaggedRows<kRanks, kSweeps>;
  const int width = p.target.width, t = static_cast<int>(threadIdx.x);
  if (!v.crowded) let_successor_start();
  F f{v, p};
  f.operation = this_operation(v);
  if (blockIdx.x == 0 && t < kRanks && t != v.rank) post_flag(v, t, PeerFlag::kFirst, 0, f.operation);
  const int64_t kept = RowOwners::held(p.rows, kRanks, v.rank);
  for (int64_t job = blockIdx.x; job < kept + p.rows; job += gridDim.x) {
    const bool merges = job < kept;
    const int64_t row = merges ? RowOwners::row_of(kRanks, v.rank, job) : job - kept;
    const int owner = static_cast<int>(row / RowOwners::kBlock % kRanks);
    if (!merges && owner == v.rank) continue;
    typename F::Row x, y;
    x.load(p.x + row * width, width);
    if (merges) {
      if (t < kRanks && t != v.rank) wait_for_flag(v, t, PeerFlag::kFirst, 0, PeerPhase::kSlices, f.operation);
      __syncthreads();
      // A sweep at a time, the more members the fewer: their values want registers.
#pragma unroll(kRanks == 2 ? kSweeps : kRanks == 4 ? 2 : 1)
      for (int sweep = 0; sweep < kSweeps; ++sweep) {
        using P = Place<1, F::kCount>;
        const int at = sweep * kLanes;
        Share<P, 1, F::kCount> sum;
        Pieces<P, 1, F::kCount> bias, part;
        if (p.bias) bias.load(p.bias + at, width - at);
        member_tree<0, kRanks>(
            [&](int member, auto& share) {
              share.load(dealt_values(v, v.rank, member, p.rows, width) + job * width + at, width - at);
            },
            sum);
        finish(sum.v, bias, p.bias != nullptr, part);
        y.v[sweep] = part.v[0];
      }
#pragma unroll
      for (int step = 1; step < kRanks; ++step) y.store(f.result((v.rank + step) % kRanks, row), width);
    } else {
      if (t == 0) wait_for(v, row_flag(v, v.rank, kResultFlag, row), owner, PeerPhase::kResults, f.operation);
      __syncthreads();
      y.load(f.result(v.rank, row), width);
    }
    f.weight.load(p.target.weight, width);
    add_and_norm(p, row, x, y, f.weight);
    // Behind the norm's barriers, and by now on the far side: who posts has little to wait for.
    if (merges && t < kRanks && t != v.rank) f.post_row(t, kResultFlag, row);
  }
  __syncthreads();
  if (t == 0) end_operation(v, f.operation);
}

// Not a dependent launch: what its own linear wrote must have been taken by the peers when it says so.
template <int kRanks, int kSweeps>
void launch_dealt(const Device& device, const PeerView& view, const Rows& rows) {
  const int64_t jobs = rows.rows + RowOwners::held(rows.rows, kRanks, view.rank);
  launch(device,
         {.grid = static_cast<unsigned>(view.crowded ? std::min<int64_t>(jobs, kCrowdedBlocks) : jobs), .block = kLanes / 4},
         merge_norm_dealt<kRanks, kSweeps>, view, rows);
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

// start(ranks, sweeps) of these rows.
template <class Start>
void with_shape(const PeerView& view, const Rows& rows, const Start& start) {
  const auto with_ranks = [&](auto ranks) {
    switch (sweeps_of(rows.target.width)) {
      case 1:
        return start(ranks, std::integral_constant<int, 1>());
      case 2:
        return start(ranks, std::integral_constant<int, 2>());
      case 4:
        return start(ranks, std::integral_constant<int, 4>());
      case 5:
        return start(ranks, std::integral_constant<int, 5>());
      default:
        return start(ranks, std::integral_constant<int, 8>());
    }
  };
  if (view.ranks == 2) return with_ranks(std::integral_constant<int, 2>());
  if (view.ranks == 4) return with_ranks(std::integral_constant<int, 4>());
  with_ranks(std::integral_constant<int, 8>());
}

Rows rows_of(const PeerMerge& p, const PeerNorm& next, const float* own) {
  const int64_t width = p.outputs;
  return {.own = own,
          .bias = p.bias,
          .x = next.x + p.begin,
          .target = {next.weight, next.normed + p.begin, width, static_cast<int>(width), next.epsilon},
          .rows = (p.end - p.begin) / width};
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

int64_t peer_dealt_norm_limit(const PeerView& view, int64_t outputs) {
  if (outputs % kPiece || outputs > kMostSweeps * kLanes || (view.ranks != 2 && view.ranks != 4 && view.ranks != 8)) return 0;
  // A member's values of whole blocks of its own rows.
  const int64_t turn = int64_t{RowOwners::kBlock} * view.ranks;
  const auto turns = static_cast<int64_t>(view.layout.values_bytes) / (turn * outputs * int64_t{sizeof(float)});
  return std::min({int64_t{kMostPeerRows}, turns * turn,
                   static_cast<int64_t>(view.layout.results_bytes) / (outputs * int64_t{sizeof(Bf16)})});
}

RowOwners peer_owners(const PeerView& view, int64_t rows, int64_t outputs) {
  RowOwners to{.count = view.ranks};
  for (int owner = 0; owner < view.ranks; ++owner) to.values[owner] = dealt_values(view, owner, view.rank, rows, outputs);
  return to;
}

void peer_dealt_norm(const Device& device, const PeerView& view, const PeerMerge& p, const PeerNorm& next) {
  const Rows rows = rows_of(p, next, nullptr);
  with_shape(view, rows, [&](auto ranks, auto sweeps) { launch_dealt<ranks(), sweeps()>(device, view, rows); });
}

}  // namespace invar::cuda
