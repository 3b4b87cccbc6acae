#include "kernels/attention/cuda/plan.h"

#include <algorithm>

#include "kernels/numerics.h"

namespace invar::cuda {
namespace {

constexpr int64_t kSplit = numerics::kAttentionSplit;

int32_t splits_of(const PlanItem& tile) { return static_cast<int32_t>((tile.end_key + kSplit - 1) / kSplit); }

// Cuts a tile into items of one split each, whose states are merged afterwards.
void split_up(AttentionPlan& plan, PlanItem tile, std::vector<PlanItem>& items) {
  tile.states = static_cast<int32_t>(plan.states);
  plan.states += int64_t{splits_of(tile)} * tile.rows;
  for (int32_t split = 0; split < splits_of(tile); ++split) {
    tile.first_split = split;
    tile.last_split = split + 1;
    items.push_back(tile);
  }
  for (int32_t i = 0; i < tile.rows; ++i) {
    const PlanRow row = plan.order[tile.first + i];
    plan.merges.push_back({tile.states, tile.rows, i, row.row, row.position});
  }
}

void do_whole(PlanItem tile, std::vector<PlanItem>& items) {
  tile.last_split = splits_of(tile);
  items.push_back(tile);
}

}  // namespace

AttentionPlan make_plan(const PlanMachine& machine, std::span<const int32_t> positions, std::span<const int32_t> sequences,
                        std::span<const int32_t> page_begins) {
  AttentionPlan plan;
  const size_t rows = positions.size();
  for (size_t r = 0; r < rows; ++r) plan.order.push_back({static_cast<int32_t>(r), positions[r]});
  const auto before = [&](const PlanRow& a, const PlanRow& b) {
    return sequences[a.row] != sequences[b.row] ? sequences[a.row] < sequences[b.row] : a.position < b.position;
  };
  if (!std::is_sorted(plan.order.begin(), plan.order.end(), before))
    std::stable_sort(plan.order.begin(), plan.order.end(), before);

  const auto tile_rows = static_cast<size_t>(std::max<int64_t>(1, kPlanVectors / std::max<int64_t>(1, machine.group)));
  plan.tile_rows = static_cast<int64_t>(tile_rows);
  std::vector<PlanItem> single, several;  // tiles
  for (size_t begin = 0; begin < rows;) {
    const int32_t sequence = sequences[plan.order[begin].row];
    size_t end = begin;
    while (end < rows && sequences[plan.order[end].row] == sequence) ++end;
    for (size_t first = begin; first < end; first += tile_rows) {
      const size_t count = std::min(tile_rows, end - first);
      (end - begin == 1 ? single : several)
          .push_back({.first = static_cast<int32_t>(first),
                      .rows = static_cast<int32_t>(count),
                      .row = plan.order[first].row,
                      .first_position = plan.order[first].position,
                      .end_key = plan.order[first + count - 1].position + 1,
                      .pages = page_begins[sequence]});
    }
    begin = end;
  }

  for (const PlanItem& tile : single) {
    if (splits_of(tile) == 1)
      do_whole(tile, plan.decode);
    else
      split_up(plan, tile, plan.decode);
  }
  plan.decode_merges = static_cast<int64_t>(plan.merges.size());

  // Tiles of prompts are done whole unless the longest would keep most of the machine waiting: then all splits are spread evenly,
  // half as slow again for the states that go through memory.
  int64_t splits = 0, longest = 0;
  for (const PlanItem& tile : several) {
    splits += splits_of(tile);
    longest = std::max<int64_t>(longest, splits_of(tile));
  }
  const int64_t items = static_cast<int64_t>(several.size()) * machine.kv_heads;
  const bool spread = items <= machine.multiprocessors && 3 * splits * machine.kv_heads < 2 * longest * machine.multiprocessors;
  for (const PlanItem& tile : several) {
    if (spread && splits_of(tile) > 1)
      split_up(plan, tile, plan.prefill);
    else
      do_whole(tile, plan.prefill);
  }
  const auto work = [](const PlanItem& item) {
    return (std::min<int64_t>(item.end_key, item.last_split * kSplit) - item.first_split * kSplit) * item.rows;
  };
  std::stable_sort(plan.prefill.begin(), plan.prefill.end(),
                   [&](const PlanItem& a, const PlanItem& b) { return work(a) > work(b); });
  return plan;
}

}  // namespace invar::cuda
