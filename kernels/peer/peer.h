// Kernels whose operands lie in the memory of several GPUs: ranks of one host that write into each other's windows and wait on
// the device for what the others write. What they add they add in the order of clause 4; the rest is moved bytes.
//
// Only a build with CUDA has these functions. Every member of a group queues the same operations in the same order; an operation
// is over when its results are there, and no rank begins one before its own stream has come to it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device/device.h"
#include "kernels/linear/linear.h"
#include "kernels/numerics.h"

namespace invar {

inline constexpr int kMostPeers = 8;
inline constexpr int kMostPeerBlocks = 256;  // of one launch: each has flags of its own
inline constexpr int kMostPeerRows = 16384;  // of one launch whose rows have flags of their own

// What a wait of the device was for.
enum class PeerPhase : uint32_t { kNone, kGreeting, kValues, kSlices, kResults, kRows, kShards, kArrivals };

// In page-locked host memory. The device writes it when a wait is given up, the host sets `stop` to end every wait.
struct PeerRecord {
  uint32_t state;  // kWaiting until a wait is given up
  uint32_t stop;
  uint32_t phase;  // PeerPhase
  int32_t peer;    // place in the group
  uint64_t operation;
  uint64_t waited_ns;
  static constexpr uint32_t kWaiting = 0, kExpired = 1, kStopped = 2;
};

// No sum is this NaN: additions leave 0x7fffffff. All bytes are equal, so that an area can be filled with it.
inline constexpr uint32_t kAbsentWord = 0xffffffffu;

// A rank's window: this header, then the areas. Offsets are the same in every member's window.
struct PeerControl {
  uint64_t operations;  // finished by this rank: the number of the next operation less one
  uint32_t ticket;      // blocks of the running operation that are through
  uint32_t gave_up;
};
struct PeerLayout {
  size_t quick_bytes = 0;    // each of two areas that hold values with the number of the operation beside them
  size_t rows_bytes = 0;     // each of two areas of rows that one round of flags speaks for
  size_t values_bytes = 0;   // values that flags speak for
  size_t results_bytes = 0;  // and what became of them: apart, since a peer may still read these when new values come
  size_t arrival_bytes = 0;  // each of two areas that linears write into: kAbsentWord wherever no value waits to be read
  size_t whole_bytes = 0;    // joined rows of shards, on member 0

  static constexpr size_t kFlags = 4096;  // uint64 [kinds][members][kMostPeerBlocks]
  static constexpr size_t kFlagKinds = 3;
  static constexpr size_t kRowFlags = kFlags + kFlagKinds * kMostPeers * kMostPeerBlocks * 8;  // [members + 1][kMostPeerRows]
  static constexpr size_t kHeader = kRowFlags + (kMostPeers + 1) * kMostPeerRows * 8;
  INVAR_HD size_t quick(uint64_t operation) const { return kHeader + (operation % 2) * quick_bytes; }
  INVAR_HD size_t rows(uint64_t operation) const { return kHeader + 2 * quick_bytes + (operation % 2) * rows_bytes; }
  INVAR_HD size_t values() const { return kHeader + 2 * quick_bytes + 2 * rows_bytes; }
  INVAR_HD size_t results() const { return values() + values_bytes; }
  INVAR_HD size_t arrivals(uint64_t operation) const { return results() + results_bytes + (operation % 2) * arrival_bytes; }
  INVAR_HD size_t whole() const { return arrivals(0) + 2 * arrival_bytes; }
  size_t bytes() const { return whole() + whole_bytes; }
};

// A group as one of its ranks sees it.
struct PeerView {
  int rank = 0;
  int ranks = 1;
  std::byte* window[kMostPeers] = {};  // of each member, as this rank's GPU reaches it
  PeerLayout layout;
  PeerRecord* record = nullptr;
  uint64_t deadline_ns = 0;
  // Members share a GPU: few blocks at a time, and no kernel behind a waiting one takes the room that a peer needs.
  bool crowded = false;
};

// Values of tree nodes (kernels/merge/merge.h), each on one member: `nodes` of all members, ascending, member r's are
// [first[r], first[r + 1]). Elements [begin, end) of [rows][outputs]; this member's values of node first[rank] + i are at
// partials + i * stride, element 0 of the whole matrix.
struct PeerMerge {
  int64_t outputs = 0;
  int64_t begin = 0;
  int64_t end = 0;
  std::span<const numerics::TreeNode> nodes;  // host; at most kSegments
  std::array<int, kMostPeers + 1> first{};
  const float* partials = nullptr;
  int64_t stride = 0;
  bool listed_order = false;   // as in MergeNodes
  const Bf16* bias = nullptr;  // [outputs] or null; constant data
};
// As merge_residual_norm() of kernels/merge: rows [begin, end) / outputs.
struct PeerNorm {
  Bf16* x = nullptr;
  const Bf16* weight = nullptr;
  float epsilon = 0;
  Bf16* normed = nullptr;
};

// How rows travel. Equal bits.
enum class PeerWay : uint8_t {
  kUnits,      // one round, twice the bytes, no flags: few rows
  kFlags,      // one round
  kTwoRounds,  // to the member that merges the row, its result to all: many rows, many members
};

namespace cuda {

// The most elements of [begin, end) that one call of each takes; 0: this problem is not for it.
int64_t peer_merge_quick_limit(const PeerView& view, const PeerMerge& problem);
int64_t peer_merge_slices_limit(const PeerView& view, const PeerMerge& problem, const Bf16* y);
// Rows that one call of peer_merge_norm() takes; 0: none.
int64_t peer_merge_norm_limit(const PeerView& view, const PeerMerge& problem, const PeerNorm& next, PeerWay way);

// One round: every value to every member, the whole tree on each. y: element 0.
void peer_merge_quick(const Device& device, const PeerView& view, const PeerMerge& problem, Bf16* y);
// Two rounds: each member merges a slice of the values and sends the bf16 result to all.
void peer_merge_slices(const Device& device, const PeerView& view, const PeerMerge& problem, Bf16* y);
// With what follows in a decoder, in one launch.
void peer_merge_norm(const Device& device, const PeerView& view, const PeerMerge& problem, const PeerNorm& next, PeerWay way);

// The same where linears of all members have sent their values (peer_targets()) to every member's arrivals,
// [nodes.size()][rows][outputs] from element `begin` on, this member's own too: one round, and nothing is sent here. Any nodes,
// at least one of each member. `partials` and `stride` mean nothing. It begins while this member's linear still runs, so it has
// to be the next thing queued behind it, and it counts on that linear to begin behind everything else.
void peer_arrivals_norm(const Device& device, const PeerView& view, const PeerMerge& problem, const PeerNorm& next);
// Rows of so many outputs that one call takes, `nodes` of all members; 0: none. x, weight, bias, normed: 16-byte aligned.
int64_t peer_arrivals_norm_limit(const PeerView& view, int64_t outputs, int64_t nodes);
// Where this member's linear sends its values, rows * outputs = `count` of each node, when its first node is the `first`-th of
// all.
RowTargets peer_targets(const PeerView& view, int64_t first, int64_t count);

// And where linears of many rows have dealt their values to the members (peer_owners()), each of which merges its rows and sends
// the results to all. One node a member, on 2, 4 or 8 of them, and all rows in one call. It begins when this member's linear has
// ended.
void peer_dealt_norm(const Device& device, const PeerView& view, const PeerMerge& problem, const PeerNorm& next);
// Rows of so many outputs that one call takes; 0: none. x, weight, bias, normed: 16-byte aligned.
int64_t peer_dealt_norm_limit(const PeerView& view, int64_t outputs);
// Where this member's linear deals its values.
RowOwners peer_owners(const PeerView& view, int64_t rows, int64_t outputs);

// Row r of x [rows][width] goes from the member that holds id ids[r], i.e. whose [first_id[m], first_id[m + 1]) has it, to all.
struct PeerRows {
  int64_t rows = 0;
  int64_t width = 0;
  const int32_t* ids = nullptr;
  std::array<int64_t, kMostPeers + 1> first_id{};
  Bf16* x = nullptr;
};
int64_t peer_rows_limit(const PeerView& view, int64_t width);  // rows of one call
void peer_rows(const Device& device, const PeerView& view, const PeerRows& problem);

// Columns [column, column + width) of rows of `stride` floats in member 0's `whole` area. Member 0 has written its own there
// before; the others send `part` [rows][width].
struct PeerShards {
  int64_t rows = 0;
  int64_t stride = 0;
  int64_t column = 0;
  int64_t width = 0;
  const float* part = nullptr;
};
void peer_shards(const Device& device, const PeerView& view, const PeerShards& problem);

// Nothing but the meeting: returns (on the device) when every member has come to it.
void peer_greeting(const Device& device, const PeerView& view);

}  // namespace cuda
}  // namespace invar
