// Who does what in a step's attention on a GPU: plain data, made by a pure function on the host.
//
// Rows of a sequence, ordered by position, form tiles; a work item is a tile and a range of its splits, for each KV head. A tile
// that one item does whole needs nothing else. Otherwise each split of it leaves a state, and a second kernel merges the states
// of a row in ascending order. What is split up depends on the batch and the machine; the bits do not, because a split's state
// depends on the query and its keys alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace invar::cuda {

struct PlanRow {
  int32_t row = 0;
  int32_t position = 0;
};

// A tile with the splits [first_split, last_split) of it; all that a kernel needs to begin.
struct alignas(16) PlanItem {
  int32_t first_split = 0, last_split = 0;
  int32_t first = 0;  // the tile's rows are order[first], ..., in ascending order of positions
  int32_t rows = 0;
  int32_t row = 0;             // order[first].row
  int32_t first_position = 0;  // order[first].position
  int32_t end_key = 0;         // behind the last key any of its rows sees
  int32_t states = -1;         // first of the tile's rows * splits states, [split][row]; -1: this item does the whole tile
  int32_t pages = 0;           // where the sequence's page table begins in the entries
};

// A row whose states are to be merged.
struct alignas(16) PlanMerge {
  int32_t states = 0, rows = 0;  // of its tile
  int32_t tile_row = 0;
  int32_t row = 0;
  int32_t position = 0;
};

struct AttentionPlan {
  std::vector<PlanRow> order;     // rows by (sequence, position)
  std::vector<PlanItem> decode;   // tiles of one row, one split an item unless there is only one
  std::vector<PlanItem> prefill;  // the rest, most work first
  std::vector<PlanMerge> merges;  // rows of `decode`, then those of `prefill`
  int64_t decode_merges = 0;
  int64_t states = 0;
  int64_t tile_rows = 1;  // most rows of a tile
};

// Start of the block on the device; the arrays follow at these offsets, in int32.
struct PlanHeader {
  int32_t rows, decode_items, prefill_items, decode_merges, merges;
  int32_t positions, order, entries, decode, prefill, merge;
};

inline constexpr int kPlanVectors = 128;  // most query vectors (rows x heads of a group) of a tile

struct PlanMachine {
  int64_t multiprocessors = 1;
  int64_t kv_heads = 1;
  int64_t group = 1;
};

AttentionPlan make_plan(const PlanMachine& machine, std::span<const int32_t> positions, std::span<const int32_t> sequences,
                        std::span<const int32_t> page_begins);

}  // namespace invar::cuda
