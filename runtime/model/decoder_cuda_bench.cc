// Speed of a whole model on one GPU: Decoder::forward on a model shape with dummy weights, against what the bytes and the
// operations of a step cost at the rates measured in the same run.
//
//   runtime_decoder_cuda_bench CONFIG.JSON [--profile tc] [--decode ROWSxCONTEXT ...] [--prefill TOKENS ...] [--price]
//   [--price-trace FILE.CSV|default ...] [--breakdown]
//
// --price: the same steps with linears by cuBLASLt as it likes, and of several ranks sums by ncclAllReduce, by turns with ours;
// ours / free - 1 is what the contract's order of adding costs. --price-trace: the same of a server's steps under a load
// (served_price.h). --breakdown: what the kinds of operations cost (step_parts.h).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/ceilings/cuda/ceilings.h"
#include "runtime/model/bench_plan.h"
#include "runtime/model/decoder.h"
#include "runtime/model/free_linears.h"
#include "runtime/model/served_price.h"
#include "runtime/model/step_batch.h"
#include "runtime/model/step_cost.h"
#include "runtime/model/step_parts.h"
#include "runtime/weights/dummy_weights.h"

namespace invar {
namespace {

// Before decode steps are timed: a card comes out of a prompt's power limit in some hundreds of milliseconds.
constexpr int kWarmSteps = 100;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One rank; the first one prints.
absl::Status run(const BenchOptions& o, const BenchPlan& p, parallel::Transport& transport) {
  const ModelConfig* config = &p.config;
  const parallel::Layout layout{.tp = o.tp};
  const auto at = parallel::coordinates_of(layout, transport.rank());
  auto device = Device::open({.profile = p.profile,
                              .threads = std::max(1, o.threads / o.tp),
                              .backend = Backend::kCuda,
                              .cuda_device = transport.rank()});
  if (!device.ok()) return device.status();
  std::unique_ptr<parallel::Transport> nccl;
  std::unique_ptr<parallel::PeerMemory> peer;
  if (o.tp > 1 && o.exchange == "nccl") {
    auto opened = parallel::start_nccl(transport, **device);
    if (!opened.ok()) return opened.status();
    nccl = *std::move(opened);
  }
  if (o.tp > 1 && o.exchange == "peer") {
    int64_t rows = 64;
    for (const int64_t prompt : o.prefill) rows = std::max(rows, prompt);
    auto opened = parallel::PeerMemory::open(transport, **device, parallel::tp_members(layout, at), peer_sizes(*config, rows));
    if (!opened.ok()) return opened.status();
    peer = *std::move(opened);
  }
  const double begin = now();
  auto decoder = Decoder::load(**device, nccl ? *nccl : transport, *config,
                               {.layout = layout,
                                .at = at,
                                .kv = {p.tokens / o.page_size + 1, o.page_size},
                                .max_positions = p.longest,
                                .record_decode = !o.eager,
                                .peer = peer.get()},
                               *make_dummy_weights(*config, 0), {});
  if (!decoder.ok()) return decoder.status();
  (*device)->synchronize();
  Decoder& d = **decoder;
  const double loaded = now() - begin;
  std::vector<int> world;
  for (int r = 0; r < o.tp; ++r) world.push_back(r);
  parallel::Group host(transport, world, 100);
  const bool prints = transport.rank() == 0;
  const double read = ceilings::cuda_read_rate(**device);
  const ceilings::MatrixRates matrix = ceilings::cuda_matrix_rates(**device);
  if (prints)
    std::printf(
        "%s, %s, %s, tp %d%s: %.1f GB of weights loaded in %.1f s; a GPU's read %.0f GB/s, matrix %.0f TFLOP/s, %.0f held\n",
        o.model.c_str(), std::string(name(p.profile)).c_str(), (*device)->describe().c_str(), o.tp,
        o.tp > 1 ? (" over " + o.exchange).c_str() : "", static_cast<double>(d.weight_bytes()) * 1e-9, loaded, read * 1e-9,
        matrix.once * 1e-12, matrix.held * 1e-12);
  const auto forward = [&](const StepRows& rows) {
    d.forward(rows, nullptr, [](int64_t, int64_t, const float*) {});
    (*device)->synchronize();
  };
  const auto median = [&](int times, const StepRows& rows) {
    std::vector<double> seconds;
    for (int i = 0; i < times + 2; ++i) {
      host.barrier();
      const double start = now();
      forward(rows);
      if (i >= 2) seconds.push_back(now() - start);
    }
    std::nth_element(seconds.begin(), seconds.begin() + times / 2, seconds.end());
    return seconds[times / 2];
  };
  std::unique_ptr<parallel::NcclSum> sum;
  if (o.price && o.tp > 1) {
    auto started = parallel::NcclSum::start(**device, host);
    if (!started.ok()) return started.status();
    sum = *std::move(started);
  }
  std::unique_ptr<FreeLinears> linears;
  if (o.price || !o.traces.empty()) linears = std::make_unique<FreeLinears>(**device, sum.get());
  // By turns, because the clock follows the power; each the median of the turns.
  const auto price = [&](int times, const StepRows& rows) -> absl::Status {
    if (!o.price) return absl::OkStatus();
    linears->turn(true);
    forward(rows);
    if (!linears->linked()) return absl::InternalError("not all of the decoder's linears came to free_linears.cc: see --wrap");
    linears->choose();
    constexpr int kTurns = 5;
    std::vector<double> ours, free;
    for (int i = 0; i < kTurns; ++i)
      for (const bool on : {i % 2 == 0, i % 2 != 0}) {
        linears->turn(on);
        (on ? free : ours).push_back(median(times, rows));
      }
    linears->turn(false);
    std::sort(ours.begin(), ours.end());
    std::sort(free.begin(), free.end());
    const double a = ours[kTurns / 2], b = free[kTurns / 2];
    if (prints)
      std::printf("  price of the order: ours %.3f ms, linears by cuBLASLt%s %.3f ms: %+.1f %%\n", a * 1e3,
                  sum ? ", sums by NCCL" : "", b * 1e3, 100 * (a / b - 1));
    return absl::OkStatus();
  };
  std::unique_ptr<StepParts> parts;
  if (o.breakdown || !o.traces.empty()) parts = std::make_unique<StepParts>(**device);
  // Events around every call; what the step takes longer than they say are gaps, launches and the host.
  const auto break_down_prompt = [&](const StepRows& rows, double seconds) {
    if (!o.breakdown) return;
    parts->time_calls();
    forward(rows);
    const auto times = parts->times();
    if (!prints) return;
    double rest = seconds * 1e3;
    std::printf("  of it, ms:");
    for (int i = 0; i < kStepParts; ++i) {
      rest -= times[i] * 1e-3;
      if (times[i] > 0)
        std::printf(" %s %.2f = %.1f %%,", std::string(name(StepPart(i))).c_str(), times[i] * 1e-3,
                    times[i] * 0.1 / (seconds * 1e3));
    }
    std::printf(" the rest %.2f\n", rest);
  };
  // A recorded step without one kind after the other.
  const auto break_down = [&](const StepRows& rows, double seconds) {
    if (!o.breakdown) return;
    if (prints) std::printf("  without, us less:");
    for (int i = 0; i <= kStepParts; ++i) {
      parts->leave_out(i < kStepParts ? 1u << i : (1u << kStepParts) - 1);
      for (int again = 0; again < 4; ++again) forward(rows);
      const double without = median(o.steps, rows);
      if (!prints) continue;
      if (i == kStepParts)
        std::printf(" all: %.1f are left\n", without * 1e6);
      else
        std::printf(" %s %.1f,", std::string(name(StepPart(i))).c_str(), (seconds - without) * 1e6);
    }
    parts->leave_out(0);
  };
  for (const int64_t prompt : o.prefill) {
    const StepBatch batch(config->vocab_size, o.page_size, 1, prompt);
    const double seconds = median(5, batch.rows(0, prompt)), rate = prefill_operations(*config, prompt) / seconds / o.tp;
    if (prints)
      std::printf(
          "prefill %6ld tokens         %9.2f ms  %6.0f TFLOP/s = %3.0f %% of the matrix ceiling, %.0f %% of what it holds\n",
          static_cast<long>(prompt), seconds * 1e3, rate * 1e-12, 100 * rate / matrix.once, 100 * rate / matrix.held);
    break_down_prompt(batch.rows(0, prompt), seconds);
    if (const absl::Status priced = price(3, batch.rows(0, prompt)); !priced.ok()) return priced;
  }
  for (const BenchShape& s : p.decode) {
    const StepBatch batch(config->vocab_size, o.page_size, s.rows, s.context + 1);
    for (int i = 0; i < kWarmSteps; ++i) forward(batch.rows(s.context, 1));
    const double seconds = median(o.steps, batch.rows(s.context, 1));
    const double bytes =
        (step_weight_bytes(*config, s.rows) + kv_bytes_per_token(*config) * static_cast<double>(s.rows * (s.context + 1))) / o.tp;
    if (prints)
      std::printf("decode  %6ld x %6ld        %9.3f ms  floor %.3f ms (%.2f GB): %.2f of it, %.0f tok/s\n",
                  static_cast<long>(s.rows), static_cast<long>(s.context), seconds * 1e3, bytes / read * 1e3, bytes * 1e-9,
                  seconds / (bytes / read), static_cast<double>(s.rows) / seconds);
    break_down(batch.rows(s.context, 1), seconds);
    if (const absl::Status priced = price(o.steps, batch.rows(s.context, 1)); !priced.ok()) return priced;
  }
  for (size_t i = 0; i < p.served.size(); ++i)
    if (const absl::Status priced = price_serving(**device, d, *linears, *parts, o.traces[i], p.served[i]); !priced.ok())
      return priced;
  return absl::OkStatus();
}

absl::Status run(const BenchOptions& o) {
  int64_t memory = 0;
  if (!o.traces.empty()) {
    const auto device = Device::open({.backend = Backend::kCuda});
    if (!device.ok()) return device.status();
    memory = static_cast<int64_t>((*device)->memory().total);
  }
  const auto shapes = plan_bench(o, memory);
  if (!shapes.ok()) return shapes.status();
  const auto transports = parallel::start_threads(o.tp);
  std::vector<absl::Status> status(transports.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < transports.size(); ++r)
    threads.emplace_back([&, r] {
      try {
        status[r] = run(o, *shapes, *transports[r]);
      } catch (const std::exception& e) {
        status[r] = absl::InternalError(e.what());
      }
      if (!status[r].ok()) transports[r]->abort(1);
    });
  for (std::thread& t : threads) t.join();
  for (const absl::Status& s : status)
    if (!s.ok()) return s;
  return absl::OkStatus();
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::BenchOptions o;
  CLI::App app("Decode and prefill of a model shape on one GPU, or on several, against a GPU's ceilings.");
  app.option_defaults()->always_capture_default();
  app.add_option("CONFIG", o.model, "config.json")->required()->check(CLI::ExistingPath);
  app.add_option("--profile", o.profile)->check(CLI::IsMember({"portable", "tc"}));
  app.add_option("--tp", o.tp, "ranks, a GPU each")->check(CLI::Range(1, 8));
  app.add_option("--exchange", o.exchange)->check(CLI::IsMember({"peer", "host", "nccl"}));
  app.add_flag("--enforce-eager", o.eager, "no CUDA graphs");
  CLI::Option* decode = app.add_option("--decode", o.decode, "ROWSxCONTEXT: that many sequences with that many tokens before");
  CLI::Option* prefill = app.add_option("--prefill", o.prefill, "tokens of one prompt");
  app.add_option("--threads,-t", o.threads, "that make the weights")->check(CLI::Range(1, 1024));
  app.add_flag("--price", o.price, "also with linears by cuBLASLt and sums by NCCL as they like, no biases");
  app.add_option("--price-trace", o.traces,
                 "tokens a second of a load, also with linears by cuBLASLt: a CSV with TIMESTAMP, ContextTokens and "
                 "GeneratedTokens (Azure's LLM traces), or default: made lengths, about log-normal, prompts of 512 tokens in the "
                 "median and 8192 at the most, answers of 128 and 1024. All requests wait from the start. Instead of --decode "
                 "and --prefill where these are not given; one rank")
      ->option_text("FILE.CSV|default ...");
  app.add_option("--trace-requests", o.trace_requests, "of a trace, at even distances")->check(CLI::Range(1, 100000));
  app.add_option("--trace-steps", o.trace_steps, "of a load, the first ones; 0 = all, to the last request's end")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-num-seqs", o.max_num_seqs, "of a load: sequences in a step")->check(CLI::PositiveNumber);
  app.add_option("--max-num-batched-tokens", o.max_num_batched_tokens, "of a load: tokens in a step")->check(CLI::PositiveNumber);
  app.add_option("--gpu-memory-utilization", o.gpu_memory_utilization, "of a load: share of the GPU's memory")
      ->check(CLI::Range(0.01, 1.0));
  CLI::Option* page = app.add_option("--block-size", o.page_size, "tokens in a KV page; with --price-trace 16, as the engine's")
                          ->check(CLI::Range(16, 4096));
  app.add_flag("--breakdown", o.breakdown, "also what each kind of operation costs");
  app.add_option("--steps", o.steps, "timed; the median counts")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  if (!o.traces.empty()) {
    if (decode->empty()) o.decode.clear();
    if (prefill->empty()) o.prefill.clear();
    if (page->empty()) o.page_size = invar::RankOptions().page_size;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const absl::Status status = invar::run(o);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
