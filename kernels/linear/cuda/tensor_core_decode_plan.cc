#include "kernels/linear/cuda/tensor_core_decode_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace invar::cuda::tc {
namespace {

constexpr int kLine = 128;           // bytes of 64 inputs
constexpr int kBarrierBytes = 1024;  // in front of the rings, which begin at a multiple of 1024
constexpr int kWgmmaOutputs = 64;
constexpr int kFewestStages = 3;

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

std::string DecodePlan::describe() const {
  return absl::StrCat(choice.group_outputs, "x", choice.row_groups, " outputs, ", choice.k_groups, " k groups, cluster ",
                      choice.cluster, "x", choice.sharing, ", ", stages, " stages, ", slots, " slots, grid ", grid, "x", threads,
                      ", ", shared >> 10, " KB");
}

std::optional<DecodePlan> decode_plan(const LinearShape& shape, const DecodeChoice& c, const Chip& chip) {
  const int slices = c.k_groups * c.cluster;
  if (shape.rows > kMostDecodeRows || slices > shape.leaves() || c.cluster * c.sharing > kMostCluster) return std::nullopt;
  if (c.row_groups > 1 && c.group_outputs != kWgmmaOutputs) return std::nullopt;
  DecodePlan plan{.choice = c};
  while (plan.tokens < shape.rows) plan.tokens *= 2;
  plan.threads = (c.row_groups * 4 + 1) * c.k_groups * 32;
  if (plan.threads > most_decode_threads(plan.tokens)) return std::nullopt;
  // wgmma's swizzle repeats every eight rows.
  if (plan.tokens / c.sharing < 8) return std::nullopt;
  plan.tile_outputs = c.group_outputs * c.row_groups;
  plan.tiles = (shape.outputs + plan.tile_outputs - 1) / plan.tile_outputs;
  // The first slice of a fold ships the fold of its leaves, every other leaf's
  // value goes alone.
  if (shape.by_segments) {
    plan.subtrees = shape.whole_tree && shape.leaves() % slices == 0 &&
                    (shape.leaves() / slices < 8 || plan.tokens <= kMostTokensOfEightSegments);
    plan.slots = plan.subtrees ? (slices > 1 ? slices : 0) : shape.leaves() > 1 ? shape.leaves() : 0;
  } else if (slices > 1) {
    plan.slots = 1 + shape.leaves() - shape.leaves() / slices;
  }
  const int pieces = plan.tile_outputs * plan.tokens / 4;
  plan.share = (pieces + c.cluster - 1) / c.cluster;
  const int merge_bytes = round_up(plan.slots * plan.share * 16, 1024);
  const int stage_bytes = plan.tile_outputs * kLine + plan.tokens * kLine;
  // What wgmma reads behind a warpgroup's last output must still be this
  // block's memory.
  const int slack = (kWgmmaOutputs - c.group_outputs) * kLine;
  const int budget = std::min(chip.block_shared, chip.shared / c.resident - 1024) - kBarrierBytes - 1024 - slack - merge_bytes;
  plan.stages = std::min(kMostDecodeStages / c.k_groups, budget / (stage_bytes * c.k_groups));
  // A cluster has one tile: a ring longer than its way through k would stay
  // empty.
  int longest = 0;
  for (int s = 0; s < slices; ++s)
    longest =
        std::max(longest, shape.leaf_begin[(s + 1) * shape.leaves() / slices] - shape.leaf_begin[s * shape.leaves() / slices]);
  const int rounds = (plan.tiles + c.sharing - 1) / c.sharing;
  const bool one_tile = c.cluster > 1 || rounds * c.sharing <= chip.multiprocessors * c.resident;
  if (one_tile) plan.stages = std::min(plan.stages, longest);
  if (plan.stages < std::min(kFewestStages, longest)) return std::nullopt;
  plan.grid = c.sharing * (one_tile ? rounds * c.cluster : chip.multiprocessors * c.resident / c.sharing);
  plan.shared = kBarrierBytes + 1024 + plan.stages * stage_bytes * c.k_groups + merge_bytes + slack;
  return plan;
}

namespace {

// What measured best (tensor_core.md, "Decode"), first choice first.
std::vector<DecodeChoice> decode_choices(const LinearShape& shape, const Chip& chip) {
  const int tiles = (shape.outputs + kWgmmaOutputs - 1) / kWgmmaOutputs, leaves = shape.leaves(), slots = chip.multiprocessors;
  const bool few_rows = shape.rows <= 16;
  const auto nearly_fills = [&](int blocks) { return 3 * blocks >= 2 * slots; };
  std::vector<DecodeChoice> choices;
  if (tiles > 2 * slots) {
    // Persistent blocks. As many as leave the fewest of them without a tile in the last round.
    if (tiles > 16 * slots) choices.push_back({.row_groups = 2});
    int resident = 1;
    const auto idle = [&](int r) { return (tiles + slots * r - 1) / (slots * r) * (slots * r) - tiles; };
    for (int r : {2, 3})
      if (few_rows && idle(r) <= idle(resident)) resident = r;
    if (few_rows && resident == 1 && leaves > 1) choices.push_back({.k_groups = 2});
    choices.push_back({.resident = resident});
  } else if (tiles > slots) {
    if (few_rows && leaves > 1) choices.push_back({.cluster = 2, .resident = 3});
    choices.push_back({.resident = 3});
  } else if (nearly_fills(tiles) && leaves > 1) {
    // Three blocks for a tile, three on a multiprocessor: the nearer to all of them, the better.
    if (few_rows && !shape.by_segments && 5 * tiles >= 4 * slots) choices.push_back({.cluster = 3, .resident = 3});
    if (few_rows) choices.push_back({.k_groups = 2, .cluster = 2, .resident = 2});
    if (shape.by_segments) choices.push_back({.k_groups = 2});
    choices.push_back({});
  } else if (!few_rows && 4 * tiles <= slots / 2) {
    choices.push_back({.row_groups = 2, .cluster = 8});
  }
  // As many blocks as nearly fill the chip, then k groups of a block.
  DecodeChoice choice;
  while (!nearly_fills(tiles * choice.cluster) && choice.cluster < kMostCluster && choice.cluster * 2 <= leaves &&
         (few_rows || tiles * choice.cluster * 2 <= slots))
    choice.cluster *= 2;
  if (few_rows && !shape.by_segments && choice.cluster > 1 && 2 * choice.cluster <= kMostCluster &&
      tiles * choice.cluster < slots && leaves >= 4 * choice.cluster) {
    choice.cluster *= 2;  // two blocks a multiprocessor
    choice.resident = 2;
  }
  if (tiles * choice.cluster > slots && choice.cluster > 1) choice.resident = 2;
  // Short ways through k: the next call's blocks start beside this one's.
  const int way = shape.leaf_begin.back() / choice.cluster;
  if (nearly_fills(tiles * choice.cluster) && leaves <= 2 && way <= 32 && (few_rows || choice.cluster == 1)) choice.resident = 2;
  for (int k_groups : {4, 2}) {
    if (k_groups * choice.cluster > leaves || (k_groups == 4 && !(shape.by_segments && few_rows))) continue;
    choice.k_groups = k_groups;
    choices.push_back(choice);
  }
  choice.k_groups = 1;
  choices.push_back(choice);
  // Merging many segments of many rows takes memory; more blocks have more of it.
  for (int cluster = 1; cluster <= kMostCluster; cluster *= 2) choices.push_back({.cluster = cluster});
  choices.push_back({.group_outputs = 16, .cluster = std::min(kMostCluster, leaves)});
  return choices;
}

}  // namespace

DecodePlan decode_plan(const LinearShape& shape, const Chip& chip) {
  for (const DecodeChoice& choice : decode_choices(shape, chip))
    if (auto plan = decode_plan(shape, choice, chip)) return *plan;
  throw DeviceFailure("no plan for a decode linear fits");  // sixteen outputs a block and a segment a block always do
}

std::vector<DecodePlan> decode_plans(const LinearShape& shape, const Chip& chip) {
  std::vector<DecodePlan> plans;
  for (int group_outputs : {64, 32, 16})
    for (int row_groups : {1, 2})
      for (int k_groups : {1, 2, 4})
        for (int cluster : {1, 2, 3, 4, 6, 8})
          for (int sharing : {1, 2, 4})
            for (int resident : {1, 2, 3}) {
              const auto plan = decode_plan(shape, {group_outputs, row_groups, k_groups, cluster, sharing, resident}, chip);
              if (!plan || (cluster > 1 && plan->tiles * cluster > 4 * resident * chip.multiprocessors)) continue;
              plans.push_back(*plan);
            }
  return plans;
}

}  // namespace invar::cuda::tc
