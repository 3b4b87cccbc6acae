// The same where linears of many rows have dealt their values to the members that merge them.
#include "kernels/peer/cuda/peer_members.cuh"

namespace invar::cuda {
namespace {

// Where member `of` deals its values of the rows that member `at` owns.
__host__ __device__ inline float* dealt_values(const PeerView& v, int at, int of, int64_t rows, int64_t width) {
  return reinterpret_cast<float*>(v.window[at] + v.layout.values()) + of * RowOwners::held(rows, v.ranks, 0) * width;
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

}  // namespace

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
