// Qwen3-MoE: Qwen3's attention, experts in every decoder_sparse_step-th layer that mlp_only_layers does not name.
#include <algorithm>

#include "runtime/model_config/families/family.h"

namespace invar {
namespace {

void read(Fields& fields, ModelConfig& config) {
  config.qk_norm = true;
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  refuse_bias(fields, "mlp_bias");
  // Published versions of the model disagree on which layers slide, so a window in use is refused.
  window_none(fields, config, false);
  read_experts(fields, config);
  config.moe.intermediate_size = fields.integer("moe_intermediate_size", 1, kMaxWidth);
  config.moe.norm_topk_prob = fields.boolean_or("norm_topk_prob", false);
  const int64_t step = fields.optional_integer("decoder_sparse_step", 1, INT32_MAX).value_or(1);
  const std::vector<int64_t> dense = fields.integers("mlp_only_layers", 0, config.num_layers - 1);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.moe_layer[layer] = (layer + 1) % step == 0 && std::find(dense.begin(), dense.end(), layer) == dense.end();
  }
  if (std::find(config.moe_layer.begin(), config.moe_layer.end(), true) == config.moe_layer.end()) config.moe = {};
}

}  // namespace

const Family kQwen3MoeFamily = {.architecture = "Qwen3MoeForCausalLM",
                                .model_type = "qwen3_moe",
                                .read = read,
                                .experts = {.router = "mlp.gate.weight",
                                            .experts = "mlp.experts.",
                                            .gate = ".gate_proj.weight",
                                            .up = ".up_proj.weight",
                                            .down = ".down_proj.weight"}};

}  // namespace invar
