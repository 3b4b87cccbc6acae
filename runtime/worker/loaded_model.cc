#include "runtime/worker/loaded_model.h"

namespace invar {

absl::StatusOr<LoadedModel> open_model(const ModelOptions& options) {
  auto config = load_model_config(options.path);
  if (!config.ok()) return config.status();
  auto documents = read_model_documents(options.path);
  if (!documents.ok()) return documents.status();
  LoadedModel m{options.path, *std::move(config), *std::move(documents), nullptr};
  if (options.load_format == LoadFormat::kDummy) {
    m.weights = make_dummy_weights(m.config, options.dummy_seed);
  } else {
    auto weights = open_file_weights(options.path, m.config);
    if (!weights.ok()) return weights.status();
    m.weights = *std::move(weights);
  }
  return m;
}

absl::StatusOr<std::string> digest_of(const LoadedModel& model, int threads, const LoadProgressFn& progress) {
  return model_digest(model.documents, *model.weights, threads, progress);
}

}  // namespace invar
