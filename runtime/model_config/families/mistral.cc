// Mistral: Llama without biases, every layer with the same sliding window where one is given.
#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  refuse_bias(fields, "attention_bias");
  refuse_bias(fields, "mlp_bias");
  window_on_every_layer(fields, config);
}

}  // namespace

const Family kMistralFamily = {.architecture = "MistralForCausalLM", .model_type = "mistral", .read = read};

}  // namespace invar
