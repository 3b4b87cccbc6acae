// ExpertExchange: rows of tokens to the ranks that hold their experts, and the experts' rows back home (clauses 10 and 11).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/device.h"
#include "parallel/transport/group.h"

namespace invar::parallel {

// A message carries whole rows of at most this many bytes together (one row, should a row be longer).
inline constexpr int64_t kExchangeChunkBytes = 256 << 10;

// What a rank got to compute. Rows are sorted by (expert, source ep rank, source row, slot), whatever order they arrived in.
// Valid until the next dispatch.
struct DispatchedRows {
  const Bf16* x = nullptr;           // [offsets.back()][width]
  std::span<const int64_t> offsets;  // host; local experts + 1: rows of local expert e are [offsets[e], offsets[e + 1])
  int64_t rows() const { return offsets.back(); }
};
// What came home: the input of kernels/moe Combine. Valid until the next dispatch and while `results` lives.
struct ReturnedRows {
  const Bf16* expert_rows = nullptr;        // [*][width]
  const int64_t* row_of = nullptr;          // [n][top_k]; -1 = dropped (ControlArm::kExpertCapacity only)
  std::span<const int64_t> row_of_on_host;  // the same
};

// Row numbers the host worked out, where the device can read them. Valid until the next place().
class DeviceIndex {
 public:
  const int64_t* place(const Device& device, std::span<const int64_t> values);

 private:
  Buffer buffer_;
};

// One of these per rank, used for layer after layer; scratch grows to the largest step seen. With one ep rank nothing is sent,
// the rest of the way is the same. No capacity limit: a step in which every token takes one expert is legal.
class ExpertExchange {
 public:
  // owner[expert] = ep index of the rank that holds it, the same on each rank; any placement, ranks without experts included.
  ExpertExchange(const Device& device, const Group& ep, std::vector<int> owner);

  // Global ids of the experts this rank holds, ascending: local expert e is local_experts()[e].
  const std::vector<int>& local_experts() const { return local_experts_; }

  // Collective over the group, each member with its own n (0 too) and the same width and top_k: rows [n][width],
  // ids [n][top_k], each in [0, experts). Waits for the ids to be there. Throws PeerFailure.
  DispatchedRows dispatch(const Bf16* rows, int64_t n, int64_t width, const int32_t* ids, int64_t top_k);
  // Collective: `results` [rows of the last dispatch][width] in dispatched order. Throws PeerFailure.
  ReturnedRows combine_return(const Bf16* results);

 private:
  struct Stretch {  // consecutive rows, those between this rank and one peer
    int64_t first = 0;
    int64_t count = 0;
  };
  struct Piece {  // the rows of one source for one local expert
    int source;
    int64_t in_stretch;  // first of them, counted from the start of the source's stretch
    int64_t in_sorted;
    int64_t count;
  };
  void exchange_counts();
  void order_arrivals();
  void move_rows(const Bf16* from, const std::vector<Stretch>& sent, Bf16* to, const std::vector<Stretch>& received,
                 const char* name);
  void reorder(const Bf16* from, const std::vector<int64_t>& index, DeviceIndex& place, Bf16* to);
  Bf16* rows_of(Buffer& buffer, int64_t rows);

  const Device* device_;
  Group ep_;
  Group ep_host_;  // the same ranks, for counts
  std::vector<int> owner_;
  std::vector<std::vector<int>> experts_of_;  // by ep index, ascending
  std::vector<int> local_experts_;
  std::vector<int64_t> place_;  // by expert: its place in the order (owner, id)

  // Of the last dispatch.
  int64_t width_ = 0;
  std::vector<int32_t> ids_;              // on the host
  std::vector<int64_t> row_of_;           // home: index of (row, slot) in home order
  std::vector<int64_t> sent_counts_;      // home: rows for each expert, by place
  std::vector<int64_t> received_counts_;  // owner: [source][local expert]
  std::vector<Stretch> home_;             // by peer, in home order
  std::vector<Stretch> source_;           // by peer, in arrival order; empty for this rank itself
  std::vector<Piece> pieces_;
  std::vector<int64_t> offsets_;
  // Row numbers: of the tokens in home order; of travelled_ rows in dispatched order; of results in arrival order, and for the
  // rows that never left.
  std::vector<int64_t> token_of_, travelled_of_, leaving_of_, staying_of_;
  DeviceIndex row_of_index_, token_index_, travelled_index_, leaving_index_, staying_index_;
  Buffer travelled_;    // home order (owner, expert, row, slot), then arrivals (source, expert, row, slot) without own rows
  Buffer sorted_rows_;  // dispatched order: (expert, source, row, slot)
};

}  // namespace invar::parallel
