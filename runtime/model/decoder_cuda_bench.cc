// Speed of a whole model on one GPU: Decoder::forward on a model shape with dummy weights, against what the bytes and the
// operations of a step cost at the rates measured in the same run.
//
//   runtime_decoder_cuda_bench CONFIG.JSON [--profile tc] [--decode ROWSxCONTEXT ...] [--prefill TOKENS ...]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ceilings/cuda/ceilings.h"
#include "runtime/model/decoder.h"
#include "runtime/model/step_cost.h"
#include "runtime/weights/dummy_weights.h"

namespace invar {
namespace {

struct Options {
  std::string model, profile = "tc";
  std::vector<std::string> decode = {"1x512", "64x1024"};
  std::vector<int64_t> prefill = {8192};
  int threads = 16;
  int64_t chunk = 8192;
  int steps = 20;
};

constexpr int64_t kPage = 64;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// `sequences` that each have pages of their own, one after the other.
class Batch {
 public:
  Batch(const ModelConfig& config, int64_t sequences, int64_t tokens) : vocab_(config.vocab_size), pages_((tokens + kPage - 1) / kPage) {
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
        r.tokens.push_back(static_cast<int32_t>(numerics::mix64(static_cast<uint64_t>(p) * 977 + s) % static_cast<uint64_t>(vocab_)));
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

absl::Status run(const Options& o) {
  auto config = load_model_config(o.model);
  if (!config.ok()) return config.status();
  auto profile = parse_profile(o.profile);
  if (!profile.ok()) return profile.status();
  std::vector<Shape> shapes;
  int64_t tokens = 1, longest = 1;
  for (const std::string& text : o.decode) {
    const auto shape = parse(text);
    if (!shape.ok()) return shape.status();
    shapes.push_back(*shape);
    tokens = std::max(tokens, shape->rows * (shape->context + kPage));
    longest = std::max(longest, shape->context + 1);
  }
  for (const int64_t prompt : o.prefill) {
    tokens = std::max(tokens, prompt);
    longest = std::max(longest, prompt);
  }
  auto device = Device::open({.profile = *profile, .threads = o.threads, .backend = Backend::kCuda});
  if (!device.ok()) return device.status();
  const auto transports = parallel::start_threads(1);
  const double begin = now();
  auto decoder = Decoder::load(**device, *transports.front(), *config,
                               {.kv = {tokens / kPage + 1, kPage}, .max_positions = longest}, *make_dummy_weights(*config, 0), {});
  if (!decoder.ok()) return decoder.status();
  (*device)->synchronize();
  Decoder& d = **decoder;
  const double read = ceilings::cuda_read_rate(**device), matrix = ceilings::cuda_matrix_rate(**device);
  std::printf("%s, %s, %s: %.1f GB of weights loaded in %.1f s; read %.0f GB/s, matrix %.0f TFLOP/s\n", o.model.c_str(),
              std::string(name(*profile)).c_str(), (*device)->describe().c_str(), static_cast<double>(d.weight_bytes()) * 1e-9,
              now() - begin, read * 1e-9, matrix * 1e-12);
  const auto forward = [&](const StepRows& rows) {
    d.forward(rows, nullptr, [](int64_t, int64_t, const float*) {});
    (*device)->synchronize();
  };
  const auto median = [&](int times, const StepRows& rows) {
    std::vector<double> seconds;
    for (int i = 0; i < times + 2; ++i) {
      const double at = now();
      forward(rows);
      if (i >= 2) seconds.push_back(now() - at);
    }
    std::nth_element(seconds.begin(), seconds.begin() + times / 2, seconds.end());
    return seconds[times / 2];
  };
  for (const int64_t prompt : o.prefill) {
    const Batch batch(*config, 1, prompt);
    const double seconds = median(5, batch.rows(0, prompt)), rate = prefill_operations(*config, prompt) / seconds;
    std::printf("prefill %6ld tokens         %9.2f ms  %6.0f TFLOP/s = %3.0f %% of the matrix ceiling\n", static_cast<long>(prompt),
                seconds * 1e3, rate * 1e-12, 100 * rate / matrix);
  }
  for (const Shape& s : shapes) {
    const Batch batch(*config, s.rows, s.context + 1);
    const double seconds = median(o.steps, batch.rows(s.context, 1));
    const double bytes = step_weight_bytes(*config, s.rows) +
                         kv_bytes_per_token(*config) * static_cast<double>(s.rows * (s.context + 1));
    std::printf("decode  %6ld x %6ld        %9.3f ms  floor %.3f ms (%.2f GB): %.2f of it, %.0f tok/s\n", static_cast<long>(s.rows),
                static_cast<long>(s.context), seconds * 1e3, bytes / read * 1e3, bytes * 1e-9, seconds / (bytes / read),
                static_cast<double>(s.rows) / seconds);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::Options o;
  CLI::App app("Decode and prefill of a model shape on one GPU against this GPU's ceilings.");
  app.option_defaults()->always_capture_default();
  app.add_option("CONFIG", o.model, "config.json")->required()->check(CLI::ExistingPath);
  app.add_option("--profile", o.profile)->check(CLI::IsMember({"portable", "tc"}));
  app.add_option("--decode", o.decode, "ROWSxCONTEXT: that many sequences with that many tokens before");
  app.add_option("--prefill", o.prefill, "tokens of one prompt");
  app.add_option("--threads,-t", o.threads, "that make the weights")->check(CLI::Range(1, 1024));
  app.add_option("--steps", o.steps, "timed; the median counts")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const absl::Status status = invar::run(o);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
