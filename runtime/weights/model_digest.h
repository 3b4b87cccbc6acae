// The model digest of a receipt: which config, tokenizer and weights an answer was computed with.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/weights/weight_source.h"

namespace invar {

// The texts beside the weights. A file that is not there is an empty string (only config.json must be).
struct ModelDocuments {
  std::string config_json;
  std::string generation_config_json;
  std::string tokenizer_json;
};
// A model folder, or a config.json alone (then the others are empty).
absl::StatusOr<ModelDocuments> read_model_documents(const std::filesystem::path& folder_or_config_json);

// 64 hexadecimal digits: SHA-256 over the parsed and re-written config.json and generation_config.json (order of keys and white
// space do not count), the bytes of tokenizer.json and the weights' content digest. Equal for one file and for many.
absl::StatusOr<std::string> model_digest(const ModelDocuments& documents, const WeightSource& weights, int threads = 2,
                                         const LoadProgressFn& progress = {});

}  // namespace invar
