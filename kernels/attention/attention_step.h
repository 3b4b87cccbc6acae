// Which rows of a step see which keys: made once per step on the host, read by the attention of every layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/cuda/plan.h"
#include "kernels/device/device.h"

namespace invar {

// For how many heads the work of a step is cut. Only speed depends on it; a problem may have other heads.
struct AttentionHeads {
  int64_t kv = 1;     // KV heads of this rank
  int64_t group = 1;  // most query heads that read one of them
};

// Row r is a query at absolute position positions[r] of sequence sequences[r]. One staging block on the host goes to the device
// in one copy, and nothing a kernel is launched with depends on what is in it: a CUDA graph of attention() may be replayed after
// another reset() as long as generation(), rows() and the answers of has_decode(), has_prefill() and has_merges() are what they
// were.
class AttentionStep {
 public:
  // Room for steps of up to so many rows, entries of all page tables together, and splits of 512 keys of all rows together.
  // A step that needs more is not refused: memory grows and generation() moves on.
  void reserve(const Device& device, int64_t rows, int64_t page_entries, int64_t splits);

  // A sequence with one row: kernels may read the keys and values below it before the kernels that are queued ahead of
  // attention() have ended, so they must have been written before the reset().
  //
  // Host data, copied. page_tables: per sequence, page of tokens [i * page_size, (i + 1) * page_size); entries outside every
  // row's window are not read, and may be negative.
  void reset(const Device& device, std::span<const int32_t> positions, std::span<const int32_t> sequences,
             std::span<const std::span<const int32_t>> page_tables, int64_t page_size, AttentionHeads heads = {});

  int64_t rows() const { return rows_; }
  int64_t sequence_count() const { return sequence_count_; }
  int64_t page_size() const { return page_size_; }
  // Memory of the backend (host memory on the CPU).
  const int32_t* positions() const { return at(positions_); }   // [rows], same address in every step of a generation
  const int32_t* sequences() const { return at(sequences_); }   // [rows]
  const int32_t* page_entries() const { return at(entries_); }  // all page tables, one behind the other
  const int32_t* page_begins() const { return at(begins_); }    // [sequences + 1] where each begins in page_entries()
  // The host's copies, on either backend.
  std::span<const int32_t> host_positions() const { return {host_at(positions_), static_cast<size_t>(rows_)}; }
  std::span<const int32_t> host_sequences() const { return {host_at(sequences_), static_cast<size_t>(rows_)}; }
  std::span<const int32_t> page_table(int64_t sequence) const {
    const int32_t* begins = host_at(begins_);
    return {host_at(entries_) + begins[sequence], static_cast<size_t>(begins[sequence + 1] - begins[sequence])};
  }

  // Moves on when memory that kernels read has moved, or will move with the next attention().
  uint64_t generation() const { return generation_; }

  // Below: for the CUDA backend.
  const cuda::AttentionPlan& plan() const { return plan_; }
  bool has_decode() const { return !plan_.decode.empty(); }    // sequences with one row
  bool has_prefill() const { return !plan_.prefill.empty(); }  // sequences with more
  bool has_merges() const { return plan_.decode_merges > 0; }  // a sequence with one row sees keys of several splits
  const cuda::PlanHeader* device_plan() const { return reinterpret_cast<const cuda::PlanHeader*>(device_.data()); }
  // Room for the states of splits, `floats` for each (row, split) that is kept.
  float* states(const Device& device, int64_t floats) const;

 private:
  const int32_t* host_at(int64_t offset) const { return host_.as<int32_t>() + offset; }
  const int32_t* at(int64_t offset) const { return (on_device_ ? device_ : host_).as<int32_t>() + offset; }
  void make_room(const Device& device, int64_t words);
  size_t states_bytes() const;

  int64_t rows_ = 0, sequence_count_ = 0, page_size_ = 0;
  int64_t positions_ = 0, sequences_ = 0, entries_ = 0, begins_ = 0;  // in int32 from the start of the block
  int64_t reserved_states_ = 0;
  mutable int64_t state_floats_ = 0;  // most that a problem of this step's user has asked for
  bool on_device_ = false;
  Buffer host_, device_;
  cuda::AttentionPlan plan_;
  mutable Buffer states_;
  mutable uint64_t generation_ = 0;
};

}  // namespace invar
