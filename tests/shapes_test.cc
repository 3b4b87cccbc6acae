// Every family, in shapes that no rank count divides: the same bits on every layout, with seeded random weights.
#include <gtest/gtest.h>

#include "support/arrangement.h"

namespace invar::tests {
namespace {

struct Shape {
  const char* name;
  const char* config;
  bool moe;
};
void PrintTo(const Shape& s, std::ostream* out) { *out << s.name; }

const Shape kShapes[] = {
    {"llama3_rope_9_heads_tied",
     R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 301, "hidden_size": 72,
         "intermediate_size": 200, "num_hidden_layers": 3, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
         "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 256}})",
     false},
    {"mistral_sliding_window",
     R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "vocab_size": 300, "hidden_size": 80,
         "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 10, "num_key_value_heads": 5, "head_dim": 16,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 70})",
     false},
    {"qwen2_biases_7_heads",
     R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "vocab_size": 333, "hidden_size": 56,
         "intermediate_size": 152, "num_hidden_layers": 3, "num_attention_heads": 7, "num_key_value_heads": 1,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
         "tie_word_embeddings": true, "use_sliding_window": false})",
     false},
    {"qwen3_16_kv_heads",
     R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "vocab_size": 515, "hidden_size": 64,
         "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 24,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "attention_bias": false})",
     false},
    {"mixtral_5_experts",
     R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu", "vocab_size": 257, "hidden_size": 48,
         "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "num_local_experts": 5,
         "num_experts_per_tok": 2, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0})",
     true},
    {"qwen3_moe_7_experts_one_dense_layer",
     R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "vocab_size": 299, "hidden_size": 64,
         "intermediate_size": 120, "moe_intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 5,
         "head_dim": 16, "num_experts": 7, "num_experts_per_tok": 3, "norm_topk_prob": true, "decoder_sparse_step": 1,
         "mlp_only_layers": [1], "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0})",
     true},
};

class Shapes : public testing::TestWithParam<Shape> {};

TEST_P(Shapes, SameBitsOnEveryLayout) {
  const Shape& shape = GetParam();
  const auto model = Model::dummy(shape.config);
  const auto requests = mixed_requests(model->loaded().config.vocab_size, 140);
  for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
    const Answers expected = ask(*model, {.name = "one rank", .profile = profile}, requests).answers;
    std::vector<parallel::Layout> layouts = {{.tp = 2}, {.tp = 3}, {.tp = 5},         {.tp = 7},
                                             {.tp = 8}, {.pp = 2}, {.tp = 3, .pp = 2}};
    if (shape.moe) layouts.insert(layouts.end(), {{.ep = 2}, {.ep = 5}, {.tp = 3, .ep = 2}, {.pp = 3, .ep = 3}});
    for (const parallel::Layout& layout : layouts) {
      const Arrangement a{
          .name = parallel::to_string(layout), .layout = layout, .profile = profile, .long_prefill_token_threshold = 37};
      EXPECT_EQ(ask(*model, a, requests).answers, expected) << shape.name << " " << a.name;
    }
    const Arrangement control{.name = "control", .profile = profile, .arm = ControlArm::kSwappedGroups};
    const Answers broken = ask(*model, control, requests).answers;
    EXPECT_NE(broken.at("greedy-long/0").logits_hashes, expected.at("greedy-long/0").logits_hashes);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Shapes, testing::ValuesIn(kShapes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace invar::tests
