// Speed and memory of one rank: Decoder::forward on a model shape, against ceilings measured in the same run on the same threads.
//
//   runtime_decoder_bench [CONFIG.JSON | FOLDER] [--threads N] [--isa ..] [--context N] [--prefill N] [--seconds S] [--profile
//   ..]
//
// A config.json alone runs on seeded dummy weights, a folder on its safetensors. README.md says what the figures mean.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ceilings/ceilings.h"
#include "runtime/model/decoder.h"
#include "runtime/model/step_cost.h"
#include "runtime/weights/dummy_weights.h"

namespace invar {
namespace {

const std::string kShape = INVAR_SOURCE_DIR "/configs/shapes/smollm2-135m.json";

struct Options {
  std::string model = kShape;
  int threads = 2;
  std::string isa = std::string(name(detect_isa()));
  std::string profile = "both";
  int64_t context = 512;  // keys a decode step sees
  int64_t prefill = 512;
  int64_t tc_prefill = 128;
  double seconds = 3;  // of a measurement
};

// What must not be missed on kShape (memory: on any): README.md, "Speed".
constexpr double kDecodeShare = 50, kPrefillShare = 40, kTcRate = 2e9, kOverhead = 200e6;

std::string verdict(const char* wanted, bool reached) {
  return std::string("   ") + wanted + (reached ? ": reached" : ": MISSED");
}

// "VmRSS" or "VmHWM" of this process, in bytes.
double process_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field + ":", 0) == 0) return std::stod(line.substr(field.size() + 1)) * 1024;
  return 0;
}

// From now on VmHWM counts anew: the ceilings' buffers were larger than a rank.
void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// One sequence whose pages lie one after the other.
class Sequence {
 public:
  Sequence(const ModelConfig& config, KvSize kv) : config_(config), kv_(kv) {
    for (int64_t p = 0; p < kv.pages; ++p) table_.push_back(static_cast<int32_t>(p));
  }
  // Tokens at positions [first, first + count); the logits of the last `wanted` are.
  StepRows rows(int64_t first, int64_t count, int64_t wanted = 1) const {
    StepRows r;
    for (int64_t p = first; p < first + count; ++p) {
      r.tokens.push_back(
          static_cast<int32_t>(numerics::mix64(static_cast<uint64_t>(p)) % static_cast<uint64_t>(config_.vocab_size)));
      r.positions.push_back(static_cast<int32_t>(p));
      r.sequences.push_back(0);
      r.slots.push_back(p);
    }
    r.page_tables = {table_};
    for (int64_t i = std::max<int64_t>(0, count - wanted); i < count; ++i) r.logits.push_back(i);
    return r;
  }
  int64_t slots() const { return kv_.pages * kv_.page_size; }

 private:
  const ModelConfig& config_;
  KvSize kv_;
  std::vector<int32_t> table_;
};

// A measurement and its ceiling by turns, the best of each: a shared machine changes from second to second.
struct Best {
  double time = 1e30, ceiling = 0;

  template <class F, class G>
  Best(double seconds, const F& call, const G& measure_ceiling) {
    constexpr int kTurns = 6;
    for (int i = 0; i < kTurns; ++i) {
      time = std::min(time, ceilings::best_time(seconds / kTurns, 0, call));
      ceiling = std::max(ceiling, measure_ceiling(seconds / kTurns));
    }
  }
};

absl::Status measure(const Options& o, const ModelConfig& config, const WeightSource& weights,
                     const DeviceOptions& device_options) {
  const bool tc = device_options.profile == Profile::kTc, wanted = o.model == kShape;
  const Device device(device_options);
  const auto transports = parallel::start_threads(1);
  const int64_t prompt_rows = tc ? o.tc_prefill : o.prefill;
  const KvSize kv{(std::max(o.context + 1, prompt_rows) + 15) / 16, 16};
  const Sequence sequence(config, kv);
  forget_peak();
  auto decoder = Decoder::load(device, *transports.front(), config, {.kv = kv, .max_positions = sequence.slots()}, weights, {});
  if (!decoder.ok()) return decoder.status();
  Decoder& d = **decoder;
  bool finite = true;
  const auto forward = [&](const StepRows& rows) {
    d.forward(rows, nullptr, [&](int64_t, int64_t, const float* logits) { finite = finite && logits[0] - logits[0] == 0; });
  };
  const StepRows step = sequence.rows(o.context, 1), prompt = sequence.rows(0, prompt_rows);
  forward(sequence.rows(0, sequence.slots(), 256));  // every key and value is there, every buffer has grown as far as it does
  const double held = static_cast<double>(d.weight_bytes() + d.kv_bytes()), now = process_bytes("VmRSS"),
               most = process_bytes("VmHWM");

  std::printf("\n%s, cpu %s, %d threads\n", std::string(name(device.profile())).c_str(), o.isa.c_str(), o.threads);
  {
    ceilings::MemoryCeiling memory(device);
    double read = 0;
    const Best copy(
        o.seconds, [&] { forward(step); },
        [&](double s) {
          read = std::max(read, memory.read_rate(s / 2));
          return memory.copy_rate(s);
        });
    const double bytes = step_weight_bytes(config, 1) + kv_bytes_per_token(config) * static_cast<double>(o.context + 1);
    const double rate = bytes / copy.time, share = 100 * rate / copy.ceiling;
    std::printf(
        "  decode, batch 1, %5ld tokens before  %9.2f ms a step %7.1f GB/s     %3.0f %% of copy (%.1f GB/s), %.0f %% of read "
        "(%.1f GB/s)",
        static_cast<long>(o.context), copy.time * 1e3, rate * 1e-9, share, copy.ceiling * 1e-9, 100 * rate / read, read * 1e-9);
    std::printf("%s\n", wanted && !tc ? verdict("50 % of copy", share >= kDecodeShare).c_str() : "");
  }
  const Best fma(
      o.seconds, [&] { forward(prompt); }, [&](double s) { return ceilings::fma_rate(device, s); });
  const double rate = prefill_operations(config, prompt_rows) / fma.time, share = 100 * rate / fma.ceiling;
  std::printf("  prefill of %5ld tokens               %9.2f ms        %7.1f GFLOP/s ", static_cast<long>(prompt_rows),
              fma.time * 1e3, rate * 1e-9);
  if (tc)
    std::printf("%5.1f a core%s\n", rate / o.threads * 1e-9,
                wanted ? verdict("2 a core", rate / o.threads >= kTcRate).c_str() : "");
  else
    std::printf("%3.0f %% of fma (%.0f GFLOP/s)%s\n", share, fma.ceiling * 1e-9,
                wanted ? verdict("40 % of fma", share >= kPrefillShare).c_str() : "");
  std::printf("  memory: %.1f MB resident (%.1f MB at most since loading began) = %.1f weights + %.1f KV + %.1f%s\n", now * 1e-6,
              most * 1e-6, static_cast<double>(d.weight_bytes()) * 1e-6, static_cast<double>(d.kv_bytes()) * 1e-6,
              (now - held) * 1e-6, verdict("200 MB", most - held <= kOverhead).c_str());
  if (!finite) return absl::InternalError("a logit is not a finite number");
  return absl::OkStatus();
}

absl::Status run(const Options& o) {
  auto config = load_model_config(o.model);
  if (!config.ok()) return config.status();
  std::unique_ptr<WeightSource> weights;
  if (std::filesystem::is_directory(o.model)) {
    auto opened = open_file_weights(o.model, *config);
    if (!opened.ok()) return opened.status();
    weights = *std::move(opened);
  } else {
    weights = make_dummy_weights(*config, 0);
  }
  DeviceOptions device{.threads = o.threads};
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512})
    if (name(isa) == o.isa) device.isa = isa;
  if (device.isa > detect_isa())
    return absl::InvalidArgumentError("--isa " + o.isa + ": this machine has " + std::string(name(detect_isa())) + " at most");
  const int64_t longest = std::max({o.context + 1, o.prefill, o.tc_prefill});
  if (longest > config->max_position_embeddings)
    return absl::InvalidArgumentError("--context, --prefill or --tc-prefill: the model has " +
                                      std::to_string(config->max_position_embeddings) + " positions");

  std::printf("%s: %ld layers, %.1f MB of weights a step, %.1f KB of keys and values a token\n", o.model.c_str(),
              static_cast<long>(config->num_layers), step_weight_bytes(*config, 1) * 1e-6, kv_bytes_per_token(*config) * 1e-3);
  for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
    if (o.profile != "both" && o.profile != name(profile)) continue;
    device.profile = profile;
    const absl::Status measured = measure(o, *config, *weights, device);
    if (!measured.ok()) return measured;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::Options o;
  CLI::App app("Decode and prefill of one rank against this machine's ceilings.");
  app.option_defaults()->always_capture_default();
  app.add_option("MODEL", o.model, "config.json (dummy weights) or model folder")->check(CLI::ExistingPath);
  app.add_option("--threads,-t", o.threads)->check(CLI::Range(1, 1024));
  app.add_option("--isa", o.isa)->check(CLI::IsMember({"scalar", "avx2", "avx512"}));
  app.add_option("--profile", o.profile)->check(CLI::IsMember({"portable", "tc", "both"}));
  app.add_option("--context", o.context, "keys before the decode step")->check(CLI::PositiveNumber);
  app.add_option("--prefill", o.prefill, "tokens of the prompt")->check(CLI::PositiveNumber);
  app.add_option("--tc-prefill", o.tc_prefill, "the same with the emulated tensor cores")->check(CLI::PositiveNumber);
  app.add_option("--seconds", o.seconds, "of each measurement; the best window counts")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a figure shows when it is there
  const absl::Status status = invar::run(o);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
