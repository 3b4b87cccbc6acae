#include "runtime/model_config/families/family.h"

#include <algorithm>
#include <array>

#include "runtime/model_config/message.h"

namespace invar {
namespace {

constexpr std::array<const Family*, 6> kFamilies = {&kLlamaFamily, &kMistralFamily, &kQwen2Family,
                                                    &kQwen3Family, &kMixtralFamily, &kQwen3MoeFamily};

// Entries of layer_types: true = slides. Empty: not given.
std::vector<bool> layer_types(Fields& fields, const ModelConfig& config) {
  const std::vector<std::string> types = fields.strings("layer_types");
  std::vector<bool> slides;
  if (!fields.given("layer_types") || !fields.status().ok()) return slides;
  if (static_cast<int64_t>(types.size()) != config.num_layers) {
    fields.invalid("layer_types", message("it must have num_hidden_layers = ", config.num_layers, " entries"));
    return slides;
  }
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.unsupported("layer_types", "supported are full_attention and sliding_attention");
      return {};
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

// The window if it hides a position the model has, else 0.
int64_t mattering_window(Fields& fields, const ModelConfig& config) {
  const int64_t window = fields.optional_integer("sliding_window", 1, INT64_MAX).value_or(0);
  return window < config.max_position_embeddings ? window : 0;
}

void all_or_nothing(Fields& fields, const ModelConfig& config, bool slides) {
  const std::vector<bool> types = layer_types(fields, config);
  if (std::find(types.begin(), types.end(), !slides) != types.end()) {
    fields.unsupported("layer_types", message("with this sliding_window every layer of ", config.architecture,
                                              slides ? " slides" : " sees all keys"));
  }
}

}  // namespace

std::span<const Family* const> families() { return kFamilies; }

const Family* find_family(std::string_view architecture) {
  for (const Family* family : kFamilies) {
    if (family->architecture == architecture) return family;
  }
  return nullptr;
}

void refuse_bias(Fields& fields, std::string_view name) {
  if (fields.boolean_or(name, false)) fields.unsupported(name, "this architecture has no such bias");
}

void read_experts(Fields& fields, ModelConfig& config) {
  const bool older = fields.given("num_experts");
  const bool newer = fields.given("num_local_experts");
  const std::string_view name = older ? "num_experts" : "num_local_experts";
  config.moe.num_experts = fields.integer(name, 1, kMaxExperts);
  if (older && newer && fields.integer("num_local_experts", 1, kMaxExperts) != config.moe.num_experts) {
    fields.invalid("num_local_experts", message("num_experts is ", config.moe.num_experts));
  }
  if (config.moe.num_experts * config.num_layers > kMaxExpertsInAll) {
    fields.invalid(name, message("times num_hidden_layers, ", config.num_layers, ", it must be at most ", kMaxExpertsInAll));
  }
  config.moe.top_k = fields.integer("num_experts_per_tok", 1, config.moe.num_experts);
}

void window_none(Fields& fields, ModelConfig& config, bool default_use) {
  if (fields.boolean_or("use_sliding_window", default_use) && mattering_window(fields, config) != 0) {
    fields.unsupported("sliding_window", message(config.architecture, " with a sliding window is not supported"));
  }
  all_or_nothing(fields, config, false);
}

void window_on_every_layer(Fields& fields, ModelConfig& config) {
  const int64_t given = fields.optional_integer("sliding_window", 1, INT64_MAX).value_or(0);
  all_or_nothing(fields, config, given != 0);
  config.sliding_window = mattering_window(fields, config);
  config.sliding_layers.assign(config.num_layers, config.sliding_window != 0);
}

void window_from_layer_on(Fields& fields, ModelConfig& config) {
  const bool use = fields.boolean_or("use_sliding_window", false);
  const int64_t given = use ? fields.optional_integer("sliding_window", 1, INT64_MAX).value_or(0) : 0;
  std::vector<bool> slides = layer_types(fields, config);
  if (!given) {
    if (std::find(slides.begin(), slides.end(), true) != slides.end()) {
      fields.invalid("layer_types", "a layer slides but use_sliding_window is off or sliding_window is not given");
    }
    return;
  }
  if (slides.empty()) {
    const int64_t first = fields.integer("max_window_layers", 0, INT32_MAX);
    for (int64_t layer = 0; layer < config.num_layers; ++layer) slides.push_back(layer >= first);
  }
  const int64_t window = mattering_window(fields, config);
  if (window == 0 || std::find(slides.begin(), slides.end(), true) == slides.end()) return;
  config.sliding_window = window;
  config.sliding_layers = std::move(slides);
}

}  // namespace invar
