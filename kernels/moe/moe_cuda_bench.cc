// Speed of the expert layer on a GPU, shapes of Qwen3-30B-A3B: 128 experts of [2 x 768][2048] and [2048][768], 8 for each token.
//
//   kernels_moe_cuda_bench [--profile tc|portable] [--tokens 1,4,16,64,256,8192] [--linears 1]
//
// Median time inside a graph of each step: router, order by expert, rows to experts (which the MLP does itself; for comparison),
// expert MLP, combine. With --linears both linears of the MLP by themselves. The MLP against reading
// the weights of the experts that have rows (plain read kernel of the same run), and for many tokens against dense cuBLASLt GEMMs
// of as many operations, by turns. Experts are drawn evenly.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/ceilings/cuda/ceilings.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/moe/expert_mlp.h"
#include "kernels/moe/expert_order.h"
#include "kernels/moe/router.h"
#include "kernels/rows/rows.h"

namespace invar {
namespace {

constexpr int64_t kHidden = 2048, kWidth = 768, kExperts = 128, kTopK = 8;
constexpr int64_t kManyTokens = 1024;

class Bench {
 public:
  Bench(Profile profile, bool linears) : linears_(linears), device_(open(profile)), watch_(*device_) {
    for (int64_t e = 0; e < kExperts; ++e) {
      experts_.push_back({GatedWeights(*device_, kWidth, kHidden), PackedWeights(*device_, kHidden, kWidth)});
      for (const PackedWeights* w :
           std::initializer_list<const PackedWeights*>{&experts_.back().gate_up.matrix(), &experts_.back().down})
        ceilings::fill_values(*device_, reinterpret_cast<Bf16*>(const_cast<std::byte*>(w->data())),
                              static_cast<int64_t>(w->bytes() / 2), 7, 0.05f);
    }
    for (const ExpertWeights& e : experts_) pointers_.push_back(&e);
    table_ = ExpertTable(*device_, pointers_);
    read_rate_ = ceilings::cuda_read_rate(*device_) * 1e-9;
    std::printf("%s, %s: a plain read %.0f GB/s\n", device_->describe().c_str(), std::string(name(profile)).c_str(), read_rate_);
  }

  void measure(int64_t tokens) {
    const Device& d = *device_;
    const int64_t rows = tokens * kTopK;
    std::vector<int32_t> ids;
    std::set<int32_t> touched;
    uint64_t state = 5;
    for (int64_t t = 0; t < tokens; ++t) {
      std::set<int32_t> chosen;
      while (chosen.size() < kTopK) chosen.insert(static_cast<int32_t>(numerics::mix64(++state) % kExperts));
      ids.insert(ids.end(), chosen.begin(), chosen.end());
      touched.insert(chosen.begin(), chosen.end());
    }
    const DeviceArray<int32_t> ids_there(d, ids), routed(d, rows), token_of(d, rows);
    const DeviceArray<int64_t> offsets(d, kExperts + 1), row_of(d, rows);
    const DeviceArray<float> logits(d, tokens * kExperts), weights(d, rows);
    const DeviceArray<Bf16> x(d, tokens * kHidden), moved(d, rows * kHidden), y(d, tokens * kHidden);
    const DeviceArray<float> partials(d, rows * kHidden);
    const DeviceArray<Bf16> results(d, rows * kHidden);
    ceilings::fill_values(d, x.data(), x.size(), 8, 1.0f);
    ceilings::fill_values(d, reinterpret_cast<Bf16*>(logits.data()), logits.size() * 2, 9, 1.0f);
    const RowSegments segments = RowSegments::cut(kWidth, numerics::down_unit(kWidth));
    Buffer scratch;
    ExpertMlp mlp{.offsets_on_device = offsets.data(),
                  .rows = rows,
                  .experts = pointers_,
                  .table = &table_,
                  .x = x.data(),
                  .index = token_of.data(),
                  .hidden = kHidden,
                  .segments = segments,
                  .nodes = maximal_subtrees(segments, 0, numerics::kSegments),
                  .partials = partials.data(),
                  .y = results.data(),
                  .scratch = &scratch};
    const auto order = [&] {
      order_by_expert(d, {.rows = tokens,
                          .top_k = kTopK,
                          .experts = kExperts,
                          .ids = ids_there.data(),
                          .offsets = offsets.data(),
                          .row_of = row_of.data(),
                          .token_of = token_of.data()});
    };
    const auto gather = [&] {
      gather_rows(d, {.count = rows,
                      .row_bytes = kHidden * 2,
                      .from = x.data(),
                      .from_stride = kHidden * 2,
                      .index = token_of.data(),
                      .to = moved.data(),
                      .to_stride = kHidden * 2});
    };
    order();
    gather();
    expert_mlp(d, mlp);  // the scratch grows outside the graph
    const double routing = graph_time([&] {
      route(d, {.rows = tokens,
                .experts = kExperts,
                .top_k = kTopK,
                .logits = logits.data(),
                .ids = routed.data(),
                .weights = weights.data()});
    });
    const double ordering = graph_time(order), gathering = graph_time(gather),
                 computing = graph_time([&] { expert_mlp(d, mlp); });
    const double combining = graph_time([&] {
      combine(d, {.rows = tokens,
                  .width = kHidden,
                  .top_k = kTopK,
                  .expert_rows = moved.data(),
                  .row_of = row_of.data(),
                  .weights = weights.data(),
                  .y = y.data()});
    });
    const double bytes =
        static_cast<double>(touched.size()) * static_cast<double>(experts_[0].gate_up.bytes() + experts_[0].down.bytes());
    const double flops = 2.0 * static_cast<double>(rows) * 3 * kHidden * kWidth;
    std::printf(
        "tokens %5ld: route %.1f us, order %.1f, gather %.1f, experts %.1f (%zu touched, %.0f GB/s = %.2f of a read, %.1f "
        "TFLOP/s), "
        "combine %.1f",
        static_cast<long>(tokens), routing, ordering, gathering, computing, touched.size(), bytes / computing * 1e-3,
        bytes / computing * 1e-3 / read_rate_, flops / computing * 1e-6, combining);
    if (tokens >= kManyTokens) {
      const Dense wide(d, watch_, rows, 2 * kWidth, kHidden), deep(d, watch_, rows, kHidden, kWidth);
      const std::vector<double> us =
          watch_.by_turns({[&] { expert_mlp(d, mlp); }, [&] { wide.multiply(); }, [&] { deep.multiply(); }});
      std::printf("; by turns %.1f, dense cuBLASLt %.1f us + %.1f, ratio %.3f", us[0], us[1], us[2], (us[1] + us[2]) / us[0]);
      if (linears_) measure_linears(mlp, moved.data());
    }
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  // One dense matrix by cuBLASLt's fastest proposal, bf16.
  class Dense {
   public:
    Dense(const Device& device, const ceilings::Stopwatch& watch, int64_t rows, int64_t outputs, int64_t inputs)
        : weights_(device, outputs * inputs),
          x_(device, rows * inputs),
          y_(device, rows * outputs),
          product_(device, {.rows = rows, .outputs = outputs, .inputs = inputs}) {
      ceilings::fill_values(device, weights_.data(), weights_.size(), 3, 0.05f);
      ceilings::fill_values(device, x_.data(), x_.size(), 8, 1.0f);
      fastest_ = ceilings::fastest_proposal(product_, watch, 5, [&](size_t algorithm, int) { return run(algorithm); }).algorithm;
    }
    void multiply() const { run(fastest_); }

   private:
    bool run(size_t algorithm) const { return product_.run(algorithm, weights_.data(), x_.data(), y_.data()); }

    DeviceArray<Bf16> weights_, x_, y_;
    ceilings::BlasProduct product_;
    size_t fastest_ = 0;
  };

  // Both linears of the MLP, each against a dense matrix by turns.
  void measure_linears(const ExpertMlp& mlp, const Bf16* moved) {
    using cuda::tc::GroupedLinear;
    const Device& d = *device_;
    const int64_t rows = mlp.rows;
    const DeviceArray<Bf16> gated(d, rows * kWidth);
    ceilings::fill_values(d, gated.data(), gated.size(), 8, 1.0f);
    GroupedLinear up{.groups = kExperts,
                     .weights = table_.gate_up(),
                     .offsets = mlp.offsets_on_device,
                     .rows = rows,
                     .outputs = 2 * kWidth,
                     .inputs = kHidden,
                     .x_stride = kHidden};
    GroupedLinear down = up;
    down.weights = table_.down();
    down.outputs = kHidden;
    down.inputs = down.x_stride = kWidth;
    down.x = gated.data();
    const auto compare = [&](const char* what, const std::function<void()>& grouped, const GroupedLinear& linear) {
      const double flops = 2.0 * static_cast<double>(rows * linear.outputs * linear.inputs);
      const Dense dense(d, watch_, rows, linear.outputs, linear.inputs);
      const std::vector<double> us = watch_.by_turns({grouped, [&] { dense.multiply(); }});
      std::printf("\n  %-16s %7.1f us, %4.0f TFLOP/s, dense %7.1f, ratio %.3f", what, us[0], flops / us[0] * 1e-6, us[1],
                  us[1] / us[0]);
    };
    for (const bool index : {true, false}) {
      up.x = index ? mlp.x : moved;
      up.index = index ? mlp.index : nullptr;
      compare(
          index ? "gate_up, indexed" : "gate_up", [&] { cuda::tc::grouped_gated(d, up, kWidth, gated.data(), kWidth); }, up);
    }
    compare(
        "down", [&] { cuda::tc::grouped_row(d, down, mlp.segments, 0, numerics::kSegments, mlp.nodes, mlp.partials, 0, mlp.y); },
        down);
  }

  static std::unique_ptr<Device> open(Profile profile) {
    auto device = Device::open({.profile = profile, .backend = Backend::kCuda});
    if (!device.ok()) throw DeviceFailure(std::string(device.status().message()));
    return *std::move(device);
  }
  // Microseconds of one call.
  double graph_time(const std::function<void()>& call) {
    return watch_.in_graph([&](int) { call(); }, 5);
  }

  const bool linears_;
  const std::unique_ptr<Device> device_;
  const ceilings::Stopwatch watch_;
  std::vector<ExpertWeights> experts_;
  std::vector<const ExpertWeights*> pointers_;
  ExpertTable table_;
  double read_rate_ = 0;
};

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::Profile profile = invar::Profile::kTc;
  bool linears = false;
  std::vector<int64_t> tokens = {1, 4, 16, 64, 256, 8192};
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) {
      std::fprintf(flag == "--help" ? stdout : stderr,
                   "usage: kernels_moe_cuda_bench [--tokens 1,16,8192] [--linears 1] [--profile tc|portable]\n");
      return flag == "--help" ? 0 : 2;
    }
    if (flag == "--linears") {
      linears = std::string(argv[i + 1]) == "1";
    } else if (flag == "--profile") {
      profile = std::string(argv[i + 1]) == "portable" ? invar::Profile::kPortable : invar::Profile::kTc;
    } else if (flag == "--tokens") {
      tokens.clear();
      for (char* p = argv[i + 1]; *p; p += *p == ',') tokens.push_back(std::strtoll(p, &p, 10));
    } else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  invar::Bench bench(profile, linears);
  for (const int64_t n : tokens) bench.measure(n);
  return 0;
}
