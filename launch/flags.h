// The flags of every command: vLLM's names where vLLM has them, short forms besides. One struct a topic; commands combine them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/engine.h"
#include "runtime/worker/local_executor.h"

namespace invar::launch {

struct ModelFlags {
  std::string model;      // folder, or a config.json with --load-format dummy
  std::string tokenizer;  // folder; empty = the model's
  std::string load_format = "auto";
  std::string dtype = "auto";
  uint64_t dummy_seed = 0;
  int64_t max_model_len = 0;
};
struct LayoutFlags {
  parallel::Layout layout;
  std::string transport = "threads";
};
struct DeviceFlags {
  std::string device = "auto";
  std::string exchange = "auto";
  bool enforce_eager = false;
  std::string profile = "auto";
  std::string isa = "auto";
  std::string control_arm = "none";
  int threads = 0;  // of a rank; 0 = this machine's cores shared among the ranks on it
};
struct CacheFlags {
  int64_t block_size = 16;
  int64_t num_blocks = 0;
  int64_t kv_cache_bytes = 0;
  double gpu_memory_utilization = 0.9;
};
struct EngineFlags {
  EngineOptions options;
  bool no_prefix_caching = false;
  int64_t step_timeout = 300;
};
struct TraceFlags {
  std::string path;
  std::string detail = "values";
};

void add_flags(CLI::App& app, ModelFlags& flags);
void add_flags(CLI::App& app, LayoutFlags& flags);
void add_flags(CLI::App& app, DeviceFlags& flags);
void add_flags(CLI::App& app, CacheFlags& flags);
void add_flags(CLI::App& app, EngineFlags& flags);
void add_flags(CLI::App& app, TraceFlags& flags);

// Everything a rank needs.
struct RankFlags {
  ModelFlags model;
  LayoutFlags layout;
  DeviceFlags device;
  CacheFlags cache;
  TraceFlags trace;
};
void add_flags(CLI::App& app, RankFlags& flags);

absl::StatusOr<ModelOptions> model_options(const ModelFlags& flags);
// `local_ranks`: ranks that share this machine's cores.
absl::StatusOr<RankOptions> rank_options(const RankFlags& flags, const EngineOptions& engine, int local_ranks);
EngineOptions engine_options(const EngineFlags& flags, const RankFlags& rank);
// Null when the model folder has no tokenizer.json and none was named: token ids only.
absl::StatusOr<std::shared_ptr<const Tokenizer>> load_tokenizer(const ModelFlags& flags);

// The same flags again as arguments of `invar worker`, for the ranks that `invar serve` starts.
std::vector<std::string> worker_arguments(const RankFlags& flags, const EngineOptions& engine);

}  // namespace invar::launch
