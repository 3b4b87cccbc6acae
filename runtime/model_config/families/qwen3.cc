// Qwen3: norms over each query and key head; head_dim is its own number, never hidden_size / heads.
#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  config.qk_norm = true;
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  refuse_bias(fields, "mlp_bias");
  window_from_layer_on(fields, config);
}

}  // namespace

const Family kQwen3Family = {.architecture = "Qwen3ForCausalLM", .model_type = "qwen3", .read = read, .head_dim_required = true};

}  // namespace invar
