// Speed of the `portable` linears on a GPU: plans of the stream schedule (decode) against a plain read and cuBLASLt with bf16
// operands, the tile schedule (prefill) against the multiply-add ceiling and cuBLASLt with fp32 operands.
//
//   kernels_portable_cuda_bench [--rows 1,4,8,16,32,64,1024] [--layer TEXT] [--all-plans] [--time-limit S]
//
// Time of one call inside a graph of dependent calls, the median of the replays; weights rotated through more than 300 MB.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/ceilings/cuda/ceilings.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/device/cuda/context.h"
#include "kernels/linear/cuda/portable_linear.h"
#include "kernels/linear/cuda/portable_run.h"

namespace invar {
namespace {

using cuda::check;
namespace portable = cuda::portable;

constexpr double kMegahertz = 1755;  // about, under load: turns predicted cycles into microseconds
constexpr size_t kRotated = size_t{300} << 20;

struct Layer {
  const char* name;
  int64_t outputs, inputs, unit;  // unit 0: column-parallel
  int first, last;                // segments held
};
constexpr Layer kLayers[] = {
    {"qkv", 6144, 4096, 0, 0, 8},    {"gate_up", 24576, 4096, 0, 0, 8}, {"o", 4096, 4096, 512, 0, 8},
    {"down", 4096, 12288, 64, 0, 8}, {"qkv/8", 768, 4096, 0, 0, 8},     {"down/8", 4096, 12288, 64, 2, 3},
};

struct Options {
  std::vector<int64_t> rows = {1, 4, 8, 16, 32, 64, 1024};
  std::string layer;
  bool all_plans = false;
  double time_limit = 60;
};

class Bench {
 public:
  explicit Bench(Options options) : options_(std::move(options)), device_(open()), watch_(*device_) {}

  void run() {
    read_rate_ = ceilings::cuda_read_rate(*device_) * 1e-9;
    int clock = 0;
    check(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, device_->cuda().index));
    ceiling_ = 2.0 * 128 * device_->cuda().multiprocessors * clock * 1e-9;
    std::printf("%s: a plain read %.0f GB/s; multiply-add units at %d MHz %.1f TFLOP/s\n", device_->describe().c_str(),
                read_rate_, clock / 1000, ceiling_);
    for (const Layer& layer : kLayers)
      if (std::string(layer.name).find(options_.layer) != std::string::npos)
        for (const int64_t rows : options_.rows)
          if (seconds() < options_.time_limit) measure(layer, rows);
    std::printf("%.0f s\n", seconds());
  }

 private:
  static std::unique_ptr<Device> open() {
    auto device = Device::open({.profile = Profile::kPortable, .backend = Backend::kCuda});
    if (!device.ok()) throw DeviceFailure(std::string(device.status().message()));
    return *std::move(device);
  }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  // cuBLASLt's best of 8.
  double rival_time(const ceilings::BlasShape& shape, const std::vector<const void*>& weights, const void* x, void* y,
                    int count) {
    const ceilings::BlasProduct product(*device_, shape);
    return ceilings::fastest_proposal(product, watch_, count,
                                      [&](size_t algorithm, int turn) {
                                        return product.run(algorithm, weights[static_cast<size_t>(turn) % weights.size()], x, y);
                                      })
        .us;
  }

  void measure(const Layer& layer, int64_t rows) {
    const bool decode = rows <= 64;
    const RowSegments segments = RowSegments::cut(layer.inputs, layer.unit ? layer.unit : 1);
    const int64_t k = layer.unit ? segments.begin[layer.last] - segments.begin[layer.first] : layer.inputs;
    const size_t bytes = portable::packed_bytes(layer.outputs, k);
    const size_t copies = decode ? std::clamp<size_t>((kRotated + bytes - 1) / bytes, 2, 64) : 1;
    std::vector<PackedWeights> weights;
    std::vector<const void*> places;
    for (size_t i = 0; i < copies; ++i) {
      weights.emplace_back(*device_, layer.outputs, k);
      places.push_back(weights.back().data());
      ceilings::fill_values(*device_, reinterpret_cast<Bf16*>(const_cast<std::byte*>(weights.back().data())),
                            static_cast<int64_t>(bytes / 2), 7, 0.05f);
    }
    const Buffer x(*device_, static_cast<size_t>(rows * k) * sizeof(Bf16));
    ceilings::fill_values(*device_, x.as<Bf16>(), rows * k, 8, 1.0f);
    const Buffer y(*device_, static_cast<size_t>(rows * layer.outputs) * sizeof(float));
    const int count = decode ? static_cast<int>(std::max<size_t>(copies, 16)) : 2;
    ColumnLinear column{.rows = rows, .x = x.as<Bf16>(), .x_stride = k, .y = y.as<Bf16>(), .y_stride = layer.outputs};
    RowLinear row{.rows = rows,
                  .x = x.as<Bf16>(),
                  .x_stride = k,
                  .segments = segments,
                  .first = layer.first,
                  .last = layer.last,
                  .nodes = maximal_subtrees(segments, layer.first, layer.last),
                  .partials = y.as<float>()};
    const auto work = [&](int turn) {
      column.weights = row.weights = &weights[static_cast<size_t>(turn) % copies];
      return layer.unit ? portable::work_of(*device_, row) : portable::work_of(*device_, column);
    };
    const auto time = [&](const portable::Plan& plan) {
      return watch_.in_graph([&](int turn) { portable::run(*device_, work(turn), plan); }, count);
    };
    const portable::Work first = work(0);
    const portable::Machine machine = portable::machine_of(*device_);
    const portable::Plan chosen = portable::make_plan(machine, first.order, first.target, first.aligned);
    const double own = time(chosen);
    const double bf16 = rival_time({.rows = rows, .outputs = layer.outputs, .inputs = k}, places, x.data(), y.data(), count);
    const double flops = 2.0 * static_cast<double>(rows * layer.outputs * k);
    std::printf(
        "%-8s rows %5ld: %8.1f us, %5.0f GB/s = %.2f of a read, %5.1f TFLOP/s = %.2f of the ceiling, %.2f of cuBLASLt's bf16 "
        "time",
        layer.name, static_cast<long>(rows), own, static_cast<double>(bytes) / own * 1e-3,
        static_cast<double>(bytes) / own * 1e-3 / read_rate_, flops / own * 1e-6, flops / own * 1e-6 / ceiling_, own / bf16);
    if (!decode) {
      const Buffer wide_weights(*device_, static_cast<size_t>(layer.outputs * k) * sizeof(float));
      const Buffer wide_x(*device_, static_cast<size_t>(rows * k) * sizeof(float));
      const double fp32 = rival_time({.rows = rows, .outputs = layer.outputs, .inputs = k, .fp32_operands = true},
                                     {wide_weights.data()}, wide_x.data(), y.data(), count);
      std::printf(", %.2f of its fp32 time", own / fp32);
    }
    std::printf(" [%s, predicted %.1f]\n", describe(chosen).c_str(),
                portable::predicted_cycles(machine, first.order, first.target, chosen) / kMegahertz);
    if (!options_.all_plans) return;
    std::vector<portable::Plan> plans;
    for (const int pass_rows : {1, 2, 4, 8, 16})
      if (decode && (pass_rows == chosen.pass_rows || pass_rows >= 8) && pass_rows < 2 * rows)
        for (const int cluster : {1, 2, 4, 8})
          for (const int resident : {1, 2, 4})
            plans.push_back(portable::stream_plan(machine, first.order, first.target, pass_rows, cluster, resident, 0));
    if (rows > 16)
      for (const int tile_rows : {128, 256}) plans.push_back(portable::tile_plan(machine, first.order, first.target, tile_rows));
    std::vector<std::pair<double, std::string>> results;
    for (const auto& plan : plans)
      if (plan.schedule != portable::Schedule::kAnyShape)
        results.emplace_back(time(plan),
                             describe(plan) + ", predicted " +
                                 std::to_string(portable::predicted_cycles(machine, first.order, first.target, plan) / 1755));
    std::sort(results.begin(), results.end());
    for (size_t i = 0; i < std::min<size_t>(results.size(), 4); ++i)
      std::printf("    %8.1f us %s\n", results[i].first, results[i].second.c_str());
  }

  static std::string describe(const portable::Plan& plan) {
    if (plan.schedule == portable::Schedule::kTiles) return "tiles of " + std::to_string(plan.tile_rows);
    if (plan.schedule == portable::Schedule::kAnyShape) return "any shape";
    return "stream of " + std::to_string(plan.pass_rows) + " rows, " + std::to_string(plan.passes) + " passes, " +
           std::to_string(plan.clusters) + " clusters of " + std::to_string(plan.cluster) + ", " + std::to_string(plan.warps) +
           " warps, " + std::to_string(plan.stages) + " stages";
  }

  Options options_;
  const std::unique_ptr<Device> device_;
  const ceilings::Stopwatch watch_;
  double read_rate_ = 0, ceiling_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--all-plans")
      options.all_plans = true;
    else if (flag == "--rows" && i + 1 < argc) {
      options.rows.clear();
      for (char* p = argv[++i]; *p; p += *p == ',') options.rows.push_back(std::strtoll(p, &p, 10));
    } else if (flag == "--layer" && i + 1 < argc)
      options.layer = argv[++i];
    else if (flag == "--time-limit" && i + 1 < argc)
      options.time_limit = std::atof(argv[++i]);
    else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      std::exit(2);
    }
  }
  return options;
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::Bench(invar::parse(argc, argv)).run();
  return 0;
}
