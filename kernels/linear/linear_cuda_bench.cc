// Speed of the tc profile's linears on a Hopper GPU, on layers of Qwen3-8B and Llama-3.1-70B, whole and as one of eight shards.
//
//   kernels_linear_cuda_bench [--rows 1,8,16,32,64] [--layer TEXT] [--plans N] [--only TEXT] [--sustained S]
//                            [--time-limit S]
//
// Up to 64 rows: time of one call inside a graph of dependent calls, weights rotated through more than 300 MB so that they come
// from HBM; share of a plain read kernel's bandwidth; ratio to cuBLASLt's best of 8 heuristic algorithms in a graph of the same
// kind.
// --plans N times every plan and prints the best N, with --only TEXT those whose description has that in it. More rows: TFLOP/s
// and ratio to cuBLASLt, taken in turns, since the clock follows the power; with each the mean clock and the share of the
// products that the tensor cores could form at it. --sustained S: cuBLASLt and each plan (with --only TEXT those with that in
// their description) for S seconds each, twice: what a card at its power limit gives, and the energy of it; likewise experts, as
// their MLP calls them, and one dense matrix. Row-parallel layers of several ranks write fp32 values of tree nodes: there
// cuBLASLt writes fp32, too, and the ratio to its bf16 is told beside.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/ceilings/cuda/ceilings.h"
#include "kernels/ceilings/cuda/energy.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/device/cuda/context.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/cuda/tensor_core_decode.h"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/linear/cuda/tensor_core_linear.h"
#include "kernels/linear/cuda/tensor_core_prefill.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_cuda_bench_kernels.h"

namespace invar {
namespace {

namespace tc = cuda::tc;

constexpr int64_t kManyTokens = 1024;
constexpr size_t kRotated = 300 << 20;  // bytes of weights in turn: several times the second-level cache

struct Layer {
  const char* name;
  int64_t outputs, inputs;
  int64_t unit;     // of the segments; 0: column-parallel
  int first, last;  // segments held
  int64_t held() const {
    if (unit == 0) return inputs;
    const RowSegments segments = RowSegments::cut(inputs, unit);
    return segments.begin[last] - segments.begin[first];
  }
};

constexpr Layer kLayers[] = {
    {"qwen3-8b qkv", 6144, 4096},
    {"qwen3-8b gate_up", 24576, 4096},
    {"qwen3-8b lm_head", 151936, 4096},
    {"qwen3-8b o", 4096, 4096, 512, 0, 8},
    {"qwen3-8b down", 4096, 12288, 64, 0, 8},
    {"qwen3-8b/8 qkv", 768, 4096},
    {"qwen3-8b/8 gate_up", 3072, 4096},
    {"qwen3-8b/8 o", 4096, 4096, 512, 2, 3},
    {"qwen3-8b/8 down", 4096, 12288, 64, 2, 3},
    {"qwen3-8b/4 down", 4096, 12288, 64, 2, 4},
    {"qwen3-8b/4 o", 4096, 4096, 512, 2, 4},
    {"qwen3-8b/2 qkv", 3072, 4096},
    {"qwen3-8b/2 gate_up", 12288, 4096},
    {"qwen3-8b/2 o", 4096, 4096, 512, 0, 4},
    {"qwen3-8b/2 down", 4096, 12288, 64, 0, 4},
    {"llama-70b qkv", 10240, 8192},
    {"llama-70b gate_up", 57344, 8192},
    {"llama-70b o", 8192, 8192, 1024, 0, 8},
    {"llama-70b down", 8192, 28672, 64, 0, 8},
    {"llama-70b/8 qkv", 1280, 8192},
    {"llama-70b/8 gate_up", 7168, 8192},
    {"llama-70b/8 o", 8192, 8192, 1024, 2, 3},
    {"llama-70b/8 down", 8192, 28672, 64, 2, 3},
};

// One linear of all experts of a layer, each token at `chosen` of them.
struct Experts {
  const char* name;
  int64_t outputs, inputs, unit;
  int experts, chosen;
};
constexpr Experts kExperts[] = {
    {"qwen3-30b-a3b experts gate_up", 1536, 2048, 0, 128, 8},
    {"qwen3-30b-a3b experts down", 2048, 768, 64, 128, 8},
};

struct Options {
  std::vector<int64_t> rows = {1, 8, 16, 32, 64};
  std::string layer;
  int plans = 0;
  std::string only;
  double sustained = 0;
  double time_limit = 100;
};

class Bench {
 public:
  explicit Bench(Options options) : options_(std::move(options)), device_(open()), watch_(*device_) {
    stamps_ = DeviceArray<uint64_t>(*device_, std::vector<uint64_t>(2 * kStamps));
  }

  void run() {
    measure_reading();
    for (const Layer& layer : kLayers) {
      if (std::string(layer.name).find(options_.layer) == std::string::npos) continue;
      for (int64_t rows : options_.rows)
        if (seconds() < options_.time_limit) measure(layer, rows);
    }
    for (const Experts& e : kExperts) {
      if (std::string(e.name).find(options_.layer) == std::string::npos) continue;
      for (int64_t tokens : {16, 64, 256, 8192})
        if (seconds() < options_.time_limit) measure_experts(e, tokens);
    }
    std::printf("%.0f s\n", seconds());
  }

 private:
  static std::unique_ptr<Device> open() {
    auto device = Device::open({.profile = Profile::kTc, .backend = Backend::kCuda});
    if (!device.ok()) throw DeviceFailure(std::string(device.status().message()));
    return *std::move(device);
  }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  void launch_fill(Bf16* values, int64_t count, float scale) { ceilings::fill_values(*device_, values, count, 7, scale); }

  // Microseconds of one call inside a graph of `count` calls, the median of several replays.
  double graph_time(const std::function<void(int)>& call, int count, int replays = 7) {
    return watch_.in_graph(call, count, replays);
  }

  void measure_reading() {
    read_rate_ = ceilings::cuda_read_rate(*device_) * 1e-9;
    std::printf("%s: a plain read kernel reaches %.0f GB/s\n", device_->describe().c_str(), read_rate_);
  }

  // One layer at one number of rows.
  struct Work {
    Layer layer;
    int64_t rows;
    std::vector<PackedWeights> weights;  // in turn
    Buffer x, y, finished;
    ColumnLinear column;
    RowLinear row;
  };

  Work make_work(const Layer& layer, int64_t rows, bool decode) {
    Work w{.layer = layer, .rows = rows};
    const int64_t held = layer.held();
    const size_t bytes = tc::packed_bytes(layer.outputs, held);
    const size_t copies = decode ? std::clamp<size_t>((kRotated + bytes - 1) / bytes, 2, 64) : 2;
    for (size_t i = 0; i < copies; ++i) {
      w.weights.emplace_back(*device_, layer.outputs, held);
      launch_fill(reinterpret_cast<Bf16*>(const_cast<std::byte*>(w.weights.back().data())), static_cast<int64_t>(bytes / 2),
                  0.05f);
    }
    w.x = Buffer(*device_, static_cast<size_t>(rows * held) * sizeof(Bf16));
    launch_fill(w.x.as<Bf16>(), rows * held, 1.0f);
    w.y = Buffer(*device_, static_cast<size_t>(rows * layer.outputs) * sizeof(float) * (layer.unit ? 4 : 1));
    if (layer.unit) {
      w.row.rows = rows;
      w.row.x = w.x.as<Bf16>();
      w.row.x_stride = held;
      w.row.segments = RowSegments::cut(layer.inputs, layer.unit);
      w.row.first = layer.first;
      w.row.last = layer.last;
      w.row.nodes = maximal_subtrees(w.row.segments, layer.first, layer.last);
      w.row.partials = w.y.as<float>();
      if (!decode && root_alone(w.row.nodes)) {
        w.finished = Buffer(*device_, static_cast<size_t>(rows * layer.outputs) * sizeof(Bf16));
        w.row.y = w.finished.as<Bf16>();
      }
    } else {
      w.column.rows = rows;
      w.column.x = w.x.as<Bf16>();
      w.column.x_stride = held;
      w.column.y = w.y.as<Bf16>();
      w.column.y_stride = layer.outputs;
    }
    return w;
  }

  void call(Work* w, int turn) {
    const PackedWeights* weights = &w->weights[static_cast<size_t>(turn) % w->weights.size()];
    if (w->layer.unit) {
      w->row.weights = weights;
      tc::linear_row(*device_, w->row);
    } else {
      w->column.weights = weights;
      tc::linear_column(*device_, w->column);
    }
  }
  void call(Work* w, int turn, const tc::LinearShape& shape, const tc::DecodePlan& plan) {
    const PackedWeights* weights = &w->weights[static_cast<size_t>(turn) % w->weights.size()];
    if (w->layer.unit) {
      w->row.weights = weights;
      tc::decode_row(*device_, w->row, shape, plan);
    } else {
      w->column.weights = weights;
      tc::decode_column(*device_, w->column, shape, plan);
    }
  }

  void call(Work* w, int turn, const tc::LinearShape& shape, const tc::PrefillPlan& plan) {
    w->row.weights = w->column.weights = &w->weights[static_cast<size_t>(turn) % w->weights.size()];
    if (w->layer.unit) {
      tc::prefill_row(*device_, w->row, 0, shape, plan);
    } else {
      tc::prefill_column(*device_, w->column, shape, plan);
    }
  }

  // cuBLASLt on the same memory: y[rows][outputs] bf16.
  class Rival {
   public:
    Rival(const Device& device, const Work& w, bool fp32 = false)
        : product_(device, {.rows = w.rows, .outputs = w.layer.outputs, .inputs = w.layer.held(), .fp32_result = fp32}) {}
    size_t algorithms() const { return product_.algorithms(); }
    bool call(const Work& w, int turn, size_t algorithm) const {
      return product_.run(algorithm, w.weights[static_cast<size_t>(turn) % w.weights.size()].data(), w.x.data(), w.y.data());
    }

   private:
    ceilings::BlasProduct product_;
  };

  void measure_experts(const Experts& e, int64_t tokens) {
    const int64_t rows = tokens * e.chosen;
    std::vector<std::vector<int32_t>> tokens_of(static_cast<size_t>(e.experts));
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t i = 0, draw = 0; i < e.chosen; ++draw) {
        auto& its = tokens_of[numerics::mix64(static_cast<uint64_t>(token * 1000 + draw)) % tokens_of.size()];
        if (!its.empty() && its.back() == token) continue;
        its.push_back(static_cast<int32_t>(token));
        ++i;
      }
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> token_of;
    int64_t touched = 0;
    for (const auto& its : tokens_of) {
      touched += !its.empty();
      token_of.insert(token_of.end(), its.begin(), its.end());
      offsets.push_back(static_cast<int64_t>(token_of.size()));
    }
    Layer layer{
        .name = e.name, .outputs = e.outputs, .inputs = e.inputs, .unit = e.unit, .first = 0, .last = numerics::kSegments};
    Work w = make_work(layer, rows, false);
    std::vector<PackedWeights> weights;
    std::vector<const std::byte*> packed;
    for (int i = 0; i < e.experts; ++i) {
      weights.emplace_back(*device_, e.outputs, e.inputs);
      packed.push_back(weights.back().data());
      launch_fill(reinterpret_cast<Bf16*>(const_cast<std::byte*>(packed.back())),
                  static_cast<int64_t>(weights.back().bytes() / 2), 0.05f);
    }
    const DeviceArray<const std::byte*> device_packed(*device_, packed);
    const DeviceArray<int64_t> device_offsets(*device_, offsets);
    const DeviceArray<int32_t> device_tokens(*device_, token_of);
    tc::GroupedLinear problem{.groups = e.experts,
                              .weights = device_packed.data(),
                              .offsets = device_offsets.data(),
                              .rows = rows,
                              .outputs = e.outputs,
                              .inputs = e.inputs,
                              .x = w.x.as<Bf16>(),
                              .x_stride = e.inputs};
    if (!e.unit && tc::grouped_gated_takes_index(problem)) problem.index = device_tokens.data();
    const auto grouped = [&](int) {
      if (e.unit) {
        tc::grouped_row(*device_, problem, w.row.segments, 0, numerics::kSegments, w.row.nodes, w.y.as<float>(), rows * e.outputs,
                        w.row.y);
      } else {
        tc::grouped_gated(*device_, problem, e.outputs / 2, w.y.as<Bf16>(), e.outputs / 2);
      }
    };
    if (tokens >= kManyTokens && options_.sustained > 0) {
      const Rival rival(*device_, w);
      sustain_experts(w, rival, std::string(e.name) + ", " + std::to_string(tokens) + " tokens",
                      2.0 * static_cast<double>(rows * e.outputs * e.inputs), grouped);
      return;
    }
    const double us = graph_time(grouped, 20), bytes = static_cast<double>(touched * e.outputs * e.inputs) * sizeof(Bf16);
    const double flops = 2.0 * static_cast<double>(rows * e.outputs * e.inputs);
    Rival rival(*device_, w);
    double dense = 1e30;
    for (size_t i = 0; i < rival.algorithms(); ++i)
      if (rival.call(w, 0, i)) dense = std::min(dense, graph_time([&](int turn) { rival.call(w, turn, i); }, 20, 3));
    std::printf(
        "%-30s %5lld tokens, %3lld experts: %8.2f us, %4.0f GB/s = %3.0f %% of read, %4.0f TFLOP/s; one dense matrix %8.2f us\n",
        e.name, static_cast<long long>(tokens), static_cast<long long>(touched), us, bytes / us * 1e-3,
        100 * bytes / read_rate_ * 1e-3 / us, flops / us * 1e-6, dense);
    std::fflush(stdout);
  }

  void measure(const Layer& layer, int64_t rows) {
    const bool decode = rows <= tc::kMostDecodeRows;
    Work w = make_work(layer, rows, decode);
    Rival rival(*device_, w, !decode && layer.unit && !w.row.y);
    if (!decode && options_.sustained > 0) {
      measure_sustained(&w, &rival);
    } else if (decode) {
      measure_decode(&w, &rival);
    } else {
      measure_prefill(&w, &rival);
    }
    std::fflush(stdout);
  }

  void measure_decode(Work* w, Rival* rival) {
    const double bytes = static_cast<double>(w->layer.outputs * w->layer.held()) * sizeof(Bf16);
    const double floor = bytes / read_rate_ * 1e-3;
    const int copies = static_cast<int>(w->weights.size());
    const int count = std::max(2 * copies, std::clamp(static_cast<int>(1500 / (floor + 2)), 4, 200));
    double best_rival = 1e30;
    for (size_t i = 0; i < rival->algorithms(); ++i) {
      if (!rival->call(*w, 0, i)) continue;
      best_rival = std::min(best_rival, graph_time([&](int turn) { rival->call(*w, turn, i); }, count));
    }
    const double ours = graph_time([&](int turn) { call(w, turn); }, count);
    const tc::LinearShape shape =
        w->layer.unit ? *tc::linear_shape(w->row) : *tc::linear_shape(w->rows, w->layer.outputs, w->layer.inputs);
    const tc::Chip chip = tc::chip_of(*device_);
    std::printf("%-20s %6lldx%-5lld rows %2lld: %7.2f us, %4.0f GB/s = %3.0f %% of read; cuBLASLt %7.2f us, ratio %.2f [%s]\n",
                w->layer.name, static_cast<long long>(w->layer.outputs), static_cast<long long>(w->layer.held()),
                static_cast<long long>(w->rows), ours, bytes / ours * 1e-3, 100 * floor / ours, best_rival, ours / best_rival,
                tc::decode_plan(shape, chip).describe().c_str());
    if (!options_.plans) return;
    struct Timed {
      double us;
      tc::DecodePlan plan;
    };
    std::vector<Timed> timed;
    for (const tc::DecodePlan& plan : tc::decode_plans(shape, chip)) {
      if (plan.describe().find(options_.only) == std::string::npos) continue;
      const auto f = [&](int turn) { call(w, turn, shape, plan); };
      try {
        f(0);  // registers of too many threads: not in the middle of a capture
      } catch (const DeviceFailure&) {
        continue;
      }
      try {
        timed.push_back({graph_time(f, count / 2, 3), plan});
      } catch (const DeviceFailure&) {
        std::printf("failed: %s\n", plan.describe().c_str());
        throw;
      }
    }
    std::sort(timed.begin(), timed.end(), [](const Timed& a, const Timed& b) { return a.us < b.us; });
    timed.resize(std::min<size_t>(timed.size(), static_cast<size_t>(options_.plans)));
    for (const Timed& t : timed) std::printf("  %7.2f %.2f %s\n", t.us, t.us / best_rival, t.plan.describe().c_str());
  }

  struct Speed {
    double ms = 0;   // of one call
    double mhz = 0;  // mean clock meanwhile
    bool operator<(const Speed& other) const { return ms < other.ms; }
  };
  // `count` calls in a row.
  Speed stream_time(const std::function<void(int)>& call, int count) {
    bench::stamp_clocks(*device_, stamps_.data());
    const double ms = 1e-3 * watch_.once([&] {
      for (int i = 0; i < count; ++i) call(i);
    });
    bench::stamp_clocks(*device_, stamps_.data() + kStamps);
    const std::vector<uint64_t> stamps = stamps_.to_host(*device_);
    double mhz = 0;
    int counted = 0;
    for (int i = 0; i < kStamps; i += 2) {
      if (stamps[i] == 0 || stamps[kStamps + i + 1] <= stamps[i + 1]) continue;
      mhz += static_cast<double>(stamps[kStamps + i] - stamps[i]) / static_cast<double>(stamps[kStamps + i + 1] - stamps[i + 1]);
      ++counted;
    }
    return {ms / count, counted ? mhz / counted * 1e3 : 0};
  }
  static constexpr int kStamps = 512;
  // Of the products that the tensor cores can form in that time at that clock: 2048 a cycle and multiprocessor.
  double share(double flops, const Speed& s) const {
    return flops / (2 * 2048.0 * device_->cuda().multiprocessors * s.ms * 1e3 * s.mhz);
  }

  size_t best_algorithm(const Work& w, const Rival& rival, int count) {
    size_t best = 0;
    double best_time = 1e30;
    for (size_t i = 0; i < rival.algorithms(); ++i) {
      if (!rival.call(w, 0, i)) continue;
      const double ms = stream_time([&](int turn) { rival.call(w, turn, i); }, std::max(2, count / 2)).ms;
      if (ms < best_time) best_time = ms, best = i;
    }
    return best;
  }

  // Calls for options_.sustained seconds, and as many beforehand as make the clock settle.
  void hold(const std::string& name, double flops, const std::function<void(int)>& call) {
    const int count = std::max(1, static_cast<int>(options_.sustained / (flops / 600e12)));
    stream_time(call, std::max(1, count / 5));
    const auto before = meter_.joules();
    const Speed s = stream_time(call, count);
    const auto after = meter_.joules();
    std::printf("    %4.0f TFLOP/s %2.0f %% %4.0f MHz", flops / s.ms * 1e-9, 100 * share(flops, s), s.mhz);
    if (before && after)
      std::printf(", %3.0f W, %.3f J/TFLOP", (*after - *before) / (s.ms * count * 1e-3),
                  (*after - *before) / (flops * count * 1e-12));
    std::printf(" %s\n", name.c_str());
    std::fflush(stdout);
  }

  void sustain_experts(const Work& w, const Rival& rival, const std::string& name, double flops,
                       const std::function<void(int)>& grouped) {
    const size_t best = best_algorithm(w, rival, 10);
    std::printf("%s\n", name.c_str());
    for (int round = 0; round < 2; ++round) {
      hold("one dense matrix, cuBLASLt", flops, [&](int turn) { rival.call(w, turn, best); });
      hold("experts", flops, grouped);
    }
  }

  void measure_sustained(Work* w, Rival* rival) {
    const double flops = 2.0 * static_cast<double>(w->rows * w->layer.outputs * w->layer.held());
    const size_t best = best_algorithm(*w, *rival, std::clamp(static_cast<int>(0.006 / (flops / 650e12)), 2, 200));
    w->row.weights = &w->weights[0];
    const tc::LinearShape shape =
        w->layer.unit ? tc::linear_shape(w->row).value() : tc::linear_shape(w->rows, w->layer.outputs, w->layer.inputs).value();
    std::printf("%s %lldx%lld rows %lld\n", w->layer.name, static_cast<long long>(w->layer.outputs),
                static_cast<long long>(w->layer.held()), static_cast<long long>(w->rows));
    for (int round = 0; round < 2; ++round) {
      hold("cuBLASLt", flops, [&](int turn) { rival->call(*w, turn, best); });
      for (const tc::PrefillPlan& plan : tc::prefill_plans(shape, tc::chip_of(*device_)))
        if (plan.describe().find(options_.only) != std::string::npos)
          hold(plan.describe(), flops, [&](int turn) { call(w, turn, shape, plan); });
    }
  }

  void measure_prefill(Work* w, Rival* rival) {
    const double flops = 2.0 * static_cast<double>(w->rows * w->layer.outputs * w->layer.held());
    const int count = std::clamp(static_cast<int>(0.006 / (flops / 650e12)), 2, 200);
    const size_t best = best_algorithm(*w, *rival, count);
    std::vector<Speed> ours, theirs;
    for (int round = 0; round < 5; ++round)
      for (int which = 0; which < 2; ++which) {
        const bool own = (round + which) % 2 == 0;
        const auto f = [&](int turn) { own ? call(w, turn) : void(rival->call(*w, turn, best)); };
        stream_time(f, count);  // the clock settles
        (own ? ours : theirs).push_back(stream_time(f, count));
      }
    std::sort(ours.begin(), ours.end());
    std::sort(theirs.begin(), theirs.end());
    const double rate = flops / ours[2].ms * 1e-9, rival_rate = flops / theirs[2].ms * 1e-9;
    const tc::LinearShape shape =
        w->layer.unit ? tc::linear_shape(w->row).value() : tc::linear_shape(w->rows, w->layer.outputs, w->layer.inputs).value();
    const auto plan = tc::prefill_plan(shape, tc::chip_of(*device_));
    std::printf(
        "%-20s %6lldx%-5lld rows %5lld: %4.0f TFLOP/s %2.0f %% %4.0f MHz; cuBLASLt %4.0f %2.0f %% %4.0f MHz, rate ratio %.3f "
        "[%s]\n",
        w->layer.name, static_cast<long long>(w->layer.outputs), static_cast<long long>(w->layer.held()),
        static_cast<long long>(w->rows), rate, 100 * share(flops, ours[2]), ours[2].mhz, rival_rate,
        100 * share(flops, theirs[2]), theirs[2].mhz, rate / rival_rate, plan ? plan->describe().c_str() : "none");
    if (w->layer.unit && !w->row.y) {
      const Rival rounding(*device_, *w);
      const size_t its_best = best_algorithm(*w, rounding, count);
      const auto f = [&](int turn) { rounding.call(*w, turn, its_best); };
      stream_time(f, count);
      const Speed speed = stream_time(f, count);
      std::printf("    cuBLASLt with bf16 outputs %4.0f TFLOP/s %2.0f %%, ratio %.3f\n", flops / speed.ms * 1e-9,
                  100 * share(flops, speed), speed.ms / ours[2].ms);
    }
    if (!options_.plans) return;
    struct Timed {
      Speed speed;
      tc::PrefillPlan plan;
    };
    std::vector<Timed> timed;
    for (const tc::PrefillPlan& each : tc::prefill_plans(shape, tc::chip_of(*device_))) {
      const auto f = [&](int turn) { call(w, turn, shape, each); };
      stream_time(f, count);
      std::vector<Speed> speeds;
      for (int i = 0; i < 3; ++i) speeds.push_back(stream_time(f, count));
      std::sort(speeds.begin(), speeds.end());
      timed.push_back({speeds[1], each});
    }
    std::sort(timed.begin(), timed.end(), [](const Timed& a, const Timed& b) { return a.speed < b.speed; });
    timed.resize(std::min<size_t>(timed.size(), static_cast<size_t>(options_.plans)));
    for (const Timed& t : timed)
      std::printf("    %4.0f TFLOP/s %2.0f %% %4.0f MHz, %.3f %s\n", flops / t.speed.ms * 1e-9, 100 * share(flops, t.speed),
                  t.speed.mhz, flops / t.speed.ms * 1e-9 / rival_rate, t.plan.describe().c_str());
  }

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const Options options_;
  const std::unique_ptr<Device> device_;
  const ceilings::Stopwatch watch_;
  DeviceArray<uint64_t> stamps_;
  const ceilings::EnergyMeter meter_{*device_};
  double read_rate_ = 0;
};

int usage() {
  std::fprintf(stderr,
               "usage: kernels_linear_cuda_bench [--rows 1,8,16] [--layer TEXT] [--plans N] [--only TEXT] [--sustained S] "
               "[--time-limit S]\n");
  return 2;
}

int main_with(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) return usage();
    const std::string value = argv[i + 1];
    if (flag == "--rows") {
      options.rows.clear();
      for (size_t at = 0; at < value.size();) {
        const size_t comma = std::min(value.find(',', at), value.size());
        options.rows.push_back(std::stoll(value.substr(at, comma - at)));
        at = comma + 1;
      }
    } else if (flag == "--layer") {
      options.layer = value;
    } else if (flag == "--plans") {
      options.plans = std::stoi(value);
    } else if (flag == "--only") {
      options.only = value;
    } else if (flag == "--sustained") {
      options.sustained = std::stod(value);
    } else if (flag == "--time-limit") {
      options.time_limit = std::stod(value);
    } else {
      return usage();
    }
  }
  Bench(options).run();
  return 0;
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  try {
    return invar::main_with(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
