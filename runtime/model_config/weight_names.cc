#include "runtime/model_config/weight_names.h"

#include "runtime/model_config/families/family.h"
#include "runtime/model_config/message.h"

namespace invar {
namespace {

std::string in_layer(int64_t layer, std::string_view rest) { return message("model.layers.", layer, ".", rest); }

}  // namespace

WeightNames::WeightNames(const ModelConfig& config) : tied_(config.tie_word_embeddings) {
  static constexpr ExpertNames kNone;  // dense families, and configs built by hand
  const Family* family = find_family(config.architecture);
  experts_ = family ? &family->experts : &kNone;
}

std::string WeightNames::embed() const { return "model.embed_tokens.weight"; }
std::string WeightNames::final_norm() const { return "model.norm.weight"; }
std::string WeightNames::lm_head() const { return tied_ ? embed() : "lm_head.weight"; }

std::string WeightNames::input_norm(int64_t layer) const { return in_layer(layer, "input_layernorm.weight"); }
std::string WeightNames::post_attention_norm(int64_t layer) const { return in_layer(layer, "post_attention_layernorm.weight"); }
std::string WeightNames::q_weight(int64_t layer) const { return in_layer(layer, "self_attn.q_proj.weight"); }
std::string WeightNames::k_weight(int64_t layer) const { return in_layer(layer, "self_attn.k_proj.weight"); }
std::string WeightNames::v_weight(int64_t layer) const { return in_layer(layer, "self_attn.v_proj.weight"); }
std::string WeightNames::o_weight(int64_t layer) const { return in_layer(layer, "self_attn.o_proj.weight"); }
std::string WeightNames::q_bias(int64_t layer) const { return in_layer(layer, "self_attn.q_proj.bias"); }
std::string WeightNames::k_bias(int64_t layer) const { return in_layer(layer, "self_attn.k_proj.bias"); }
std::string WeightNames::v_bias(int64_t layer) const { return in_layer(layer, "self_attn.v_proj.bias"); }
std::string WeightNames::o_bias(int64_t layer) const { return in_layer(layer, "self_attn.o_proj.bias"); }
std::string WeightNames::q_norm(int64_t layer) const { return in_layer(layer, "self_attn.q_norm.weight"); }
std::string WeightNames::k_norm(int64_t layer) const { return in_layer(layer, "self_attn.k_norm.weight"); }
std::string WeightNames::gate_weight(int64_t layer) const { return in_layer(layer, "mlp.gate_proj.weight"); }
std::string WeightNames::up_weight(int64_t layer) const { return in_layer(layer, "mlp.up_proj.weight"); }
std::string WeightNames::down_weight(int64_t layer) const { return in_layer(layer, "mlp.down_proj.weight"); }
std::string WeightNames::gate_bias(int64_t layer) const { return in_layer(layer, "mlp.gate_proj.bias"); }
std::string WeightNames::up_bias(int64_t layer) const { return in_layer(layer, "mlp.up_proj.bias"); }
std::string WeightNames::down_bias(int64_t layer) const { return in_layer(layer, "mlp.down_proj.bias"); }

std::string WeightNames::router(int64_t layer) const { return in_layer(layer, experts_->router); }
std::string WeightNames::expert(int64_t layer, int64_t expert, std::string_view matrix) const {
  return in_layer(layer, message(experts_->experts, expert, matrix));
}
std::string WeightNames::expert_gate(int64_t layer, int64_t e) const { return expert(layer, e, experts_->gate); }
std::string WeightNames::expert_up(int64_t layer, int64_t e) const { return expert(layer, e, experts_->up); }
std::string WeightNames::expert_down(int64_t layer, int64_t e) const { return expert(layer, e, experts_->down); }

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  const WeightNames names(config);
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  std::vector<ExpectedTensor> list;
  const auto matrix = [&](std::string name, int64_t outputs, int64_t inputs) {
    list.push_back({std::move(name), {outputs, inputs}, TensorRole::kMatrix});
  };
  const auto norm = [&](std::string name, int64_t width) { list.push_back({std::move(name), {width}, TensorRole::kNorm}); };
  const auto bias = [&](std::string name, int64_t width) { list.push_back({std::move(name), {width}, TensorRole::kBias}); };

  matrix(names.embed(), config.vocab_size, hidden);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    norm(names.input_norm(layer), hidden);
    matrix(names.q_weight(layer), q, hidden);
    matrix(names.k_weight(layer), kv, hidden);
    matrix(names.v_weight(layer), kv, hidden);
    matrix(names.o_weight(layer), hidden, q);
    if (config.qkv_bias) {
      bias(names.q_bias(layer), q);
      bias(names.k_bias(layer), kv);
      bias(names.v_bias(layer), kv);
    }
    if (config.o_bias) bias(names.o_bias(layer), hidden);
    if (config.qk_norm) {
      norm(names.q_norm(layer), config.head_dim);
      norm(names.k_norm(layer), config.head_dim);
    }
    norm(names.post_attention_norm(layer), hidden);
    if (config.moe_layer[layer]) {
      const int64_t width = config.moe.intermediate_size;
      matrix(names.router(layer), config.moe.num_experts, hidden);
      for (int64_t e = 0; e < config.moe.num_experts; ++e) {
        matrix(names.expert_gate(layer, e), width, hidden);
        matrix(names.expert_up(layer, e), width, hidden);
        matrix(names.expert_down(layer, e), hidden, width);
      }
      continue;
    }
    matrix(names.gate_weight(layer), config.intermediate_size, hidden);
    matrix(names.up_weight(layer), config.intermediate_size, hidden);
    matrix(names.down_weight(layer), hidden, config.intermediate_size);
    if (config.mlp_bias) {
      bias(names.gate_bias(layer), config.intermediate_size);
      bias(names.up_bias(layer), config.intermediate_size);
      bias(names.down_bias(layer), hidden);
    }
  }
  norm(names.final_norm(), hidden);
  if (!config.tie_word_embeddings) matrix(names.lm_head(), config.vocab_size, hidden);
  return list;
}

}  // namespace invar
