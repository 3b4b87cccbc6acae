#include "kernels/linear/cuda/tensor_core_decode_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace invar::cuda::tc {
namespace {

constexpr int kLine = 128;           // bytes of 64 inputs
constexpr int kBarrierBytes = 1024;  // in front of the rings, which begin at a multiple of 1024
constexpr int kWgmmaOutputs = 64;
constexpr int kFewestStages = 3, kFewestDeepStages = 2;

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Of a tile, if the rows are cut into so many.
int rounded_rows(int rows, int row_tiles) {
  int tokens = 8;
  while (tokens * row_tiles < rows) tokens *= 2;
  return tokens;
}

}  // namespace

std::string DecodePlan::describe() const {
  return absl::StrCat(choice.tile_outputs, " outputs, ",
                      choice.row_tiles > 1 ? absl::StrCat(choice.row_tiles, " row tiles, ") : "", choice.k_groups, " k groups, ",
                      choice.producers > 1 ? absl::StrCat(choice.producers, " producers, ") : "",
                      choice.depth > 1 ? absl::StrCat(64 * choice.depth, " inputs a stage, ") : "", "cluster ", choice.cluster,
                      ", ", choice.resident, " resident, ", choice.ahead, " KB ahead, ", stages, " stages, ", slots,
                      " slots, grid ", grid, "x", threads);
}

std::optional<DecodePlan> decode_plan(const LinearShape& shape, const DecodeChoice& c, const Chip& chip) {
  const int slices = c.k_groups * c.cluster;
  if (shape.rows > kMostDecodeRows || slices > shape.leaves() || c.cluster > kMostCluster) return std::nullopt;
  if (c.tile_outputs % 8) return std::nullopt;
  DecodePlan plan{.choice = c};
  plan.tokens = rounded_rows(shape.rows, c.row_tiles);
  if ((shape.rows + plan.tokens - 1) / plan.tokens != c.row_tiles) return std::nullopt;
  if (plan.tokens > most_decode_tokens(c.depth)) return std::nullopt;
  for (int begin : shape.leaf_begin)
    if (begin % c.depth) return std::nullopt;
  plan.row_groups = (c.tile_outputs + kWgmmaOutputs - 1) / kWgmmaOutputs;
  plan.threads = (plan.row_groups * 4 + c.producers) * c.k_groups * 32;
  if (plan.threads > most_decode_threads(plan.tokens, shape.by_segments)) return std::nullopt;
  plan.tiles = (shape.outputs + c.tile_outputs - 1) / c.tile_outputs * c.row_tiles;
  if (shape.by_segments) {
    plan.subtrees = shape.whole_tree && shape.leaves() % slices == 0 &&
                    (shape.leaves() / slices < 8 || plan.tokens <= kMostTokensOfEightSegments);
    plan.slots = plan.subtrees ? (slices > 1 ? slices : 0) : shape.leaves() > 1 ? shape.leaves() : 0;
  }
  const int pieces = (c.tile_outputs + 15) / 16 * plan.tokens * 4;
  plan.share = (pieces + c.cluster - 1) / c.cluster;
  const int merge_bytes = round_up(plan.slots * plan.share * 16, 1024);
  const int stage_bytes = (c.tile_outputs + plan.tokens) * kLine * c.depth;
  // What wgmma reads behind a warpgroup's last output must still be this
  // block's memory.
  const int slack = (kWgmmaOutputs * plan.row_groups - c.tile_outputs) * kLine;
  const int budget = std::min(chip.block_shared, chip.shared / c.resident - 1024) - kBarrierBytes - 1024 - slack - merge_bytes;
  plan.stages = std::min(kMostDecodeStages / c.k_groups, budget / (stage_bytes * c.k_groups));
  // A cluster has one tile: a ring longer than its way through k would stay
  // empty.
  int longest = 0;
  for (int s = 0; s < slices; ++s)
    longest =
        std::max(longest, shape.leaf_begin[(s + 1) * shape.leaves() / slices] - shape.leaf_begin[s * shape.leaves() / slices]);
  longest /= c.depth;
  const bool one_tile = c.cluster > 1 || plan.tiles <= chip.multiprocessors * c.resident;
  if (one_tile) plan.stages = std::min(plan.stages, longest);
  // With a ring left after the first one the next kernel's blocks would start at once.
  const int fewest = c.depth > 1 ? kFewestDeepStages : kFewestStages;
  if (c.resident > 1 && one_tile && 2 * plan.stages == longest && plan.stages > fewest) --plan.stages;
  if (plan.stages < std::max(c.producers, std::min(fewest, longest))) return std::nullopt;
  plan.grid = one_tile ? plan.tiles * c.cluster : chip.multiprocessors * c.resident;
  plan.shared = kBarrierBytes + 1024 + plan.stages * stage_bytes * c.k_groups + merge_bytes + slack;
  plan.ahead = c.ahead * 1024 / (c.tile_outputs * kLine * c.k_groups * c.depth);
  if (plan.stages < longest) plan.next_at = plan.stages;
  return plan;
}

namespace {

int blocks_of(int outputs, int tile) { return (outputs + tile - 1) / tile; }

// Tiles of a multiple of `unit` outputs, as even as can be, so that `blocks` blocks take them in `rounds` rounds.
int even_tile(int outputs, int blocks, int rounds, int unit) { return round_up(blocks_of(outputs, blocks * rounds), unit); }

// KB of weights that each of `per_multiprocessor` blocks asks the second cache for, `way` blocks of k being its slice.
int kb_ahead(int way, int per_multiprocessor) { return way >= (per_multiprocessor == 1 ? 56 : 96) ? 96 : 48; }

// Of a matrix so thin that blocks for half of the multiprocessors take it in tiles of one warpgroup. A call then is a chain over
// all of K, which is no shorter however many blocks there are: what helps is that the next calls' blocks fill their rings on
// other multiprocessors meanwhile, tiles of few rows, and deep stages.
std::vector<DecodeChoice> thin_column_choices(const LinearShape& shape, const Chip& chip, int unit) {
  constexpr int kFewestOutputs = 24;   // with fewer only the number of blocks grows ...
  constexpr int kFewestOfLong = 16;    // ... which long chains can do with: a block has less to fetch
  constexpr int kMostOfRowTiles = 48;  // with more, rows had better not be fetched by so many
  constexpr int kLong = 96;
  const int mp = chip.multiprocessors, rows = shape.rows;
  const auto tile_of = [&](int row_tiles, int blocks, int fewest) {
    return std::max(even_tile(shape.outputs * row_tiles, blocks, 1, unit), round_up(fewest, unit));
  };
  std::vector<DecodeChoice> choices;
  const auto add = [&](DecodeChoice choice) {
    for (int depth : {choice.row_tiles > 1 || choice.tile_outputs <= 40 ? 4 : 2, 2, 1}) {
      choice.depth = depth;
      choices.push_back(choice);
    }
  };
  if (const int tile = tile_of(1, mp * 2 / 3, kFewestOfLong); rows <= 8 && shape.leaf_begin.back() >= kLong && tile <= 24)
    add({.tile_outputs = tile, .resident = 2, .ahead = 48});
  // Blocks of three calls at a time, where that makes no large tiles.
  if (const int tile = tile_of(1, mp / 3, kFewestOutputs); rows <= 8 && tile <= 32)
    add({.tile_outputs = tile, .ahead = 96, .producers = 2});
  for (int row_tiles : {4, 2, 1})
    if (const int tile = tile_of(row_tiles, mp / 2, kFewestOutputs); row_tiles == 1 || tile <= kMostOfRowTiles)
      add({.tile_outputs = tile, .ahead = row_tiles == 4 || rows > 32 ? 48 : 96, .row_tiles = row_tiles, .producers = 2});
  return choices;
}

// What measured best (tensor_core.md, "Decode"), first choice first.
std::vector<DecodeChoice> column_choices(const LinearShape& shape, const Chip& chip, int unit) {
  const int mp = chip.multiprocessors, way = shape.leaf_begin.back(), rows = shape.rows;
  const int tiles = blocks_of(shape.outputs, kWgmmaOutputs), even = even_tile(shape.outputs, mp, 1, unit);
  if (even_tile(shape.outputs, mp / 2, 1, unit) <= kWgmmaOutputs) return thin_column_choices(shape, chip, unit);
  if (even > 72) {
    // Two blocks a multiprocessor, in as few even rounds as their registers allow; of 64 rows x takes so much of a small tile's
    // way that one large tile is better.
    if (rows > 32 && even > 128 && even <= 192) return {{.tile_outputs = even, .resident = 2, .ahead = 96}};
    if (rows > 32 && tiles > 16 * mp) return {{.tile_outputs = 128}};
    const int rounds = blocks_of(shape.outputs, 2 * mp * (rows <= 32 ? 224 : 192));
    const int tile = even_tile(shape.outputs, 2 * mp, rounds, unit);
    // What a large matrix could gain is less than what differs from run to run.
    const bool asks = rows <= 16 ? tile < 128 : rows <= 32;
    return {{.tile_outputs = tile, .resident = 2, .ahead = asks ? kb_ahead(way, 2) : 0}};
  }
  if (rows <= 16 && way >= 96) return {{.tile_outputs = even, .resident = 3, .ahead = 96}};
  if (rows <= 8) return {{.tile_outputs = even, .depth = 4}, {.tile_outputs = even, .depth = 2}, {.tile_outputs = even}};
  if (rows <= 16) return {{.tile_outputs = even, .resident = 3, .ahead = 48, .producers = 2}};
  if (rows <= 32 && way > 96) return {{.tile_outputs = even}};
  return {{.tile_outputs = rows <= 32 ? kWgmmaOutputs : even, .resident = 2, .ahead = kb_ahead(way, rows <= 32 ? 1 : 2)}};
}

std::vector<DecodeChoice> row_choices(const LinearShape& shape, const Chip& chip) {
  const int mp = chip.multiprocessors, leaves = shape.leaves(), way = shape.leaf_begin.back(), rows = shape.rows;
  const int tiles = blocks_of(shape.outputs, kWgmmaOutputs);
  if (tiles > mp) return {{.resident = 2, .ahead = kb_ahead(way, 2)}};
  std::vector<DecodeChoice> choices;
  if (rows <= 16 && way > 8 && leaves <= 2 && 2 * tiles <= mp) {
    // Whole in a ring before the x of the call is there; some more blocks than half of the multiprocessors do no harm.
    const int whole = std::min(kWgmmaOutputs, (chip.block_shared / (kLine * way) - 16) / 8 * 8);
    if (whole >= 56)
      for (int depth : {4, 2}) choices.push_back({.tile_outputs = whole, .depth = depth});
  }
  if (leaves == 1) {
    if (rows <= 16 && way <= 8) choices.push_back({.resident = 2, .depth = 2});
    if (rows <= 16 && 2 * tiles > mp && way <= 24)
      choices.push_back({.tile_outputs = 2 * kWgmmaOutputs, .resident = 2, .ahead = 48});
    if (way <= 8) {
      choices.push_back({.resident = rows <= 32 ? 2 : 1});
    } else if (way <= 32 && rows > 32) {
      choices.push_back({.tile_outputs = 32, .resident = 2});
    } else if (way <= 32 || rows <= 8 || rows > 16) {
      choices.push_back({.resident = rows <= 8 && way > 16 ? 3 : 2, .ahead = kb_ahead(way, 1)});
    }
    return choices;
  }
  if (2 * tiles > mp) return {{.cluster = 2, .resident = 2, .ahead = kb_ahead(way / 2, 2)}};
  const int even = even_tile(shape.outputs, mp, 1, 8);
  if (rows <= 16 && 4 * tiles > mp) {
    // Few larger blocks of short ways leave room for the next call's; no values of few rows cross blocks.
    if (way <= 32)
      choices.push_back(
          {.tile_outputs = even_tile(shape.outputs * 2, mp * 2 / 3, 1, 8), .cluster = 2, .resident = 2, .ahead = 48});
    if (way > 32 && way <= 64 && rows <= 8 && leaves > 2)
      choices.push_back({.tile_outputs = even, .k_groups = 2, .resident = 3, .ahead = 48});
    if (way > 64 && way <= 96 && leaves > 2) choices.push_back({.tile_outputs = even, .resident = 2, .ahead = 48, .depth = 2});
  }
  // As one leaf of so short a way.
  if (rows > 32 && leaves == 2 && way <= 16) choices.push_back({.tile_outputs = 32, .resident = 2});
  int cluster = 2;
  while (2 * cluster * tiles <= mp && 2 * cluster <= std::min(leaves, kMostCluster)) cluster *= 2;
  const int slice = way / cluster;
  if (rows <= 16 && slice > 48) choices.push_back({.k_groups = 2, .cluster = cluster});
  if (rows <= 32 && slice <= 48 && leaves > 2) choices.push_back({.cluster = cluster, .resident = 3, .ahead = 48});
  choices.push_back({.cluster = cluster, .resident = 2, .ahead = kb_ahead(slice, 1)});
  return choices;
}

std::vector<DecodeChoice> decode_choices(const LinearShape& shape, const Chip& chip, int unit) {
  auto choices = shape.by_segments ? row_choices(shape, chip) : column_choices(shape, chip, unit);
  choices.push_back({});
  // Merging many segments of many rows takes memory; more blocks have more of it.
  for (int cluster = 2; cluster <= kMostCluster; cluster *= 2) choices.push_back({.cluster = cluster});
  choices.push_back({.tile_outputs = 16, .cluster = std::min(kMostCluster, shape.leaves())});
  return choices;
}

}  // namespace

DecodePlan decode_plan(const LinearShape& shape, const Chip& chip, int unit) {
  for (const DecodeChoice& choice : decode_choices(shape, chip, unit))
    if (auto plan = choice.tile_outputs % unit == 0 ? decode_plan(shape, choice, chip) : std::nullopt) return *plan;
  throw DeviceFailure("no plan for a decode linear fits");  // sixteen outputs a block and a segment a block always do
}

std::vector<DecodePlan> decode_plans(const LinearShape& shape, const Chip& chip) {
  std::vector<DecodePlan> plans;
  const int mp = chip.multiprocessors;
  for (int row_tiles : {1, 2, 4})
    for (int cluster : {1, 2, 3, 4, 8})
      for (int tile = 8; tile <= 256; tile += 8) {
        const int of_outputs = cluster * row_tiles;
        const int blocks = blocks_of(shape.outputs, tile) * of_outputs, rounds = blocks_of(blocks, mp);
        // The smallest tiles that so many blocks allow; no round with many multiprocessors idle, but one round may be what a
        // chain's length or the bytes of x allow.
        if (tile > 8 && tile != kWgmmaOutputs && blocks_of(shape.outputs, tile - 8) * of_outputs == blocks) continue;
        if (tile != kWgmmaOutputs && blocks * 100 < (rounds == 1 ? 20 : 88 * rounds) * mp) continue;
        if (tile == 8 && rounds > 2) continue;
        if (rounds > 3 && (of_outputs > 1 || (tile != kWgmmaOutputs && (rounds > 12 || tile < 80)))) continue;
        for (int k_groups : {1, 2, 4})
          for (int resident : {1, 2, 3})
            for (int ahead : {0, 48, 96})
              for (int producers : {1, 2})
                for (int depth : {1, 2, 4}) {
                  const auto plan =
                      decode_plan(shape, {tile, k_groups, cluster, resident, ahead, row_tiles, producers, depth}, chip);
                  if (!plan || (cluster > 1 && blocks > resident * mp)) continue;
                  if (ahead && ((resident == 1 && 2 * blocks > mp) || plan->next_at < 0)) continue;
                  if (producers > 1 && (tile > kWgmmaOutputs || rounds > 1)) continue;
                  if (depth > 1 && (tile > 2 * kWgmmaOutputs || rounds > 1)) continue;
                  plans.push_back(*plan);
                }
      }
  return plans;
}

}  // namespace invar::cuda::tc
