// Mixtral: Mistral's attention, experts in every layer, weights of the chosen experts renormalised.
#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  refuse_bias(fields, "attention_bias");
  refuse_bias(fields, "mlp_bias");
  window_on_every_layer(fields, config);
  read_experts(fields, config);
  config.moe.intermediate_size = config.intermediate_size;
  config.moe.norm_topk_prob = true;
  config.moe_layer.assign(config.num_layers, true);
}

}  // namespace

const Family kMixtralFamily = {.architecture = "MixtralForCausalLM",
                               .model_type = "mixtral",
                               .read = read,
                               .experts = {.router = "block_sparse_moe.gate.weight",
                                           .experts = "block_sparse_moe.experts.",
                                           .gate = ".w1.weight",
                                           .up = ".w3.weight",
                                           .down = ".w2.weight"}};

}  // namespace invar
