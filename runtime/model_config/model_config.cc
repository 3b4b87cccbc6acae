#include "runtime/model_config/model_config.h"

#include <system_error>

#include "absl/strings/str_join.h"
#include "runtime/model_config/families/family.h"
#include "runtime/model_config/generation_fields.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/rope_fields.h"
#include "runtime/model_config/strict_json.h"
#include "runtime/model_config/text_file.h"

namespace invar {
namespace {

absl::Status prefix(std::string_view where, const absl::Status& status) {
  return absl::Status(status.code(), message(where, ": ", status.message()));
}

absl::StatusOr<const Family*> read_family(Fields& fields, ModelConfig& config) {
  const std::vector<std::string> names = fields.strings("architectures");
  if (!fields.status().ok()) return fields.status();
  if (names.size() != 1) {
    fields.invalid("architectures", "it must hold one name");
    return fields.status();
  }
  const Family* family = find_family(names[0]);
  if (!family) {
    const std::string known =
        absl::StrJoin(families(), ", ", [](std::string* out, const Family* f) { out->append(f->architecture); });
    fields.unsupported("architectures", message("supported are ", known));
    return fields.status();
  }
  config.architecture = names[0];
  config.model_type = fields.string_or("model_type", family->model_type);
  if (fields.status().ok() && config.model_type != family->model_type) {
    fields.invalid("model_type", message(family->architecture, " goes with ", show_text(family->model_type)));
  }
  return family;
}

void read_heads(Fields& fields, const Family& family, ModelConfig& config) {
  config.num_heads = fields.integer("num_attention_heads", 1, kMaxWidth);
  const bool may_default = family.kv_heads_default_to_heads || fields.contains("num_key_value_heads");  // a null says "as many"
  config.num_kv_heads = fields.given("num_key_value_heads") || !may_default ? fields.integer("num_key_value_heads", 1, kMaxWidth)
                                                                            : config.num_heads;
  if (fields.status().ok() && config.num_heads % config.num_kv_heads != 0) {
    fields.invalid("num_attention_heads", message("it must be a multiple of num_key_value_heads, ", config.num_kv_heads));
  }
  if (fields.given("head_dim") || family.head_dim_required) {
    config.head_dim = fields.integer("head_dim", 1, 1024);
  } else if (config.hidden_size % config.num_heads != 0) {
    fields.invalid("hidden_size", message("without head_dim it must be a multiple of num_attention_heads, ", config.num_heads));
  } else {
    config.head_dim = config.hidden_size / config.num_heads;
  }
  if (!fields.status().ok()) return;
  if (config.head_dim % 8 != 0 || config.head_dim > 1024) {
    fields.fold(absl::UnimplementedError(message("head_dim is ", config.head_dim,
                                                 fields.given("head_dim") ? "" : " (hidden_size / num_attention_heads)",
                                                 "; it must be a multiple of 8, at most 1024")));
  } else if (config.num_heads * config.head_dim > kMaxWidth) {
    fields.invalid("num_attention_heads", message("times head_dim, ", config.head_dim, ", it must be at most ", kMaxWidth));
  }
}

void read_common(Fields& fields, const Family& family, ModelConfig& config) {
  config.vocab_size = fields.integer("vocab_size", 2, 1 << 24);
  config.hidden_size = fields.integer("hidden_size", 1, kMaxWidth);
  config.intermediate_size = fields.integer("intermediate_size", 1, kMaxWidth);
  config.num_layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  config.max_position_embeddings = fields.integer("max_position_embeddings", 1, kMaxPositions);
  read_heads(fields, family, config);
  config.rms_norm_eps = static_cast<float>(fields.number("rms_norm_eps", 1e-30, 1));
  config.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
  config.torch_dtype = fields.string_or("dtype", fields.string_or("torch_dtype", ""));
  for (std::string_view name : {"hidden_act", "hidden_activation"}) {
    const std::string act = fields.string_or(name, "silu");
    if (act != "silu" && act != "swish") fields.unsupported(name, "supported is silu");
  }
  for (std::string_view name : {"quantization_config", "compression_config"}) {
    if (fields.given(name)) fields.unsupported(name, "quantized weights are not supported");
  }
}

absl::StatusOr<ModelConfig> parse_config(std::string_view text) {
  const absl::StatusOr<nlohmann::json> json = parse_strict_json(text);
  if (!json.ok()) return json.status();
  Fields fields(*json);
  if (!fields.status().ok()) return fields.status();

  ModelConfig config;
  const absl::StatusOr<const Family*> family = read_family(fields, config);
  if (!family.ok()) return family.status();
  if (!fields.status().ok()) return fields.status();
  read_common(fields, **family, config);
  // Sizes must be known to be sane before anything is made as long as they say.
  if (!fields.status().ok()) return fields.status();
  config.sliding_layers.assign(config.num_layers, false);
  config.moe_layer.assign(config.num_layers, false);
  read_rope(fields, config);
  read_stop_tokens(fields, config);
  (*family)->read(fields, config);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> parse_model_config(std::string_view config_json, std::string_view generation_config_json) {
  absl::StatusOr<ModelConfig> config = parse_config(config_json);
  if (!config.ok()) return prefix("config.json", config.status());
  if (!generation_config_json.empty()) {
    const absl::Status status = read_generation_config(generation_config_json, *config);
    if (!status.ok()) return prefix("generation_config.json", status);
  }
  return config;
}

absl::StatusOr<ModelConfig> load_model_config(const std::filesystem::path& folder_or_config_json) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(folder_or_config_json, error);
  const std::filesystem::path path = folder ? folder_or_config_json / "config.json" : folder_or_config_json;
  const absl::StatusOr<std::string> text = read_text_file(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<ModelConfig> config = parse_config(*text);
  if (!config.ok()) return prefix(path.string(), config.status());
  const std::filesystem::path generation = path.parent_path() / "generation_config.json";
  if (folder && std::filesystem::exists(generation, error)) {
    const absl::StatusOr<std::string> generation_text = read_text_file(generation, kMaxConfigBytes);
    if (!generation_text.ok()) return generation_text.status();
    const absl::Status status = read_generation_config(*generation_text, *config);
    if (!status.ok()) return prefix(generation.string(), status);
  }
  return config;
}

}  // namespace invar
