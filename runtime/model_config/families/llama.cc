// Llama 2 and 3.x, and the many models that keep its code (SmolLM2, stories260K).
#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);  // one switch for all four projections
  config.mlp_bias = fields.boolean_or("mlp_bias", false);
  window_none(fields, config, true);  // the model's own code has no window; other programs would apply one
}

}  // namespace

const Family kLlamaFamily = {
    .architecture = "LlamaForCausalLM", .model_type = "llama", .read = read, .kv_heads_default_to_heads = true};

}  // namespace invar
