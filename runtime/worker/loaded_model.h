// A model as a process sees it before any rank takes its shard: config, tokenizer file, weights source, digest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/model_config/model_config.h"
#include "runtime/weights/model_digest.h"
#include "runtime/weights/weight_source.h"

namespace invar {

enum class LoadFormat : uint8_t { kAuto, kDummy };

struct ModelOptions {
  std::filesystem::path path;  // Hugging Face folder; with kDummy a config.json alone will do
  LoadFormat load_format = LoadFormat::kAuto;
  uint64_t dummy_seed = 0;
};

struct LoadedModel {
  std::filesystem::path path;
  ModelConfig config;
  ModelDocuments documents;
  std::unique_ptr<WeightSource> weights;
};
// Opens and checks everything but the weights' values. Errors name file, field and value.
absl::StatusOr<LoadedModel> open_model(const ModelOptions& options);
// Hashes the whole model: one rank of a host does it for all.
absl::StatusOr<std::string> digest_of(const LoadedModel& model, int threads, const LoadProgressFn& progress);

}  // namespace invar
