#include "runtime/model_config/weight_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace invar {
namespace {

ModelConfig tiny(std::string architecture) {
  ModelConfig c;
  c.architecture = std::move(architecture);
  c.vocab_size = 100;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 8;
  c.sliding_layers.assign(2, false);
  c.moe_layer.assign(2, false);
  return c;
}

std::map<std::string, std::vector<int64_t>> shapes(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> all;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    EXPECT_TRUE(all.emplace(tensor.name, tensor.shape).second) << tensor.name << " twice";
    EXPECT_EQ(tensor.shape.size(), tensor.role == TensorRole::kMatrix ? 2u : 1u) << tensor.name;
  }
  return all;
}

TEST(WeightNames, ADenseModel) {
  ModelConfig c = tiny("LlamaForCausalLM");
  const auto all = shapes(c);
  EXPECT_EQ(all.size(), 3u + 2 * 9);
  const std::vector<int64_t> vocab = {100, 24}, q = {32, 24}, kv = {16, 24}, o = {24, 32}, up = {40, 24}, down = {24, 40},
                             norm = {24};
  EXPECT_EQ(all.at("model.embed_tokens.weight"), vocab);
  EXPECT_EQ(all.at("lm_head.weight"), vocab);
  EXPECT_EQ(all.at("model.norm.weight"), norm);
  EXPECT_EQ(all.at("model.layers.1.input_layernorm.weight"), norm);
  EXPECT_EQ(all.at("model.layers.1.post_attention_layernorm.weight"), norm);
  EXPECT_EQ(all.at("model.layers.1.self_attn.q_proj.weight"), q);
  EXPECT_EQ(all.at("model.layers.1.self_attn.k_proj.weight"), kv);
  EXPECT_EQ(all.at("model.layers.1.self_attn.v_proj.weight"), kv);
  EXPECT_EQ(all.at("model.layers.1.self_attn.o_proj.weight"), o);
  EXPECT_EQ(all.at("model.layers.1.mlp.gate_proj.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.mlp.up_proj.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.mlp.down_proj.weight"), down);
  EXPECT_EQ(WeightNames(c).lm_head(), "lm_head.weight");

  c.tie_word_embeddings = true;
  EXPECT_EQ(shapes(c).count("lm_head.weight"), 0u);
  EXPECT_EQ(WeightNames(c).lm_head(), "model.embed_tokens.weight");
}

TEST(WeightNames, BiasesAndHeadNorms) {
  ModelConfig c = tiny("Qwen3ForCausalLM");
  const size_t plain = shapes(c).size();
  c.qkv_bias = c.o_bias = c.mlp_bias = c.qk_norm = true;
  const auto all = shapes(c);
  EXPECT_EQ(all.size(), plain + 2 * 9);
  EXPECT_EQ(all.at("model.layers.0.self_attn.q_proj.bias"), (std::vector<int64_t>{32}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.k_proj.bias"), (std::vector<int64_t>{16}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.v_proj.bias"), (std::vector<int64_t>{16}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.o_proj.bias"), (std::vector<int64_t>{24}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.q_norm.weight"), (std::vector<int64_t>{8}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.k_norm.weight"), (std::vector<int64_t>{8}));
  EXPECT_EQ(all.at("model.layers.0.mlp.gate_proj.bias"), (std::vector<int64_t>{40}));
  EXPECT_EQ(all.at("model.layers.0.mlp.up_proj.bias"), (std::vector<int64_t>{40}));
  EXPECT_EQ(all.at("model.layers.0.mlp.down_proj.bias"), (std::vector<int64_t>{24}));
}

TEST(WeightNames, ExpertsAsEachFamilySpellsThem) {
  const std::vector<int64_t> router = {3, 24}, up = {16, 24}, down = {24, 16};
  ModelConfig c = tiny("MixtralForCausalLM");
  c.moe = {.num_experts = 3, .top_k = 2, .intermediate_size = 16};
  c.moe_layer = {true, true};
  auto all = shapes(c);
  EXPECT_EQ(all.size(), 3u + 2 * (6 + 1 + 3 * 3));
  EXPECT_EQ(all.at("model.layers.1.block_sparse_moe.gate.weight"), router);
  EXPECT_EQ(all.at("model.layers.1.block_sparse_moe.experts.2.w1.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.block_sparse_moe.experts.2.w3.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.block_sparse_moe.experts.2.w2.weight"), down);
  // w1 is the one that silu is applied to.
  EXPECT_EQ(WeightNames(c).expert_gate(1, 2), "model.layers.1.block_sparse_moe.experts.2.w1.weight");
  EXPECT_EQ(WeightNames(c).expert_up(1, 2), "model.layers.1.block_sparse_moe.experts.2.w3.weight");

  c.architecture = "Qwen3MoeForCausalLM";
  c.moe_layer = {false, true};
  all = shapes(c);
  EXPECT_EQ(all.size(), 3u + 9 + 6 + 1 + 3 * 3);
  EXPECT_EQ(all.at("model.layers.1.mlp.gate.weight"), router);
  EXPECT_EQ(all.at("model.layers.1.mlp.experts.0.gate_proj.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.mlp.experts.0.up_proj.weight"), up);
  EXPECT_EQ(all.at("model.layers.1.mlp.experts.0.down_proj.weight"), down);
  EXPECT_EQ(all.at("model.layers.0.mlp.gate_proj.weight"), (std::vector<int64_t>{40, 24}));
}

}  // namespace
}  // namespace invar
