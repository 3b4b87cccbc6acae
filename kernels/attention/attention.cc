// The CPU schedule: which query vectors share a pass over the keys, and which thread does which split. None of it reaches a bit:
// a split's state depends on its query vector and its keys alone, and states merge in ascending order of splits.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/attention/attention_order.h"
#include "kernels/attention/cuda/attention.h"
#include "kernels/attention/schedules.h"
#include "kernels/attention/sub_block.h"

namespace invar {
namespace {

using namespace attention_order;
using attention_schedule::kOutputStep;
using attention_schedule::kTensorCoreTileRows;
using attention_schedule::kTileRows;
using attention_schedule::SplitTile;

// Query vectors of one pass: enough that reading a key block from the outer caches is paid for, few enough that their
// accumulators stay in the inner ones.
constexpr int64_t kVectorsPerTile = 48;

// Query vectors that read the same KV head of the same sequence.
struct Tile {
  int32_t sequence = 0;
  int64_t kv_head = 0;
  std::vector<std::pair<int64_t, int64_t>> vectors;  // (row, query head)
  std::vector<KeyRange> visible;                     // a vector's keys
  int64_t first_split = 0, last_split = 0;           // [first, last) holds at least one visible key
  int64_t last_key = 0;                              // behind every visible key

  int64_t splits() const { return last_split - first_split; }
  int64_t work() const { return splits() * static_cast<int64_t>(vectors.size()); }
};

std::vector<Tile> cut_into_tiles(const Attention& p) {
  std::vector<std::vector<int64_t>> heads_of(p.pages->kv_heads());
  for (int64_t h = 0; h < p.query_heads; ++h) heads_of[p.kv_head_of[h]].push_back(h);
  const std::span<const int32_t> positions = p.step->host_positions(), sequences = p.step->host_sequences();
  std::vector<std::vector<int64_t>> rows_of(p.step->sequence_count());
  for (int64_t r = 0; r < p.step->rows(); ++r) rows_of[sequences[r]].push_back(r);

  std::vector<Tile> tiles;
  for (size_t sequence = 0; sequence < rows_of.size(); ++sequence) {
    std::vector<int64_t>& rows = rows_of[sequence];
    std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) { return positions[a] < positions[b]; });
    for (size_t kv_head = 0; kv_head < heads_of.size(); ++kv_head) {
      const std::vector<int64_t>& heads = heads_of[kv_head];
      if (heads.empty()) continue;
      const auto rows_per_tile = std::max<size_t>(1, kVectorsPerTile / heads.size());
      for (size_t first = 0; first < rows.size(); first += rows_per_tile) {
        Tile tile{.sequence = static_cast<int32_t>(sequence), .kv_head = static_cast<int64_t>(kv_head)};
        tile.first_split = std::numeric_limits<int64_t>::max();
        for (size_t i = first; i < std::min(rows.size(), first + rows_per_tile); ++i) {
          const KeyRange keys = visible_keys(positions[rows[i]], p.window);
          tile.first_split = std::min(tile.first_split, keys.begin / kSplit);
          tile.last_key = std::max(tile.last_key, keys.end);
          for (const int64_t head : heads) {
            tile.vectors.emplace_back(rows[i], head);
            tile.visible.push_back(keys);
          }
        }
        tile.last_split = (tile.last_key + kSplit - 1) / kSplit;
        tiles.push_back(std::move(tile));
      }
    }
  }
  // The longest first, so that no thread starts a long tile when the others are done.
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.work() > b.work(); });
  return tiles;
}

// The state of each vector of a tile after some splits.
struct States {
  explicit States(int64_t vectors, int64_t o_stride)
      : reference(vectors), l(vectors), o(std::make_unique_for_overwrite<float[]>(vectors * o_stride)) {}
  std::vector<float> reference, l;
  std::unique_ptr<float[]> o;
};

class TileRun {
 public:
  TileRun(const Device& device, const Attention& problem, const Tile& tile)
      : p_(problem),
        tile_(tile),
        portable_(device.profile() == Profile::kPortable),
        vectors_(static_cast<int64_t>(tile.vectors.size())) {
    using namespace attention_schedule;
    const bool wide = device.isa() == Isa::kAvx512;
    schedule_ = portable_ ? (wide ? portable_avx512 : portable_avx2) : (wide ? tc_avx512 : tc_avx2);
    work_.head_dim = p_.head_dim;
    work_.vectors = vectors_;
    const int64_t most_rows = portable_ ? kTileRows : kTensorCoreTileRows;
    const int64_t register_tiles = (vectors_ + most_rows - 1) / most_rows;
    work_.rows_per_tile = (vectors_ + register_tiles - 1) / register_tiles;
    work_.c = exponent_scale(p_.scale);
    work_.step = exponent_step(work_.c);
    work_.o_stride = o_stride();
    pack_queries();
  }

  int64_t o_stride() const { return (p_.head_dim + kOutputStep - 1) / kOutputStep * kOutputStep; }

  void split(int64_t index, States& states) {
    std::vector<int32_t> range(2 * vectors_);
    KeyRange all{kSplit, 0};
    for (int64_t i = 0; i < vectors_; ++i) {
      const int64_t begin = std::max<int64_t>(tile_.visible[i].begin - index * kSplit, 0);
      const int64_t end = std::min<int64_t>(tile_.visible[i].end - index * kSplit, kSplit);
      if (begin >= end) continue;  // stays an empty range
      range[i] = static_cast<int32_t>(begin);
      range[vectors_ + i] = static_cast<int32_t>(end);
      all = KeyRange{std::min(all.begin, begin), std::max(all.end, end)};
    }
    find_sub_blocks(index, all);
    work_.begin = range.data();
    work_.end = range.data() + vectors_;
    work_.reference = states.reference.data();
    work_.l = states.l.data();
    work_.o = states.o.get();
    schedule_(work_);
  }

  bool sees(int64_t vector, int64_t split) const {
    return tile_.visible[vector].begin < (split + 1) * kSplit && tile_.visible[vector].end > split * kSplit;
  }

  // a = merge(a, b) for one vector; the first visible split of a vector is taken as it is.
  void merge(int64_t vector, int64_t split, States& a, const States& b) const {
    if (!sees(vector, split)) return;
    float* oa = a.o.get() + vector * o_stride();
    const float* ob = b.o.get() + vector * o_stride();
    if (split == tile_.visible[vector].begin / kSplit) {
      a.reference[vector] = b.reference[vector];
      a.l[vector] = b.l[vector];
      std::copy(ob, ob + p_.head_dim, oa);
      return;
    }
    const float reference = std::max(a.reference[vector], b.reference[vector]);
    const float wa = rescale(a.reference[vector], reference), wb = rescale(b.reference[vector], reference);
    a.reference[vector] = reference;
    a.l[vector] = numerics::fma(b.l[vector], wb, numerics::mul(a.l[vector], wa));
    for (int64_t d = 0; d < p_.head_dim; ++d) oa[d] = numerics::fma(ob[d], wb, numerics::mul(oa[d], wa));
  }

  void finish(int64_t vector, const States& state) const {
    const auto [row, head] = tile_.vectors[vector];
    const float l = state.l[vector], r = numerics::div(1.0f, l);
    const float* o = state.o.get() + vector * o_stride();
    Bf16* y = p_.y + row * p_.y_stride + head * p_.head_dim;
    const bool finite = l < std::numeric_limits<float>::infinity();
    for (int64_t d = 0; d < p_.head_dim; ++d) y[d] = finite ? numerics::bf(numerics::fma(o[d], r, 0.0f)) : Bf16{0x7fff};
  }

 private:
  void pack_queries() {
    const auto query = [&](int64_t i) {
      return p_.q + tile_.vectors[i].first * p_.q_stride + tile_.vectors[i].second * p_.head_dim;
    };
    const int64_t register_tiles = (vectors_ + work_.rows_per_tile - 1) / work_.rows_per_tile;
    if (!portable_) {
      const int64_t groups = (p_.head_dim + numerics::kTensorCoreGroup - 1) / numerics::kTensorCoreGroup;
      q_groups_.resize(register_tiles * groups * work_.rows_per_tile);
      for (int64_t i = 0; i < vectors_; ++i) {
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t d = g * numerics::kTensorCoreGroup,
                        count = std::min<int64_t>(numerics::kTensorCoreGroup, p_.head_dim - d);
          prepare_tensor_core_group(
              query(i) + d, static_cast<int>(count),
              &q_groups_[(i / work_.rows_per_tile * groups + g) * work_.rows_per_tile + i % work_.rows_per_tile]);
        }
      }
      lines_ = std::make_unique_for_overwrite<uint32_t[]>(attention_schedule::tensor_core_words(p_.head_dim));
      work_.q_groups = q_groups_.data();
      work_.lines = lines_.get();
      return;
    }
    q_.assign(register_tiles * p_.head_dim * kTileRows, 0.0f);
    for (int64_t i = 0; i < vectors_; ++i) {
      float* to = &q_[i / work_.rows_per_tile * p_.head_dim * kTileRows + i % work_.rows_per_tile];
      const Bf16* from = query(i);
      for (int64_t d = 0; d < p_.head_dim; ++d) to[d * kTileRows] = numerics::widen(from[d]);
    }
    work_.q = q_.data();
  }

  // Only sub-blocks that hold a visible key are looked up: elsewhere the page table may end, or name a page that was given away.
  void find_sub_blocks(int64_t split, KeyRange all) {
    const std::span<const int32_t> table = p_.step->page_table(tile_.sequence);
    const int64_t page_size = p_.pages->page_size();
    const auto mapped = [&](int64_t key) { return table[key / page_size] >= 0; };
    const auto offset = [&](int64_t key) {
      const int64_t slot = table[key / page_size] * page_size + key % page_size;
      return sub_block_offset(*p_.pages, slot, tile_.kv_head);
    };
    const int64_t any = offset(split * kSplit + all.begin);
    const int64_t last = tile_.last_key - split * kSplit;
    for (int64_t i = 0; i < attention_schedule::kSubBlocksPerSplit + 4; ++i) {
      const bool visible = (i + 1) * kSubBlock > all.begin && i * kSubBlock < last;
      const int64_t key = split * kSplit + i * kSubBlock;
      const int64_t at = visible && mapped(key) ? offset(key) : any;
      work_.keys[i] = p_.pages->keys() + at;
      work_.values[i] = p_.pages->values() + at;
    }
  }

  const Attention& p_;
  const Tile& tile_;
  const bool portable_;
  const int64_t vectors_;
  attention_schedule::Schedule schedule_;
  SplitTile work_;
  std::vector<float> q_;
  std::vector<TensorCoreGroup> q_groups_;
  std::unique_ptr<uint32_t[]> lines_;
};

// One task a tile: its splits one after the other, merged as they come.
void run_by_tiles(const Device& device, const Attention& problem, const std::vector<Tile>& tiles) {
  device.pool().run(static_cast<int64_t>(tiles.size()), [&](int64_t t) {
    const Tile& tile = tiles[t];
    const auto vectors = static_cast<int64_t>(tile.vectors.size());
    TileRun run(device, problem, tile);
    States part(vectors, run.o_stride()), total(vectors, run.o_stride());
    if (tile.splits() == 1) {
      run.split(tile.first_split, total);
    } else {
      for (int64_t split = tile.first_split; split < tile.last_split; ++split) {
        run.split(split, part);
        for (int64_t i = 0; i < vectors; ++i) run.merge(i, split, total, part);
      }
    }
    for (int64_t i = 0; i < vectors; ++i) run.finish(i, total);
  });
}

// One task a range of splits of a tile, for few tiles over long contexts; the states are kept until all are there.
void run_by_splits(const Device& device, const Attention& problem, const std::vector<Tile>& tiles, int64_t splits_per_task) {
  struct Task {
    int64_t tile, first, last;
  };
  std::vector<Task> tasks;
  std::vector<std::vector<std::unique_ptr<States>>> parts(tiles.size());
  for (size_t t = 0; t < tiles.size(); ++t) {
    parts[t].resize(tiles[t].splits());
    for (int64_t first = tiles[t].first_split; first < tiles[t].last_split; first += splits_per_task)
      tasks.push_back(Task{static_cast<int64_t>(t), first, std::min(tiles[t].last_split, first + splits_per_task)});
  }
  device.pool().run(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const Task& task = tasks[i];
    const Tile& tile = tiles[task.tile];
    TileRun run(device, problem, tile);
    for (int64_t split = task.first; split < task.last; ++split) {
      auto states = std::make_unique<States>(tile.vectors.size(), run.o_stride());
      run.split(split, *states);
      parts[task.tile][split - tile.first_split] = std::move(states);
    }
  });
  device.pool().run(static_cast<int64_t>(tiles.size()), [&](int64_t t) {
    const Tile& tile = tiles[t];
    const auto vectors = static_cast<int64_t>(tile.vectors.size());
    const TileRun run(device, problem, tile);
    States total(vectors, run.o_stride());
    for (int64_t i = 0; i < vectors; ++i) {
      for (int64_t split = tile.first_split; split < tile.last_split; ++split)
        run.merge(i, split, total, *parts[t][split - tile.first_split]);
      run.finish(i, total);
    }
  });
}

}  // namespace

void attention(const Device& device, const Attention& problem) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::attention(device, problem);
  if (device.isa() == Isa::kScalar) return attention_reference(device.profile(), problem);
  const std::vector<Tile> tiles = cut_into_tiles(problem);
  int64_t splits = 0, longest = 0;
  for (const Tile& tile : tiles) {
    splits += tile.splits();
    longest = std::max(longest, tile.splits());
  }
  const int64_t threads = device.pool().threads();
  constexpr int64_t kTasksPerThread = 4;
  if (threads == 1 || longest == 1 || static_cast<int64_t>(tiles.size()) >= kTasksPerThread * threads)
    return run_by_tiles(device, problem, tiles);
  run_by_splits(device, problem, tiles, std::max<int64_t>(1, splits / (kTasksPerThread * threads)));
}

}  // namespace invar
