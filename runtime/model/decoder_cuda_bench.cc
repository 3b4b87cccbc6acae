// Speed of a whole model on one GPU: Decoder::forward on a model shape with dummy weights, against what the bytes and the
// operations of a step cost at the rates measured in the same run.
//
//   runtime_decoder_cuda_bench CONFIG.JSON [--profile tc] [--decode ROWSxCONTEXT ...] [--prefill TOKENS ...] [--price]
//   [--breakdown]
//
// --price: the same steps with linears by cuBLASLt as it likes, by turns with ours; ours / free - 1 is what the contract's order
// of adding costs. --breakdown: what the kinds of operations cost (step_parts.h).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/ceilings/cuda/ceilings.h"
#include "runtime/model/decoder.h"
#include "runtime/model/free_linears.h"
#include "runtime/model/step_cost.h"
#include "runtime/model/step_parts.h"
#include "runtime/weights/dummy_weights.h"

namespace invar {
namespace {

struct Options {
  std::string model, profile = "tc", exchange = "peer";
  std::vector<std::string> decode = {"1x512", "64x1024"};
  std::vector<int64_t> prefill = {8192};
  int threads = 16, tp = 1;
  int steps = 20;
  bool eager = false;
  bool price = false, breakdown = false;
};

constexpr int64_t kPage = 64;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// `sequences` that each have pages of their own, one after the other.
class Batch {
 public:
  Batch(const ModelConfig& config, int64_t sequences, int64_t tokens)
      : vocab_(config.vocab_size), pages_((tokens + kPage - 1) / kPage) {
    for (int64_t s = 0; s < sequences; ++s) {
      std::vector<int32_t>& table = tables_.emplace_back();
      for (int64_t p = 0; p < pages_; ++p) table.push_back(static_cast<int32_t>(s * pages_ + p));
    }
  }
  // Tokens at positions [first, first + count) of each sequence; the logits of the last one are wanted.
  StepRows rows(int64_t first, int64_t count) const {
    StepRows r;
    for (size_t s = 0; s < tables_.size(); ++s) {
      r.page_tables.push_back(tables_[s]);
      for (int64_t p = first; p < first + count; ++p) {
        r.tokens.push_back(
            static_cast<int32_t>(numerics::mix64(static_cast<uint64_t>(p) * 977 + s) % static_cast<uint64_t>(vocab_)));
        r.positions.push_back(static_cast<int32_t>(p));
        r.sequences.push_back(static_cast<int32_t>(s));
        r.slots.push_back(static_cast<int64_t>(s) * pages_ * kPage + p);
      }
      r.logits.push_back(r.size() - 1);
    }
    return r;
  }

 private:
  int64_t vocab_, pages_;
  std::vector<std::vector<int32_t>> tables_;
};

struct Shape {
  int64_t rows, context;
};
absl::StatusOr<Shape> parse(const std::string& text) {
  Shape s{};
  if (std::sscanf(text.c_str(), "%ldx%ld", &s.rows, &s.context) != 2 || s.rows < 1 || s.context < 1)
    return absl::InvalidArgumentError("--decode " + text + ": want ROWSxCONTEXT, as in 64x1024");
  return s;
}

struct Plan {
  ModelConfig config;
  Profile profile;
  std::vector<Shape> decode;
  int64_t tokens = 1, longest = 1;  // KV slots, positions
};

absl::StatusOr<Plan> plan(const Options& o) {
  auto config = load_model_config(o.model);
  if (!config.ok()) return config.status();
  auto profile = parse_profile(o.profile);
  if (!profile.ok()) return profile.status();
  Plan p{*std::move(config), *profile};
  for (const std::string& text : o.decode) {
    const auto shape = parse(text);
    if (!shape.ok()) return shape.status();
    p.decode.push_back(*shape);
    p.tokens = std::max(p.tokens, shape->rows * (shape->context + kPage));
    p.longest = std::max(p.longest, shape->context + 1);
  }
  for (const int64_t prompt : o.prefill) {
    p.tokens = std::max(p.tokens, prompt);
    p.longest = std::max(p.longest, prompt);
  }
  return p;
}

// One rank; the first one prints.
absl::Status run(const Options& o, const Plan& p, parallel::Transport& transport) {
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
                                .kv = {p.tokens / kPage + 1, kPage},
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
  const double read = ceilings::cuda_read_rate(**device), matrix = ceilings::cuda_matrix_rate(**device);
  if (prints)
    std::printf("%s, %s, %s, tp %d%s: %.1f GB of weights loaded in %.1f s; a GPU's read %.0f GB/s, matrix %.0f TFLOP/s\n",
                o.model.c_str(), std::string(name(p.profile)).c_str(), (*device)->describe().c_str(), o.tp,
                o.tp > 1 ? (" over " + o.exchange).c_str() : "", static_cast<double>(d.weight_bytes()) * 1e-9, loaded,
                read * 1e-9, matrix * 1e-12);
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
  std::unique_ptr<FreeLinears> linears;
  if (o.price) linears = std::make_unique<FreeLinears>(**device);
  // By turns, because the clock follows the power; each the median of the turns.
  const auto price = [&](int times, const StepRows& rows) -> absl::Status {
    if (!linears) return absl::OkStatus();
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
    std::printf("  price of the order: ours %.3f ms, linears by cuBLASLt %.3f ms: %+.1f %%\n", a * 1e3, b * 1e3,
                100 * (a / b - 1));
    return absl::OkStatus();
  };
  std::unique_ptr<StepParts> parts;
  if (o.breakdown) parts = std::make_unique<StepParts>(**device);
  // Events around every call; what the step takes longer than they say are gaps, launches and the host.
  const auto break_down_prompt = [&](const StepRows& rows, double seconds) {
    if (!parts) return;
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
    if (!parts) return;
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
    const Batch batch(*config, 1, prompt);
    const double seconds = median(5, batch.rows(0, prompt)), rate = prefill_operations(*config, prompt) / seconds / o.tp;
    if (prints)
      std::printf("prefill %6ld tokens         %9.2f ms  %6.0f TFLOP/s = %3.0f %% of the matrix ceiling\n",
                  static_cast<long>(prompt), seconds * 1e3, rate * 1e-12, 100 * rate / matrix);
    break_down_prompt(batch.rows(0, prompt), seconds);
    if (const absl::Status priced = price(3, batch.rows(0, prompt)); !priced.ok()) return priced;
  }
  for (const Shape& s : p.decode) {
    const Batch batch(*config, s.rows, s.context + 1);
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
  return absl::OkStatus();
}

absl::Status run(const Options& o) {
  const auto shapes = plan(o);
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
  invar::Options o;
  CLI::App app("Decode and prefill of a model shape on one GPU, or on several, against a GPU's ceilings.");
  app.option_defaults()->always_capture_default();
  app.add_option("CONFIG", o.model, "config.json")->required()->check(CLI::ExistingPath);
  app.add_option("--profile", o.profile)->check(CLI::IsMember({"portable", "tc"}));
  app.add_option("--tp", o.tp, "ranks, a GPU each")->check(CLI::Range(1, 8));
  app.add_option("--exchange", o.exchange)->check(CLI::IsMember({"peer", "host", "nccl"}));
  app.add_flag("--enforce-eager", o.eager, "no CUDA graphs");
  app.add_option("--decode", o.decode, "ROWSxCONTEXT: that many sequences with that many tokens before");
  app.add_option("--prefill", o.prefill, "tokens of one prompt");
  app.add_option("--threads,-t", o.threads, "that make the weights")->check(CLI::Range(1, 1024));
  app.add_flag("--price", o.price, "also with linears by cuBLASLt as it likes, one rank, no biases");
  app.add_flag("--breakdown", o.breakdown, "also what each kind of operation costs");
  app.add_option("--steps", o.steps, "timed; the median counts")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const absl::Status status = invar::run(o);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
