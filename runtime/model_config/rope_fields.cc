#include "runtime/model_config/rope_fields.h"

#include <algorithm>
#include <array>

#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"

namespace invar {
namespace {

constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;

// Names whose meaning is honoured. Another one may change angles (mrope_section, short_factor, a table per layer type), so it
// is refused rather than skipped. `finetuned` is a remark of the YaRN authors and changes nothing.
constexpr std::array kKnown = {"rope_theta",       "rope_type",       "type",
                               "factor",           "low_freq_factor", "high_freq_factor",
                               "mscale",           "mscale_all_dim",  "original_max_position_embeddings",
                               "attention_factor", "beta_fast",       "beta_slow",
                               "truncate",         "finetuned",       "partial_rotary_factor"};

void read_scaling(Fields& rope, ModelConfig& config) {
  RopeScaling& out = config.rope;
  const std::string older = rope.string_or("type", "default");
  out.type = rope.string_or("rope_type", older);
  if (rope.given("rope_type") && rope.given("type") && older != out.type) {
    rope.invalid("type", message("rope_type says ", show_text(out.type)));
    return;
  }
  if (out.type == "default") return;
  if (out.type != "linear" && out.type != "llama3" && out.type != "yarn") {
    rope.unsupported(rope.given("rope_type") ? "rope_type" : "type", "supported are default, linear, llama3 and yarn");
    return;
  }
  out.factor = rope.number("factor", 1, kMaxFactor);
  const double longest = static_cast<double>(config.max_position_embeddings);
  if (out.type == "llama3") {
    out.low_freq_factor = rope.number("low_freq_factor", 1e-6, kMaxFactor);
    out.high_freq_factor = rope.number("high_freq_factor", 1e-6, kMaxFactor);
    out.original_max_position = rope.number("original_max_position_embeddings", 1, longest);
    if (rope.status().ok() && out.high_freq_factor <= out.low_freq_factor) {
      rope.invalid("high_freq_factor", message("it must exceed low_freq_factor, ", out.low_freq_factor));
    }
  } else if (out.type == "yarn") {
    out.original_max_position = rope.optional_number("original_max_position_embeddings", 1, longest).value_or(longest);
    out.beta_fast = rope.optional_number("beta_fast", 1e-6, kMaxFactor).value_or(32);
    out.beta_slow = rope.optional_number("beta_slow", 1e-6, kMaxFactor).value_or(1);
    out.mscale = rope.optional_number("mscale", 0, kMaxFactor).value_or(0);
    out.mscale_all_dim = rope.optional_number("mscale_all_dim", 0, kMaxFactor).value_or(0);
    out.attention_factor = rope.optional_number("attention_factor", 1e-6, kMaxFactor).value_or(0);
    out.truncate = rope.boolean_or("truncate", true);
    if (rope.status().ok() && out.beta_fast < out.beta_slow) {
      rope.invalid("beta_fast", message("it must not be below beta_slow, ", out.beta_slow));
    }
  }
}

}  // namespace

void read_rope(Fields& fields, ModelConfig& config) {
  const std::optional<double> theta = fields.optional_number("rope_theta", 1, kMaxTheta);
  const nlohmann::json* older = fields.find("rope_scaling");
  const nlohmann::json* newer = fields.find("rope_parameters");
  if (older && newer && *older != *newer) {
    fields.invalid("rope_scaling", "rope_parameters is given too and says something else");
    return;
  }
  for (std::string_view name : {"partial_rotary_factor", "rotary_pct"}) {
    if (fields.optional_number(name, 0, 1).value_or(1) != 1)
      fields.unsupported(name, "only full rotary embeddings are supported");
  }
  if (fields.boolean_or("rope_interleaved", false))
    fields.unsupported("rope_interleaved", "only the rotate-half form is supported");

  config.rope = RopeScaling{};
  std::optional<double> nested;
  if (older || newer) {
    const nlohmann::json& object = newer ? *newer : *older;
    const std::string prefix = newer ? "rope_parameters." : "rope_scaling.";
    Fields rope(object, prefix);
    if (rope.status().ok()) {
      for (const auto& [key, value] : object.items()) {
        if (std::find(kKnown.begin(), kKnown.end(), key) == kKnown.end()) {
          rope.fold(
              absl::UnimplementedError(message(prefix, show_text(key), " is ", show_json(value), "; no such rule is known")));
        }
      }
      nested = rope.optional_number("rope_theta", 1, kMaxTheta);
      if (rope.optional_number("partial_rotary_factor", 0, 1).value_or(1) != 1) {
        rope.unsupported("partial_rotary_factor", "only full rotary embeddings are supported");
      }
      read_scaling(rope, config);
    }
    fields.fold(rope.status());
  }
  if (theta && nested && *theta != *nested) {
    fields.invalid("rope_theta", message("the nested rope_theta is ", *nested));
  }
  config.rope_theta = nested.value_or(theta.value_or(10000.0));
  if (fields.status().ok() && config.rope_theta <= 1) {
    fields.fold(absl::InvalidArgumentError(message("rope_theta is ", config.rope_theta, "; it must exceed 1")));
  }
}

}  // namespace invar
