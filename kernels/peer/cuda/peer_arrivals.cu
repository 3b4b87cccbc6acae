// Rows whose values linears have written into the windows of all members: the sum over all nodes, and what follows in a decoder.
//
// It runs beside the linear that sends this member's values. Everything before that linear has ended, since its blocks let this
// kernel in behind their own waits; the linear itself is waited for at the end only, for the sake of those who come later. Which
// values are there, the words say. Each is made absent again once it is read: nobody writes into this area before the next
// operation but one, and who does knows that this one has ended here.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_nodes.cuh"
#include "kernels/peer/cuda/peer_rows.cuh"

namespace invar::cuda {
namespace {

using namespace peers;  // NOLINT: rows on a block

constexpr int kCrowdedBlocks = 4;           // of a member that shares its GPU
constexpr int64_t kRowsOfManyThreads = 16;  // more threads a row, fewer accesses of each one behind the other: few rows

struct Nodes {
  int8_t owner[numerics::kSegments];   // by place (kernels/merge/cuda/merge_tree.cuh)
  int8_t number[numerics::kSegments];  // by place: which of all nodes it is
  unsigned present;                    // bit i: place i is taken
  int own;                             // a node of this member
};

__device__ inline bool absent(float v) { return numerics::float_bits(v) == kAbsentWord; }

__device__ inline void load_arrivals(const float* from, float (&v)[2]) {
  asm volatile("ld.relaxed.sys.global.v2.f32 {%0, %1}, [%2];" : "=f"(v[0]), "=f"(v[1]) : "l"(from) : "memory");
}
__device__ inline void load_arrivals(const float* from, float (&v)[4]) {
  asm volatile("ld.relaxed.sys.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "l"(from)
               : "memory");
}
template <int kCount>
__device__ inline void forget_arrivals(float* at) {
  FloatPiece<kCount> none;
#pragma unroll
  for (int i = 0; i < kCount; ++i) none.v[i] = numerics::bits_float(kAbsentWord);
  *reinterpret_cast<FloatPiece<kCount>*>(at) = none;
}

// kNodes nodes of one level that cover all segments; 0: any.
template <int kNodes, int kSweeps, int kCount>
struct Arrivals {
  static constexpr int kPlaces = kNodes ? kNodes : numerics::kSegments;
  // Sweeps whose loads are under way together, as registers allow.
  static constexpr int kAtOnce = 32 / (kPlaces * kCount) < 1         ? 1
                                 : 32 / (kPlaces * kCount) < kSweeps ? 32 / (kPlaces * kCount)
                                                                     : kSweeps;
  using P = Place<kSweeps, kCount>;
  const PeerView& view;
  const Nodes& nodes;
  float* area;
  uint64_t operation;
  int64_t rows, row;
  int width;

  __device__ bool taken(int place) const { return kNodes || nodes.present >> place & 1; }
  __device__ int number(int place) const { return kNodes ? place : nodes.number[place]; }
  __device__ int owner(int place) const { return kNodes ? place : nodes.owner[place]; }
  __device__ float* at(int number, int s) const { return area + (number * rows + row) * width + P::first() + s * kLanes; }

  // Until this member's linear has come to its end: one access of a warp, so that it may use the memory meanwhile. All lanes
  // leave together: one that was still looking would find the word absent again, once the lane whose value it is has read it.
  __device__ void await_own() const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (P::first() - lane * kCount >= width) return;
    const float* first = at(nodes.own, 0) - lane * kCount;
    PeerPatience patience;
    for (;;) {
      float v;
      asm volatile("ld.relaxed.sys.global.f32 %0, [%1];" : "=f"(v) : "l"(first) : "memory");
      if (__any_sync(~0u, !absent(v))) return;
      if (__any_sync(~0u, !patient(view, patience, view.rank, PeerPhase::kArrivals, operation))) return;
    }
  }

  __device__ void sum(float (&root)[kSweeps][kCount]) const {
#pragma unroll
    for (int begin = 0; begin < kSweeps; begin += kAtOnce) {
      float v[kAtOnce][kPlaces][kCount];
      PeerPatience patience;
      for (;;) {
        int missing = -1;
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s)
#pragma unroll
          for (int place = 0; place < kPlaces; ++place)
            if (begin + s < kSweeps && taken(place) && P::within(begin + s, width))
              load_arrivals(at(number(place), begin + s), v[s][place]);
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s)
#pragma unroll
          for (int place = 0; place < kPlaces; ++place)
            if (begin + s < kSweeps && taken(place) && P::within(begin + s, width)) {
#pragma unroll
              for (int i = 0; i < kCount; ++i)
                if (absent(v[s][place][i])) missing = owner(place);
            }
        if (missing < 0 || !patient(view, patience, missing, PeerPhase::kArrivals, operation)) break;
      }
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) {
        if (begin + s >= kSweeps) break;
#pragma unroll
        for (int place = 0; place < kPlaces; ++place)
          if (taken(place) && P::within(begin + s, width)) forget_arrivals<kCount>(at(number(place), begin + s));
        if constexpr (kNodes) {
          fold_level(v[s]);
#pragma unroll
          for (int i = 0; i < kCount; ++i) root[begin + s][i] = v[s][0][i];
        } else {
          tree_roots<kCount>(
              nodes.present,
              [&](int place, float(&value)[kCount]) {
#pragma unroll
                for (int i = 0; i < kCount; ++i) value[i] = v[s][place][i];
              },
              root[begin + s]);
        }
      }
    }
  }
};

template <int kNodes, int kSweeps, int kCount>
__global__ void __launch_bounds__(kLanes / kCount)
    arrivals_norm(const __grid_constant__ PeerView v, const __grid_constant__ Nodes nodes, const __grid_constant__ Rows p) {
  using P = Place<kSweeps, kCount>;
  const int width = p.target.width;
  if (!v.crowded) let_successor_start();
  Pieces<P, kSweeps, kCount> weight, bias, x, y;
  weight.load(p.target.weight, width);
  if (p.bias) bias.load(p.bias, width);
  const uint64_t operation = __ldcg(&control_of(v)->operations) + 1;
  float* area = reinterpret_cast<float*>(v.window[v.rank] + v.layout.arrivals(operation));
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    x.load_written(p.x + row * width, width);
    const Arrivals<kNodes, kSweeps, kCount> arrivals{v, nodes, area, operation, p.rows, row, width};
    arrivals.await_own();
    float root[kSweeps][kCount];
    arrivals.sum(root);
    finish(root, bias, p.bias != nullptr, y);
    if (row >= gridDim.x) __syncthreads();  // the norm's shared memory may still be read for the row before
    add_and_norm(p, row, x, y, weight);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    wait_for_predecessors();
    end_operation(v, operation);
  }
}

template <int kNodes, int kCount>
void launch_sweeps(const Device& device, const PeerView& view, const Nodes& nodes, const Rows& rows) {
  const Launch shape{.grid = static_cast<unsigned>(view.crowded ? std::min<int64_t>(rows.rows, kCrowdedBlocks) : rows.rows),
                     .block = kLanes / kCount,
                     .dependent = true};
  const int sweeps = sweeps_of(rows.target.width);
  launch(device, shape,
         sweeps == 1   ? arrivals_norm<kNodes, 1, kCount>
         : sweeps == 2 ? arrivals_norm<kNodes, 2, kCount>
         : sweeps == 4 ? arrivals_norm<kNodes, 4, kCount>
         : sweeps == 5 ? arrivals_norm<kNodes, 5, kCount>
                       : arrivals_norm<kNodes, 8, kCount>,
         view, nodes, rows);
}

template <int kNodes>
void launch_nodes(const Device& device, const PeerView& view, const Nodes& nodes, const Rows& rows) {
  rows.rows <= kRowsOfManyThreads ? launch_sweeps<kNodes, 2>(device, view, nodes, rows)
                                  : launch_sweeps<kNodes, 4>(device, view, nodes, rows);
}

}  // namespace

int64_t peer_arrivals_norm_limit(const PeerView& view, int64_t outputs, int64_t nodes) {
  if (outputs % kPiece || outputs > kMostSweeps * kLanes || nodes == 0) return 0;
  return static_cast<int64_t>(view.layout.arrival_bytes) / (outputs * 4 * nodes);
}

RowTargets peer_targets(const PeerView& view, int64_t first, int64_t count) {
  RowTargets to;
  to.area = static_cast<int64_t>(view.layout.arrival_bytes / sizeof(float));
  to.turn = &reinterpret_cast<const PeerControl*>(view.window[view.rank])->operations;
  to.absent = kAbsentWord;
  // The way to others is longer; and what this member waits for first is its own.
  for (int step = 1; step <= view.ranks; ++step)
    to.values[to.count++] =
        reinterpret_cast<float*>(view.window[(view.rank + step) % view.ranks] + view.layout.arrivals(0)) + first * count;
  return to;
}

void peer_arrivals_norm(const Device& device, const PeerView& view, const PeerMerge& p, const PeerNorm& next) {
  const int64_t width = p.outputs;
  const Rows rows{.own = nullptr,
                  .bias = p.bias,
                  .x = next.x + p.begin,
                  .target = {next.weight, next.normed + p.begin, width, static_cast<int>(width), next.epsilon},
                  .rows = (p.end - p.begin) / width};
  const PeerNodes all = nodes_of(view, p);
  Nodes nodes{.present = all.present, .own = p.first[view.rank]};
  std::copy_n(all.owner, numerics::kSegments, nodes.owner);
  std::copy_n(all.number, numerics::kSegments, nodes.number);
  if (!one_node_each(view, p)) return launch_sweeps<0, 4>(device, view, nodes, rows);
  if (view.ranks == 2) return launch_nodes<2>(device, view, nodes, rows);
  if (view.ranks == 4) return launch_nodes<4>(device, view, nodes, rows);
  launch_nodes<8>(device, view, nodes, rows);
}

}  // namespace invar::cuda
