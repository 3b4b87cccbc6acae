#include "kernels/linear/cuda/tensor_core_prefill_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace invar::cuda::tc {
namespace {

struct TileKind {
  PrefillMerge merge;
  int columns;
  double cost;  // of one tile, in columns of the widest: narrow tiles fetch more for each product
};
// The kernels there are.
constexpr TileKind kTiles[] = {
    {PrefillMerge::kChain, 256, 256}, {PrefillMerge::kTurns, 128, 120}, {PrefillMerge::kFold, 192, 196},
    {PrefillMerge::kFold, 160, 166},  {PrefillMerge::kFold, 128, 139},  {PrefillMerge::kFold, 96, 104},
    {PrefillMerge::kFold, 64, 80},    {PrefillMerge::kTree, 128, 140},
};
// What meeting costs a part of a tile: so many blocks of 64 k.
constexpr double kMeeting = 17;
// Values that wait for each other must have room (CudaContext::scratch).
constexpr int64_t kSharedBytes = int64_t{48} << 20;
constexpr int64_t kMostSharedTiles = 256;

bool fits(PrefillMerge merge, const LinearShape& shape) {
  switch (merge) {
    case PrefillMerge::kChain:
    case PrefillMerge::kTurns:
      return shape.leaves() == 1;
    case PrefillMerge::kFold:
      return !shape.by_segments || shape.leaves() <= 2;
    case PrefillMerge::kTree:
      return shape.by_segments && (shape.leaves() == 4 || shape.leaves() == 8);
  }
  return false;
}

int64_t weight_bytes(const LinearShape& shape) {
  return int64_t{shape.outputs} * (shape.leaf_begin.back() - shape.leaf_begin.front()) * 128;
}

// Blocks that fetch weights for each other wait for each other: worth it where weights come from far, or where tiles are narrow
// and many.
int preferred_cluster(const LinearShape& shape, const TileKind& tile) {
  const int blocks = shape.leaf_begin.back() - shape.leaf_begin.front();
  switch (tile.merge) {
    case PrefillMerge::kChain:
      return 1;
    case PrefillMerge::kTurns:
      return shape.rows >= 2048 && blocks > 8 ? 2 : 1;
    case PrefillMerge::kTree:
      return shape.rows >= 2048 || weight_bytes(shape) > (int64_t{256} << 20) ? 2 : 1;
    case PrefillMerge::kFold:
      break;
  }
  if (tile.columns >= 192) return weight_bytes(shape) > (int64_t{100} << 20) ? 2 : 1;
  return shape.rows >= 2048 || weight_bytes(shape) >= (int64_t{64} << 20) ? 2 : 1;
}

// As many tiles of rows, a power of two, as have so much of x. Narrow tiles ask more of the second-level cache.
int band_of(const LinearShape& shape, PrefillMerge merge) {
  if ((merge == PrefillMerge::kTree || merge == PrefillMerge::kTurns) && shape.rows >= 2048) return 4;
  constexpr int64_t kBandBytes = int64_t{60} << 20;
  const int64_t tile_bytes = int64_t{kPrefillTileRows} * (shape.leaf_begin.back() - shape.leaf_begin.front()) * 128;
  int band = 16;
  while (band > 2 && band * tile_bytes > kBandBytes) band /= 2;
  return band;
}

// Beyond it a tile's outputs are little beside its products, and a wide tile fetches less.
constexpr int kMostTurnBlocks = 24;

int units_of(const PrefillPlan& plan) { return (plan.row_tiles + plan.cluster - 1) / plan.cluster * plan.column_tiles; }

// Tiles that the busiest block has.
double rounds(const LinearShape& shape, const PrefillPlan& plan) {
  const int units = units_of(plan) - plan.shared, clusters = plan.grid / plan.cluster;
  const int whole = (units + clusters - 1) / clusters;
  if (plan.shared == 0) return whole;
  const int parts = (plan.shared * plan.parts + clusters - 1) / clusters;
  const double blocks = shape.leaf_begin.back() - shape.leaf_begin.front();
  return whole + parts * (1.0 / plan.parts + kMeeting / blocks);
}

}  // namespace

std::string PrefillPlan::describe() const {
  constexpr const char* kNames[] = {"chain", "turns", "fold", "tree"};
  return absl::StrCat(kNames[static_cast<int>(merge)], " ", kPrefillTileRows, "x", columns, ", cluster ", cluster, ", band ",
                      band, ", ", row_tiles, "x", column_tiles, " tiles, ",
                      shared ? absl::StrCat("the last ", shared, " by ", parts, ", ") : "", "grid ", grid);
}

std::optional<PrefillPlan> prefill_plan(const LinearShape& shape, PrefillMerge merge, int columns, int cluster,
                                        const Chip& chip) {
  const bool known = std::any_of(std::begin(kTiles), std::end(kTiles), [&](const TileKind& t) {
    return t.merge == merge && t.columns == columns && fits(merge, shape);
  });
  if (!known || cluster < 1 || cluster > 2) return std::nullopt;
  PrefillPlan plan{.merge = merge, .columns = columns, .cluster = cluster, .band = band_of(shape, merge)};
  plan.row_tiles = (shape.rows + kPrefillTileRows - 1) / kPrefillTileRows;
  plan.column_tiles = (shape.outputs + columns - 1) / columns;
  const int64_t units = int64_t{(plan.row_tiles + cluster - 1) / cluster} * plan.column_tiles;
  plan.grid = static_cast<int>(std::min<int64_t>(units, chip.multiprocessors / cluster)) * cluster;
  return plan;
}

std::optional<PrefillPlan> with_shared_round(const LinearShape& shape, PrefillPlan plan, const Chip& chip) {
  if (plan.merge != PrefillMerge::kFold) return std::nullopt;
  plan.parts = shape.leaves();
  if (plan.parts < 2 || plan.parts > kMostParts) return std::nullopt;
  const int clusters = chip.multiprocessors / plan.cluster;
  plan.shared = units_of(plan) % clusters;
  const int64_t tiles = int64_t{plan.shared} * plan.cluster;
  if (tiles == 0 || tiles > kMostSharedTiles ||
      tiles * plan.parts * kPrefillTileRows * plan.columns * static_cast<int64_t>(sizeof(float)) > kSharedBytes)
    return std::nullopt;
  plan.grid = std::min(std::max(units_of(plan), plan.shared * plan.parts), clusters) * plan.cluster;
  return plan;
}

std::vector<PrefillPlan> prefill_plans(const LinearShape& shape, const Chip& chip) {
  std::vector<PrefillPlan> plans;
  for (const TileKind& tile : kTiles)
    for (int cluster : {2, 1})
      if (auto plan = prefill_plan(shape, tile.merge, tile.columns, cluster, chip)) {
        plans.push_back(*plan);
        if (const auto shared = with_shared_round(shape, *plan, chip)) plans.push_back(*shared);
        plan->band = plan->band > 4 ? 4 : 16;
        plans.push_back(*plan);
      }
  return plans;
}

std::optional<PrefillPlan> prefill_plan(const LinearShape& shape, const Chip& chip, bool gated) {
  std::optional<PrefillPlan> best;
  double least = 0;
  for (const TileKind& tile : kTiles) {
    if (gated && tile.columns % 64) continue;
    for (int cluster : {2, 1}) {
      const auto plan = prefill_plan(shape, tile.merge, tile.columns, cluster, chip);
      if (!plan) continue;
      if (plan->merge == PrefillMerge::kTurns && shape.leaf_begin.back() - shape.leaf_begin.front() > kMostTurnBlocks) continue;
      for (const auto& each : {plan, with_shared_round(shape, *plan, chip)}) {
        if (!each) continue;
        const double cost = rounds(shape, *each) * tile.cost * (cluster == preferred_cluster(shape, tile) ? 1.0 : 1.04);
        if (best && cost >= least) continue;
        best = each;
        least = cost;
      }
    }
  }
  return best;
}

}  // namespace invar::cuda::tc
