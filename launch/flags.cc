#include "launch/flags.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/help_group.h"

namespace invar::launch {

void add_flags(CLI::App& app, ModelFlags& f) {
  const HelpGroup group(app, "Model");
  app.add_option("--model,-m", f.model,
                 "Hugging Face model folder (config.json, safetensors, tokenizer.json); default: the demo model")
      ->option_text("FOLDER");
  app.add_option("--tokenizer", f.tokenizer, "folder of the tokenizer, if not the model's")->option_text("FOLDER");
  app.add_option("--load-format", f.load_format, "auto: safetensors; dummy: seeded random weights from config.json alone")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}));
  app.add_option("--dummy-seed", f.dummy_seed, "seed of --load-format dummy");
  app.add_option("--dtype", f.dtype, "number format of weights and activations; fp16 and fp32 weights are rounded to bfloat16")
      ->check(CLI::IsMember({"auto", "bfloat16"}));
  app.add_option("--max-model-len", f.max_model_len, "longest prompt plus answer in tokens; 0 = what the model has")
      ->check(CLI::NonNegativeNumber);
}

void add_flags(CLI::App& app, LayoutFlags& f) {
  const HelpGroup group(app, "Layout");
  app.add_option("--tensor-parallel-size,--tp", f.layout.tp, "ranks that share each linear, 1 to 8, any count");
  app.add_option("--pipeline-parallel-size,--pp", f.layout.pp, "stages of consecutive layers");
  app.add_option("--expert-parallel-size,--ep", f.layout.ep, "ranks that share the experts, each home of some sequences");
  app.add_option("--data-parallel-size,--dp", f.layout.dp, "replicas behind one coordinator");
}

void add_flags(CLI::App& app, DeviceFlags& f) {
  const HelpGroup group(app, "Device");
  app.add_option("--device", f.device, "cuda: a GPU a rank; auto: cuda where this build and this machine have it, else cpu")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--exchange", f.exchange,
                 "how GPU memory moves between ranks: peer (tensor-parallel ranks write into each other's GPU), "
                 "nccl, or host (through the transport); auto: the first of these that can be used")
      ->check(CLI::IsMember({"auto", "host", "nccl", "peer"}));
  app.add_flag("--enforce-eager", f.enforce_eager, "no CUDA graphs; the bits are the same");
  app.add_option(
         "--profile", f.profile,
         "matrix arithmetic: portable (fp32 fma chains) or tc (Hopper tensor cores, emulated on a CPU); auto: tc with --device "
         "cuda, portable with cpu. Answers of the two differ")
      ->check(CLI::IsMember({"auto", "portable", "tc"}));
  app.add_option("--threads,-t", f.threads, "threads of a rank; 0 = the cores of this machine shared among its ranks")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--isa", f.isa, "vector path; the bits are the same on each")
      ->check(CLI::IsMember({"auto", "scalar", "avx2", "avx512"}));
  app.add_option("--control-arm", f.control_arm, "break the contract on purpose, to see that the digests notice")
      ->check(CLI::IsMember(
          {"none", "rank-order-all-reduce", "fixed-split-count", "swapped-groups", "reversed-ties", "expert-capacity"}));
}

void add_flags(CLI::App& app, CacheFlags& f) {
  const HelpGroup group(app, "KV cache");
  app.add_option("--block-size", f.block_size, "tokens in a KV page, a multiple of 16");
  app.add_option("--num-gpu-blocks-override", f.num_blocks, "KV pages per rank; 0 = as many as --kv-cache-memory-bytes holds");
  app.add_option("--kv-cache-memory-bytes", f.kv_cache_bytes,
                 "KV memory of a rank, e.g. 512MB; 0 = what a GPU's share leaves, on a CPU 1 GiB or what can be used")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--gpu-memory-utilization", f.gpu_memory_utilization,
                 "share of a GPU's memory that the ranks on it take together")
      ->check(CLI::Range(0.01, 1.0));
}

void add_flags(CLI::App& app, EngineFlags& f) {
  const HelpGroup group(app, "Scheduling");
  EngineOptions& o = f.options;
  app.add_option("--max-num-seqs", o.max_num_seqs, "sequences in a step, per replica")->check(CLI::PositiveNumber);
  app.add_option("--max-num-batched-tokens", o.max_num_batched_tokens, "tokens in a step, per replica")
      ->check(CLI::PositiveNumber);
  app.add_option("--long-prefill-token-threshold", o.long_prefill_token_threshold,
                 "longest piece of a prompt in a step; 0 = no limit")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--step-timeout", f.step_timeout,
                 "seconds after which a step without a result counts as hanging: health turns, the log names who is behind")
      ->check(CLI::PositiveNumber);
  app.add_option("--max-queued-requests", o.max_queued_requests, "requests waiting beyond this are refused")
      ->check(CLI::PositiveNumber);
  app.add_option("--plans-in-flight", o.plans_in_flight, "steps planned before the results of earlier ones are known")
      ->check(CLI::Range(1, 16));
  app.add_option("--seed", o.seed, "seed of requests that name none");
  app.add_flag("--no-enable-prefix-caching", f.no_prefix_caching, "compute every prompt whole");
}

void add_flags(CLI::App& app, TraceFlags& f) {
  const HelpGroup group(app, "Trace");
  app.add_option("--trace", f.path, "write plans and what every operator computed to FILE.r<rank>, for `invar diff`")
      ->option_text("FILE");
  app.add_option("--trace-detail", f.detail, "values: `invar diff` names the element; digests: small files")
      ->check(CLI::IsMember({"values", "digests"}));
}

void add_flags(CLI::App& app, RankFlags& f) {
  add_flags(app, f.model);
  add_flags(app, f.layout);
  add_flags(app, f.device);
  add_flags(app, f.cache);
  add_flags(app, f.trace);
}

namespace {

// The demo model: of the source tree the program was built from, or of the bundle it lies in.
std::filesystem::path default_model() {
  std::error_code error;
  const std::filesystem::path built = INVAR_DEFAULT_MODEL, program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path bundled = program.parent_path().parent_path() / "share" / "invar" / "models" / built.filename();
  return !std::filesystem::exists(built, error) && std::filesystem::exists(bundled, error) ? bundled : built;
}

}  // namespace

absl::StatusOr<ModelOptions> model_options(const ModelFlags& f) {
  ModelOptions o;
  o.path = f.model.empty() ? default_model() : std::filesystem::path(f.model);
  if (!std::filesystem::exists(o.path))
    return absl::NotFoundError(
        f.model.empty() ? absl::StrCat("the demo model is not at ", o.path.string(), "; name a model with --model FOLDER")
                        : absl::StrCat("--model ", f.model, ": no such file or folder"));
  o.load_format = f.load_format == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
  o.dummy_seed = f.dummy_seed;
  return o;
}

absl::StatusOr<RankOptions> rank_options(const RankFlags& f, const EngineOptions& engine, int local_ranks) {
  RankOptions o;
  o.layout = f.layout.layout;
  if (f.device.device == "cuda" || (f.device.device == "auto" && Device::cuda_devices() > 0)) o.device.backend = Backend::kCuda;
  if (f.device.profile == "auto") {
    o.device.profile = o.device.backend == Backend::kCuda ? Profile::kTc : Profile::kPortable;
  } else {
    auto profile = parse_profile(f.device.profile);
    if (!profile.ok()) return profile.status();
    o.device.profile = *profile;
  }
  auto arm = parse_control_arm(f.device.control_arm);
  if (!arm.ok()) return arm.status();
  o.device.control_arm = *arm;
  o.exchange = f.device.exchange == "host"   ? Exchange::kHost
               : f.device.exchange == "nccl" ? Exchange::kNccl
               : f.device.exchange == "peer" ? Exchange::kPeer
                                             : Exchange::kAuto;
  o.record_decode = !f.device.enforce_eager;
  if (f.device.isa != "auto") {
    const Isa isa = f.device.isa == "scalar" ? Isa::kScalar : f.device.isa == "avx2" ? Isa::kAvx2 : Isa::kAvx512;
    if (isa > detect_isa())
      return absl::InvalidArgumentError(
          absl::StrCat("--isa ", f.device.isa, ": this machine has ", std::string(name(detect_isa())), " at most"));
    o.device.isa = isa;
  }
  const int cores = std::max(1u, std::thread::hardware_concurrency());
  o.device.threads = f.device.threads > 0 ? f.device.threads : std::max(1, cores / std::max(1, local_ranks));
  o.page_size = f.cache.block_size;
  o.pages = f.cache.num_blocks;
  o.kv_cache_bytes = f.cache.kv_cache_bytes;
  o.gpu_memory_utilization = f.cache.gpu_memory_utilization;
  o.max_num_seqs = engine.max_num_seqs;
  o.max_num_batched_tokens = engine.max_num_batched_tokens;
  o.max_model_len = f.model.max_model_len;
  o.trace = f.trace.path;
  o.trace_detail = f.trace.detail == "digests" ? TraceDetail::kDigests : TraceDetail::kValues;
  return o;
}

EngineOptions engine_options(const EngineFlags& f, const RankFlags& rank) {
  EngineOptions o = f.options;
  o.enable_prefix_caching = !f.no_prefix_caching;
  o.max_model_len = rank.model.max_model_len;
  o.step_timeout = std::chrono::seconds(f.step_timeout);
  return o;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> load_tokenizer(const ModelFlags& f) {
  auto model = model_options(f);
  if (!model.ok()) return model.status();
  std::filesystem::path folder = f.tokenizer.empty() ? model->path : std::filesystem::path(f.tokenizer);
  if (f.tokenizer.empty() && !std::filesystem::exists(folder / "tokenizer.json")) return nullptr;
  return Tokenizer::load(folder);
}

std::vector<std::string> worker_arguments(const RankFlags& f, const EngineOptions& engine) {
  std::vector<std::string> a;
  const auto add = [&](const char* flag, const std::string& value) { a.insert(a.end(), {flag, value}); };
  // Ranks of another folder get the path as this process sees it.
  add("--model", f.model.model.empty() ? default_model().string() : std::filesystem::absolute(f.model.model).string());
  add("--load-format", f.model.load_format);
  add("--dummy-seed", absl::StrCat(f.model.dummy_seed));
  add("--max-model-len", absl::StrCat(f.model.max_model_len));
  add("--tensor-parallel-size", absl::StrCat(f.layout.layout.tp));
  add("--pipeline-parallel-size", absl::StrCat(f.layout.layout.pp));
  add("--expert-parallel-size", absl::StrCat(f.layout.layout.ep));
  add("--data-parallel-size", absl::StrCat(f.layout.layout.dp));
  add("--device", f.device.device);
  add("--exchange", f.device.exchange);
  if (f.device.enforce_eager) a.push_back("--enforce-eager");
  add("--profile", f.device.profile);
  add("--isa", f.device.isa);
  add("--control-arm", f.device.control_arm);
  add("--threads", absl::StrCat(f.device.threads));
  add("--block-size", absl::StrCat(f.cache.block_size));
  add("--num-gpu-blocks-override", absl::StrCat(f.cache.num_blocks));
  add("--kv-cache-memory-bytes", absl::StrCat(f.cache.kv_cache_bytes));
  add("--gpu-memory-utilization", absl::StrCat(f.cache.gpu_memory_utilization));
  add("--max-num-seqs", absl::StrCat(engine.max_num_seqs));
  add("--max-num-batched-tokens", absl::StrCat(engine.max_num_batched_tokens));
  if (!f.trace.path.empty()) {
    add("--trace", std::filesystem::absolute(f.trace.path).string());
    add("--trace-detail", f.trace.detail);
  }
  return a;
}

}  // namespace invar::launch
