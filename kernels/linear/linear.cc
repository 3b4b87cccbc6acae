// The CPU schedule of both linears, and the way to the other backend: cuts rows, panels and runs of k into tiles and hands them
// to the threads.
//
//   for a chunk of rows                     (bounds the memory of prepared rows)
//     prepare rows                          (widen, or exponents for tc; once for all outputs)
//     for items = row tile x panel group    (threads take items)
//       for runs of k                       (weights of a run stay in the first cache ...
//         for blocks of rows                 ... while these pass)
//           tile kernel                     (accumulators in registers)
//       bias, rounding, store
//
// Nothing here adds: the order is in k_order.h, the arithmetic in the tile kernels, row_tree.h and the two `store` functions.
#include "kernels/linear/linear.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/portable_linear.h"
#include "kernels/linear/cuda/tensor_core_linear.h"
#include "kernels/linear/k_order.h"
#include "kernels/linear/packing.h"
#include "kernels/linear/tensor_core.h"
#include "kernels/linear/tile.h"

namespace invar {

namespace {

constexpr int64_t kGroup = numerics::kTensorCoreGroup;
constexpr int64_t kPanel = packing::kPanel;
constexpr int64_t kPreparedBytes = 8 << 20;  // prepared rows of a chunk, about
constexpr int64_t kMostChunkRows = 768;
constexpr int64_t kItemRows = 96;            // rows whose results one item holds
constexpr int64_t kAheadLines = 128;         // prefetch distance of weights that are not in a near cache
constexpr int64_t kCachedBytes = 256 << 10;  // weights up to here are taken to be in one
constexpr int64_t kSerialWork = 16 << 10;    // elements below which waking a thread costs more than it helps

// Grows, never shrinks; one a thread and use.
template <int Use>
std::byte* scratch(size_t bytes) {
  thread_local Buffer buffer;
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer.data();
}

const TileKernels::Table& table_of(const Device& device) {
  const TileKernels* tiles = &scalar_tiles();
#if defined(__x86_64__)
  if (device.isa() == Isa::kAvx512) tiles = &avx512_tiles();
  if (device.isa() == Isa::kAvx2) tiles = &avx2_tiles();
#endif
  return device.profile() == Profile::kTc ? tiles->tc : tiles->portable;
}

// Results of an item: row r, output j (counted from the item's first row and output) of slot s at
// values[s * slot_stride + r * stride + j].
struct ItemResult {
  int64_t first_row, rows;
  int64_t first_output, outputs;  // without the padding
  float* values;
  int64_t slot_stride, stride;
};

class Schedule {
 public:
  Schedule(const Device& device, KOrder order, const PackedWeights& weights, const Bf16* x, int64_t x_stride, int64_t rows)
      : device_(device),
        order_(std::move(order)),
        table_(table_of(device)),
        weights_(weights),
        x_(x),
        x_stride_(x_stride),
        rows_(rows) {
    for (const KRun& run : order_.runs) {
      group_of_run_.push_back(groups_);
      groups_ += (run.end - run.begin + kGroup - 1) / kGroup;
    }
    group_bytes_ = device.profile() == Profile::kTc ? sizeof(TensorCoreGroup) : kGroup * sizeof(float);
  }

  // store(const ItemResult&) is called once for each item, from any thread.
  template <class Store>
  void run(const Store& store) {
    const int64_t row_bytes = std::max<int64_t>(1, groups_ * group_bytes_);
    const int64_t chunk = std::clamp(kPreparedBytes / row_bytes / kItemRows * kItemRows, kItemRows, kMostChunkRows);
    for (first_row_ = 0; first_row_ < rows_; first_row_ += chunk) {
      chunk_rows_ = std::min(chunk, rows_ - first_row_);
      blocks_ = (chunk_rows_ + table_.most_rows - 1) / table_.most_rows;
      prepare();
      run_items(store);
    }
  }

 private:
  // Blocks of rows as equal as can be, so that none is much less efficient than the others.
  int64_t block_begin(int64_t block) const { return block * chunk_rows_ / blocks_; }

  void prepare() {
    prepared_ = scratch<0>(static_cast<size_t>(chunk_rows_ * groups_ * group_bytes_));
    if (chunk_rows_ * weights_.inputs() < kSerialWork) {
      for (int64_t block = 0; block < blocks_; ++block) prepare_block(block);
    } else {
      device_.pool().run(blocks_, [this](int64_t block) { prepare_block(block); });
    }
  }

  void prepare_block(int64_t block) const {
    const int64_t begin = block_begin(block), rows = block_begin(block + 1) - begin;
    std::byte* out = prepared_ + begin * groups_ * group_bytes_;
    for (const KRun& run : order_.runs) {
      for (int64_t k = run.begin; k < run.end; k += kGroup) {
        const int count = static_cast<int>(std::min(run.end - k, kGroup));
        for (int64_t r = 0; r < rows; ++r, out += group_bytes_) {
          const Bf16* from = x_ + (first_row_ + begin + r) * x_stride_ + k;
          if (device_.profile() == Profile::kTc) {
            prepare_tensor_core_group(from, count, reinterpret_cast<TensorCoreGroup*>(out));
          } else if (count == kGroup) {
            for (int i = 0; i < kGroup; ++i) reinterpret_cast<float*>(out)[i] = numerics::widen(from[i]);
          } else {
            for (int i = 0; i < count; ++i) reinterpret_cast<float*>(out)[i] = numerics::widen(from[i]);
          }
        }
      }
    }
  }

  template <class Store>
  void run_items(const Store& store) {
    const int64_t panels = packing::panels(weights_.outputs());
    // Weights that come from memory are read as one stream a thread. Few rows times weights that a cache may hold: several panels
    // at once, or the latency of the chains would be the limit.
    int64_t wide = 1;
    if (blocks_ == 1 && static_cast<int64_t>(weights_.bytes()) <= kCachedBytes)
      for (int64_t p = 2; p <= kMostPanels; ++p)
        if (table_.kernel[chunk_rows_][p]) wide = p;
    while (wide > 1 && panels < wide * device_.pool().threads()) wide /= 2;
    const int64_t wide_items = panels / wide, panel_items = wide_items + panels % wide;
    const int64_t blocks_per_item = std::max<int64_t>(1, kItemRows / table_.most_rows);
    const int64_t row_items = (blocks_ + blocks_per_item - 1) / blocks_per_item;
    device_.pool().run(panel_items * row_items, [&](int64_t item) {
      const int64_t i = item % panel_items, first_block = item / panel_items * blocks_per_item;
      const int64_t first_panel = i < wide_items ? i * wide : wide_items * wide + (i - wide_items);
      store(run_item(first_panel, i < wide_items ? wide : 1, first_block, std::min(blocks_, first_block + blocks_per_item)));
    });
  }

  ItemResult run_item(int64_t first_panel, int64_t panels, int64_t first_block, int64_t last_block) const {
    const int64_t first = block_begin(first_block), rows = block_begin(last_block) - first;
    const int64_t stride = panels * kPanel, slot_stride = rows * stride;
    float* values = reinterpret_cast<float*>(scratch<1>(static_cast<size_t>((order_.slots + 1) * slot_stride) * sizeof(float)));
    float* open_chains = values + order_.slots * slot_stride;
    if (order_.runs.empty()) std::memset(values, 0, static_cast<size_t>(order_.slots * slot_stride) * sizeof(float));
    TileTask task;
    task.panel_stride = packing::panel_words(weights_.inputs());
    task.stride = stride;
    for (size_t i = 0; i < order_.runs.size(); ++i) {
      const KRun& run = order_.runs[i];
      task.weights = packing::panel(weights_, first_panel) + run.begin * packing::kLineWords;
      task.count = run.end - run.begin;
      for (int64_t block = first_block; block < last_block; ++block) {
        const int64_t begin = block_begin(block), block_rows = block_begin(block + 1) - begin;
        const int64_t offset = (begin - first) * stride;
        task.ahead = block == first_block ? kAheadLines * packing::kLineWords : 0;
        task.x = prepared_ + (begin * groups_ + block_rows * group_of_run_[i]) * group_bytes_;
        task.start = run.opens ? nullptr : open_chains + offset;
        task.out = (run.closes ? values + run.slot * slot_stride : open_chains) + offset;
        task.fold = run.folds;
        table_.kernel[block_rows][panels](task);
      }
    }
    const int64_t first_output = first_panel * kPanel;
    return {first_row_ + first, rows,  first_output, std::min(stride, weights_.outputs() - first_output), values,
            slot_stride,        stride};
  }

  const Device& device_;
  const KOrder order_;
  const TileKernels::Table& table_;
  const PackedWeights& weights_;
  const Bf16* x_;
  int64_t x_stride_;
  int64_t rows_;
  std::vector<int64_t> group_of_run_;
  int64_t groups_ = 0;  // k16 groups of a row over all runs
  int64_t group_bytes_ = 0;
  int64_t first_row_ = 0, chunk_rows_ = 0, blocks_ = 0;  // of the chunk at work
  std::byte* prepared_ = nullptr;                        // [block][run][group][row of the block]
};

void round_row(const float* value, const float* bias, int64_t count, Bf16* y) {
  if (bias) {
    for (int64_t j = 0; j < count; ++j) y[j] = numerics::bf(numerics::add(value[j], bias[j]));
  } else {
    for (int64_t j = 0; j < count; ++j) y[j] = numerics::bf(value[j]);
  }
}

// y = residual(y, what round_row would make of y).
void add_row(const float* value, const float* bias, int64_t count, Bf16* y) {
  Bf16 rounded[kMostPanels * kPanel];
  round_row(value, bias, count, rounded);
  for (int64_t j = 0; j < count; ++j) y[j] = numerics::residual(y[j], rounded[j]);
}

void copy_row(const float* value, const float* bias, int64_t count, float* y) {
  if (bias) {
    for (int64_t j = 0; j < count; ++j) y[j] = numerics::add(value[j], bias[j]);
  } else {
    std::memcpy(y, value, static_cast<size_t>(count) * sizeof(float));
  }
}

}  // namespace

void linear_column(const Device& device, const ColumnLinear& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) {
      const bool tc = device.profile() == Profile::kTc;
      return tc ? cuda::tc::linear_column(device, p) : cuda::portable::linear_column(device, p);
    }
  KOrder order = column_order(device.profile(), device.control_arm(), p.rows, p.weights->inputs());
  Schedule schedule(device, std::move(order), *p.weights, p.x, p.x_stride, p.rows);
  schedule.run([&](const ItemResult& item) {
    float bias[kMostPanels * kPanel];
    if (p.bias)
      for (int64_t j = 0; j < item.outputs; ++j) bias[j] = numerics::widen(p.bias[item.first_output + j]);
    for (int64_t r = 0; r < item.rows; ++r) {
      const float* value = item.values + r * item.stride;
      const int64_t to = (item.first_row + r) * p.y_stride + item.first_output;
      if (p.y) {
        round_row(value, p.bias ? bias : nullptr, item.outputs, p.y + to);
      } else {
        copy_row(value, p.bias ? bias : nullptr, item.outputs, p.y_fp32 + to);
      }
    }
  });
}

void linear_row(const Device& device, const RowLinear& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) {
      if (device.profile() == Profile::kTc) return cuda::tc::linear_row(device, p);
      if (p.adds) throw std::logic_error("`portable` on a GPU adds to no residual stream: row_adds_residual() says so");
      cuda::portable::linear_row(device, p);
      if (p.y) cuda::finish_row_linear(device, p.partials, p.bias, p.rows, p.weights->outputs(), p.y);
      return;
    }
  std::vector<TreeNode> held;  // the non-empty segments of this rank
  for (int i = p.first; i < p.last; ++i)
    if (!p.segments.empty(i, i + 1)) held.push_back({0, i});
  std::vector<TreeMerge> merges;
  for (const TreeNode& node : p.nodes) merges.emplace_back(held, node);
  if (merges.empty()) return;
  KOrder order = row_order(device.profile(), device.control_arm(), p.rows, p.segments, p.first, p.last);
  Schedule schedule(device, std::move(order), *p.weights, p.x, p.x_stride, p.rows);
  schedule.run([&](const ItemResult& item) {
    const float* segment[numerics::kSegments];
    for (size_t i = 0; i < held.size(); ++i) segment[i] = item.values + held[i].index * item.slot_stride;
    for (size_t i = 0; i < merges.size(); ++i) {
      // The node's first segment takes the sum; other nodes do not read it.
      float* sum = item.values + std::max(p.first, p.nodes[i].index << p.nodes[i].level) * item.slot_stride;
      merges[i].apply(segment, item.slot_stride, sum);
      if (p.y) {
        float bias[kMostPanels * kPanel];
        if (p.bias)
          for (int64_t j = 0; j < item.outputs; ++j) bias[j] = numerics::widen(p.bias[item.first_output + j]);
        for (int64_t r = 0; r < item.rows; ++r) {
          Bf16* y = p.y + (item.first_row + r) * p.weights->outputs() + item.first_output;
          (p.adds ? add_row : round_row)(sum + r * item.stride, p.bias ? bias : nullptr, item.outputs, y);
        }
        continue;
      }
      for (int64_t r = 0; r < item.rows; ++r)
        std::memcpy(p.partials + static_cast<int64_t>(i) * node_stride(p) + (item.first_row + r) * p.weights->outputs() +
                        item.first_output,
                    sum + r * item.stride, static_cast<size_t>(item.outputs) * sizeof(float));
    }
  });
}

bool row_finishes(const Device& device, const RowLinear& p) {
  if (!root_alone(p.nodes)) return false;
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return device.profile() == Profile::kTc && cuda::tc::row_finishes(device, p);
  return true;
}

bool row_adds_residual(const Device& device, const RowLinear& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return row_finishes(device, p) && cuda::tc::row_adds_residual(p);
  return row_finishes(device, p);
}

bool row_sends(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
               const std::vector<TreeNode>& nodes) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda && device.profile() == Profile::kTc)
      return cuda::tc::row_sends(device, rows, outputs, segments, first, last, nodes);
  return false;
}

bool row_deals(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first,
               const TreeNode& node) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda && device.profile() == Profile::kTc)
      return cuda::tc::row_deals(device, rows, outputs, segments, first, node);
  return false;
}

void finish_row_linear(const Device& device, const float* root, const Bf16* bias, int64_t rows, int64_t outputs, Bf16* y) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::finish_row_linear(device, root, bias, rows, outputs, y);
  constexpr int64_t kBlock = 512;  // outputs at a time, for the widened bias
  const auto finish = [&](int64_t row) {
    for (int64_t j = 0; j < outputs; j += kBlock) {
      const int64_t count = std::min(kBlock, outputs - j);
      float wide[kBlock];
      if (bias)
        for (int64_t i = 0; i < count; ++i) wide[i] = numerics::widen(bias[j + i]);
      round_row(root + row * outputs + j, bias ? wide : nullptr, count, y + row * outputs + j);
    }
  };
  if (rows * outputs < kSerialWork * 4) {
    for (int64_t row = 0; row < rows; ++row) finish(row);
  } else {
    device.pool().run(rows, finish);
  }
}

}  // namespace invar
