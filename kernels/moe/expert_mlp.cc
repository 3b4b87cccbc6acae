#include "kernels/moe/expert_mlp.h"

#include <algorithm>

#include "kernels/activation/activation.h"
#include "kernels/linear/cuda/portable_grouped.h"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/rows/rows.h"

namespace invar {

namespace {

template <class Matrix>
std::vector<const std::byte*> places(std::span<const ExpertWeights* const> experts, const Matrix& matrix) {
  std::vector<const std::byte*> all;
  for (const ExpertWeights* e : experts) all.push_back(matrix(*e).data());
  return all;
}

// Cuts a buffer into aligned pieces, one behind the other.
class Pieces {
 public:
  explicit Pieces(std::byte* begin) : next_(begin) {}
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(count);
    return piece;
  }
  template <class T>
  static size_t bytes(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
  }

 private:
  std::byte* next_;
};

class Call {
 public:
  Call(const Device& device, const ExpertMlp& problem)
      : device_(device),
        problem_(problem),
        experts_(static_cast<int64_t>(problem.experts.size())),
        rows_(problem.offsets_on_device ? problem.rows
              : experts_                ? problem.offsets[experts_]
                                        : 0),
        width_(experts_ ? problem.experts[0]->down.inputs() : 0),
        both_(experts_ ? problem.experts[0]->gate_up.matrix().outputs() : 0) {}

  void run() {
    // No node: this rank holds none of the intermediate width and has nothing to add.
    if (rows_ == 0 || experts_ == 0 || problem_.nodes.empty()) return;
    if constexpr (kCudaBuilt)
      if (device_.backend() == Backend::kCuda && problem_.table && together()) return;
    one_by_one();
  }

 private:
  // `rows` rows of gate and up, and of what comes of them; `more` bytes in front.
  Pieces room(int64_t rows, size_t more) {
    const size_t wanted = more + Pieces::bytes<Bf16>(rows * both_) + Pieces::bytes<Bf16>(rows * width_);
    Buffer& scratch = problem_.scratch ? *problem_.scratch : own_;
    if (scratch.size() < wanted) scratch = Buffer(device_, wanted);
    return Pieces(scratch.data());
  }

  // Rows in their order, where the index has them elsewhere.
  const Bf16* gathered(Bf16* to) {
    const int64_t bytes = problem_.hidden * static_cast<int64_t>(sizeof(Bf16));
    gather_rows(device_, {.count = rows_,
                          .row_bytes = bytes,
                          .from = problem_.x,
                          .from_stride = bytes,
                          .index = problem_.index,
                          .to = to,
                          .to_stride = bytes});
    return to;
  }

  bool together() {
    using cuda::tc::GroupedLinear;
    const bool tc = device_.profile() == Profile::kTc;
    GroupedLinear up{.groups = static_cast<int>(experts_),
                     .weights = problem_.table->gate_up(),
                     .offsets = problem_.offsets_on_device,
                     .rows = rows_,
                     .outputs = both_,
                     .inputs = problem_.hidden,
                     .x = problem_.x,
                     .x_stride = problem_.hidden};
    GroupedLinear down = up;
    down.weights = problem_.table->down();
    down.outputs = problem_.hidden;
    down.inputs = width_;
    down.x_stride = width_;
    const bool alternate = problem_.experts[0]->gate_up.alternate();
    const bool fetched = problem_.index && !(tc && alternate && cuda::tc::grouped_gated_takes_index(up));
    const int64_t copied = fetched ? rows_ * problem_.hidden : 0;
    Pieces pieces = room(rows_, Pieces::bytes<int64_t>(experts_ + 1) + Pieces::bytes<Bf16>(copied));
    auto* offsets = pieces.take<int64_t>(experts_ + 1);
    auto* ordered = pieces.take<Bf16>(copied);
    auto* both = pieces.take<Bf16>(rows_ * both_);
    auto* gated = pieces.take<Bf16>(rows_ * width_);
    down.x = gated;
    const auto column_fits = tc ? cuda::tc::grouped_column_fits : cuda::portable::grouped_column_fits;
    const auto row_fits = tc ? cuda::tc::grouped_row_fits : cuda::portable::grouped_row_fits;
    if (!column_fits(device_, up) || !row_fits(device_, down, problem_.segments, problem_.first, problem_.last, problem_.nodes))
      return false;
    if (fetched) {
      up.x = gathered(ordered);
    } else {
      up.index = problem_.index;
    }
    if (!problem_.offsets_on_device) {
      device_.upload(offsets, problem_.offsets.data(), problem_.offsets.size_bytes());
      up.offsets = down.offsets = offsets;
    }
    if (tc && alternate) {
      cuda::tc::grouped_gated(device_, up, width_, gated, width_);
      down.settled = true;
    } else {
      (tc ? cuda::tc::grouped_column : cuda::portable::grouped_column)(device_, up, both, both_);
      silu_mul(device_, {.rows = rows_,
                         .width = width_,
                         .x = both,
                         .x_stride = both_,
                         .run = alternate ? kGatedRun : 0,
                         .y = gated,
                         .y_stride = width_});
    }
    const int64_t stride = rows_ * problem_.hidden;
    if (tc) {
      cuda::tc::grouped_row(device_, down, problem_.segments, problem_.first, problem_.last, problem_.nodes, problem_.partials,
                            stride, problem_.y);
    } else {
      cuda::portable::grouped_row(device_, down, problem_.segments, problem_.first, problem_.last, problem_.nodes,
                                  problem_.partials, stride);
      if (problem_.y) finish_row_linear(device_, problem_.partials, nullptr, rows_, problem_.hidden, problem_.y);
    }
    return true;
  }

  void one_by_one() {
    std::span<const int64_t> offsets = problem_.offsets;
    std::vector<int64_t> read_back;
    if (problem_.offsets_on_device) {
      read_back.resize(static_cast<size_t>(experts_ + 1));
      device_.download(read_back.data(), problem_.offsets_on_device, read_back.size() * sizeof(int64_t));
      offsets = read_back;
    }
    int64_t largest = 0;
    for (int64_t e = 0; e < experts_; ++e) largest = std::max(largest, offsets[e + 1] - offsets[e]);
    const int64_t copied = problem_.index ? rows_ * problem_.hidden : 0;
    Pieces pieces = room(largest, Pieces::bytes<Bf16>(copied));
    auto* ordered = pieces.take<Bf16>(copied);
    const Bf16* x = problem_.index ? gathered(ordered) : problem_.x;
    auto* both = pieces.take<Bf16>(largest * both_);
    auto* gated = pieces.take<Bf16>(largest * width_);
    for (int64_t e = 0; e < experts_; ++e) {
      const int64_t first_row = offsets[e], group = offsets[e + 1] - first_row;
      if (!group) continue;
      const ExpertWeights& weights = *problem_.experts[e];
      linear_gated(device_, {.rows = group,
                             .x = x + first_row * problem_.hidden,
                             .x_stride = problem_.hidden,
                             .weights = &weights.gate_up,
                             .both = both,
                             .y = gated,
                             .y_stride = width_});
      linear_row(device_, {.rows = group,
                           .x = gated,
                           .x_stride = width_,
                           .weights = &weights.down,
                           .segments = problem_.segments,
                           .first = problem_.first,
                           .last = problem_.last,
                           .nodes = problem_.nodes,
                           .partials = problem_.partials + first_row * problem_.hidden,
                           .node_stride = rows_ * problem_.hidden,
                           .y = problem_.y ? problem_.y + first_row * problem_.hidden : nullptr});
    }
  }

  const Device& device_;
  const ExpertMlp& problem_;
  const int64_t experts_, rows_, width_, both_;  // both_: outputs of the gated linear's matrix
  Buffer own_;
};

}  // namespace

ExpertTable::ExpertTable(const Device& device, std::span<const ExpertWeights* const> experts)
    : gate_up_(device, places(
                           experts, [](const ExpertWeights& e) -> auto& { return e.gate_up.matrix(); })),
      down_(device, places(
                        experts, [](const ExpertWeights& e) -> auto& { return e.down; })) {}

void expert_mlp(const Device& device, const ExpertMlp& problem) { Call(device, problem).run(); }

}  // namespace invar
