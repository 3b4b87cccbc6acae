// Qwen2 and Qwen2.5: q, k and v have biases whatever attention_bias says; o has none.
#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  config.qkv_bias = true;
  refuse_bias(fields, "mlp_bias");
  window_from_layer_on(fields, config);
}

}  // namespace

const Family kQwen2Family = {.architecture = "Qwen2ForCausalLM", .model_type = "qwen2", .read = read};

}  // namespace invar
