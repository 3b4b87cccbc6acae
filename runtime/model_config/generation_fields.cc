#include "runtime/model_config/generation_fields.h"

#include <algorithm>

#include "runtime/model_config/strict_json.h"

namespace invar {
namespace {

std::optional<float> optional_float(Fields& fields, std::string_view name, double low, double high) {
  const std::optional<double> x = fields.optional_number(name, low, high);
  return x ? std::optional<float>(static_cast<float>(*x)) : std::nullopt;
}

}  // namespace

void read_stop_tokens(Fields& fields, ModelConfig& config) {
  const int64_t last = config.vocab_size - 1;
  if (const std::optional<int64_t> bos = fields.optional_integer("bos_token_id", 0, last)) {
    config.bos_token_id = static_cast<int32_t>(*bos);
  }
  const nlohmann::json* eos = fields.find("eos_token_id");
  if (!eos) return;
  std::vector<int64_t> ids;
  if (eos->is_array()) {
    ids = fields.integers("eos_token_id", 0, last);
  } else if (const std::optional<int64_t> id = fields.optional_integer("eos_token_id", 0, last)) {
    ids = {*id};
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  config.eos_token_ids.assign(ids.begin(), ids.end());
}

absl::Status read_generation_config(std::string_view generation_config_json, ModelConfig& config) {
  const absl::StatusOr<nlohmann::json> json = parse_strict_json(generation_config_json);
  if (!json.ok()) return json.status();
  Fields fields(*json);
  if (!fields.status().ok()) return fields.status();
  read_stop_tokens(fields, config);
  GenerationDefaults& out = config.generation;
  out.do_sample = fields.optional_boolean("do_sample");
  out.temperature = optional_float(fields, "temperature", 0, 1e6);
  if (const std::optional<int64_t> k = fields.optional_integer("top_k", -1, INT32_MAX)) out.top_k = static_cast<int32_t>(*k);
  out.top_p = optional_float(fields, "top_p", 0x1p-24, 1);
  out.min_p = optional_float(fields, "min_p", 0, 1);
  out.repetition_penalty = optional_float(fields, "repetition_penalty", 0x1p-24, 1e6);
  return fields.status();
}

}  // namespace invar
