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
    {PrefillMerge::kChain, 256, 256}, {PrefillMerge::kChain, 192, 196}, {PrefillMerge::kChain, 160, 166},
    {PrefillMerge::kChain, 128, 139}, {PrefillMerge::kChain, 96, 104},  {PrefillMerge::kChain, 64, 80},
    {PrefillMerge::kTurns, 128, 120}, {PrefillMerge::kFold, 192, 196},  {PrefillMerge::kFold, 128, 139},
    {PrefillMerge::kTree, 128, 140},
};

bool fits(PrefillMerge merge, const LinearShape& shape) {
  switch (merge) {
    case PrefillMerge::kChain:
    case PrefillMerge::kTurns:
      return shape.leaves() == 1;
    case PrefillMerge::kFold:
      return shape.leaves() == 2;
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
    case PrefillMerge::kTurns:
      return shape.rows >= 2048 && blocks > 8 ? 2 : 1;
    case PrefillMerge::kTree:
      return shape.rows >= 2048 || weight_bytes(shape) > (int64_t{256} << 20) ? 2 : 1;
    case PrefillMerge::kChain:
    case PrefillMerge::kFold:
      break;
  }
  if (tile.merge == PrefillMerge::kFold && tile.columns == 192) return weight_bytes(shape) > (int64_t{100} << 20) ? 2 : 1;
  return shape.rows >= 2048 || weight_bytes(shape) >= (int64_t{64} << 20) ? 2 : 1;
}

// As many tiles of rows, a power of two, as have so much of x. Narrow tiles ask more of the second-level cache.
int band_of(const LinearShape& shape, PrefillMerge merge) {
  if (merge == PrefillMerge::kTurns && shape.rows >= 2048) return 4;
  constexpr int64_t kBandBytes = int64_t{60} << 20;
  const int64_t tile_bytes = int64_t{kPrefillTileRows} * (shape.leaf_begin.back() - shape.leaf_begin.front()) * 128;
  int band = 16;
  while (band > 2 && band * tile_bytes > kBandBytes) band /= 2;
  return band;
}

// Beyond it a tile's outputs are little beside its products, and a wide tile fetches less.
constexpr int kMostTurnBlocks = 24;

// Tiles that the busiest block has.
int rounds(const PrefillPlan& plan) {
  const int units = (plan.row_tiles + plan.cluster - 1) / plan.cluster * plan.column_tiles, clusters = plan.grid / plan.cluster;
  return (units + clusters - 1) / clusters;
}

}  // namespace

std::string PrefillPlan::describe() const {
  constexpr const char* kNames[] = {"chain", "turns", "fold", "tree"};
  return absl::StrCat(kNames[static_cast<int>(merge)], " ", kPrefillTileRows, "x", columns, ", cluster ", cluster, ", band ",
                      band, ", ", row_tiles, "x", column_tiles, " tiles, grid ", grid);
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

std::vector<PrefillPlan> prefill_plans(const LinearShape& shape, const Chip& chip) {
  std::vector<PrefillPlan> plans;
  for (const TileKind& tile : kTiles)
    for (int cluster : {2, 1})
      if (auto plan = prefill_plan(shape, tile.merge, tile.columns, cluster, chip)) {
        plans.push_back(*plan);
        plan->band = plan->band > 4 ? 4 : 16;
        plans.push_back(*plan);
      }
  return plans;
}

std::optional<PrefillPlan> prefill_plan(const LinearShape& shape, const Chip& chip, bool gated) {
  std::optional<PrefillPlan> best;
  double least = 0;
  for (const TileKind& tile : kTiles) {
    if (gated && !prefill_gates(tile.merge, tile.columns)) continue;
    for (int cluster : {2, 1}) {
      const auto plan = prefill_plan(shape, tile.merge, tile.columns, cluster, chip);
      if (!plan) continue;
      if (plan->merge == PrefillMerge::kTurns && shape.leaf_begin.back() - shape.leaf_begin.front() > kMostTurnBlocks) continue;
      const double cost = rounds(*plan) * tile.cost * (cluster == preferred_cluster(shape, tile) ? 1.0 : 1.04);
      if (best && cost >= least) continue;
      best = plan;
      least = cost;
    }
  }
  return best;
}

}  // namespace invar::cuda::tc
