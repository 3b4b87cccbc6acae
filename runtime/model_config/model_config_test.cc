#include "runtime/model_config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "nlohmann/json.hpp"
#include "runtime/model_config/weight_names.h"

namespace invar {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json base(std::string_view architecture) {
  json config = {{"architectures", {architecture}},
                 {"vocab_size", 512},
                 {"hidden_size", 64},
                 {"intermediate_size", 176},
                 {"num_hidden_layers", 4},
                 {"num_attention_heads", 8},
                 {"num_key_value_heads", 4},
                 {"max_position_embeddings", 256},
                 {"rms_norm_eps", 1e-5},
                 {"head_dim", 16},
                 {"hidden_act", "silu"}};
  if (architecture == "MixtralForCausalLM" || architecture == "Qwen3MoeForCausalLM") {
    config["num_local_experts"] = 8;
    config["num_experts_per_tok"] = 2;
    config["moe_intermediate_size"] = 48;
  }
  return config;
}

const char* const kArchitectures[] = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                      "Qwen3ForCausalLM", "MixtralForCausalLM", "Qwen3MoeForCausalLM"};

ModelConfig parse(const json& config, const json& generation = nullptr) {
  const absl::StatusOr<ModelConfig> parsed = parse_model_config(config.dump(), generation.is_null() ? "" : generation.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig{};
}

std::string refusal_of(std::string_view text, std::string_view generation = "") {
  const absl::StatusOr<ModelConfig> parsed = parse_model_config(text, generation);
  return parsed.ok() ? "accepted" : parsed.status().ToString();
}
std::string refusal(const json& config) { return refusal_of(config.dump()); }

// ---------------------------------------------------------------- what is read

TEST(ModelConfig, EveryFamilyReadsTheCommonFields) {
  for (const char* architecture : kArchitectures) {
    SCOPED_TRACE(architecture);
    json config = base(architecture);
    config["tie_word_embeddings"] = true;
    config["torch_dtype"] = "bfloat16";
    config["rope_theta"] = 5000;
    const ModelConfig c = parse(config);
    EXPECT_EQ(c.architecture, architecture);
    EXPECT_EQ(c.vocab_size, 512);
    EXPECT_EQ(c.hidden_size, 64);
    EXPECT_EQ(c.intermediate_size, 176);
    EXPECT_EQ(c.num_layers, 4);
    EXPECT_EQ(c.num_heads, 8);
    EXPECT_EQ(c.num_kv_heads, 4);
    EXPECT_EQ(c.head_dim, 16);
    EXPECT_EQ(c.max_position_embeddings, 256);
    EXPECT_EQ(c.rms_norm_eps, 1e-5f);
    EXPECT_TRUE(c.tie_word_embeddings);
    EXPECT_EQ(c.torch_dtype, "bfloat16");
    EXPECT_EQ(c.rope_theta, 5000);
    EXPECT_EQ(c.rope.type, "default");
    EXPECT_EQ(c.sliding_window, 0);
    EXPECT_EQ(c.sliding_layers, std::vector<bool>(4, false));
    EXPECT_EQ(c.moe_layer.size(), 4u);
  }
}

TEST(ModelConfig, BiasesAndNormsFollowTheFamily) {
  const auto flags = [](std::string_view architecture, bool attention_bias, bool mlp_bias) {
    json config = base(architecture);
    if (attention_bias) config["attention_bias"] = true;
    if (mlp_bias) config["mlp_bias"] = true;
    const ModelConfig c = parse(config);
    return std::vector<bool>{c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm};
  };
  EXPECT_THAT(flags("LlamaForCausalLM", false, false), ElementsAre(false, false, false, false));
  EXPECT_THAT(flags("LlamaForCausalLM", true, true), ElementsAre(true, true, true, false));
  EXPECT_THAT(flags("MistralForCausalLM", false, false), ElementsAre(false, false, false, false));
  EXPECT_THAT(flags("Qwen2ForCausalLM", false, false), ElementsAre(true, false, false, false));
  EXPECT_THAT(flags("Qwen3ForCausalLM", false, false), ElementsAre(false, false, false, true));
  EXPECT_THAT(flags("Qwen3ForCausalLM", true, false), ElementsAre(true, true, false, true));
  EXPECT_THAT(flags("MixtralForCausalLM", false, false), ElementsAre(false, false, false, false));
  EXPECT_THAT(flags("Qwen3MoeForCausalLM", true, false), ElementsAre(true, true, false, true));
  for (const char* architecture : {"MistralForCausalLM", "MixtralForCausalLM"}) {
    json config = base(architecture);
    config["attention_bias"] = true;
    EXPECT_THAT(refusal(config), HasSubstr("attention_bias is true"));
  }
}

TEST(ModelConfig, HeadDimAndKvHeadsAreDerivedWhereTheFamilySaysSo) {
  json config = base("LlamaForCausalLM");
  config.erase("head_dim");
  config.erase("num_key_value_heads");
  EXPECT_EQ(parse(config).head_dim, 8);
  EXPECT_EQ(parse(config).num_kv_heads, 8);
  config["num_key_value_heads"] = nullptr;
  config["head_dim"] = nullptr;
  EXPECT_EQ(parse(config).head_dim, 8);
  EXPECT_EQ(parse(config).num_kv_heads, 8);

  json mistral = base("MistralForCausalLM");
  mistral.erase("num_key_value_heads");  // its class default is 8 whatever the heads are
  EXPECT_THAT(refusal(mistral), HasSubstr("num_key_value_heads is missing"));
  json qwen3 = base("Qwen3ForCausalLM");
  qwen3.erase("head_dim");
  EXPECT_THAT(refusal(qwen3), HasSubstr("head_dim is missing"));
}

TEST(ModelConfig, ExpertsInBothSpellings) {
  json config = base("Qwen3MoeForCausalLM");
  ModelConfig c = parse(config);
  EXPECT_EQ(c.moe.num_experts, 8);
  EXPECT_EQ(c.moe.top_k, 2);
  EXPECT_EQ(c.moe.intermediate_size, 48);
  EXPECT_EQ(c.moe.shared_intermediate_size, 0);
  EXPECT_FALSE(c.moe.norm_topk_prob);
  EXPECT_EQ(c.moe_layer, std::vector<bool>(4, true));
  config.erase("num_local_experts");
  config["num_experts"] = 6;
  config["norm_topk_prob"] = true;
  EXPECT_EQ(parse(config).moe.num_experts, 6);
  EXPECT_TRUE(parse(config).moe.norm_topk_prob);
  config["num_local_experts"] = 7;
  EXPECT_THAT(refusal(config), HasSubstr("num_local_experts is 7; num_experts is 6"));

  c = parse(base("MixtralForCausalLM"));
  EXPECT_EQ(c.moe.intermediate_size, 176);
  EXPECT_TRUE(c.moe.norm_topk_prob);
  EXPECT_EQ(c.moe_layer, std::vector<bool>(4, true));
}

TEST(ModelConfig, SparseStepAndMlpOnlyLayers) {
  json config = base("Qwen3MoeForCausalLM");
  config["decoder_sparse_step"] = 2;
  EXPECT_EQ(parse(config).moe_layer, (std::vector<bool>{false, true, false, true}));
  config["mlp_only_layers"] = {3};
  EXPECT_EQ(parse(config).moe_layer, (std::vector<bool>{false, true, false, false}));
  config["mlp_only_layers"] = {1, 3};
  EXPECT_EQ(parse(config).moe_layer, std::vector<bool>(4, false));
  EXPECT_EQ(parse(config).moe.num_experts, 0);  // no layer has experts: a dense model
  config["mlp_only_layers"] = {4};
  EXPECT_THAT(refusal(config), HasSubstr("mlp_only_layers is [4]"));
}

TEST(ModelConfig, RopeInBothSpellings) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 128}};
  json older = base("LlamaForCausalLM");
  older["rope_theta"] = 500000.0;
  older["rope_scaling"] = llama3;
  json newer = base("LlamaForCausalLM");
  newer["rope_parameters"] = llama3;
  newer["rope_parameters"]["rope_theta"] = 500000.0;
  for (const json& config : {older, newer}) {
    const ModelConfig c = parse(config);
    EXPECT_EQ(c.rope.type, "llama3");
    EXPECT_EQ(c.rope.factor, 8);
    EXPECT_EQ(c.rope.low_freq_factor, 1);
    EXPECT_EQ(c.rope.high_freq_factor, 4);
    EXPECT_EQ(c.rope.original_max_position, 128);
    EXPECT_EQ(c.rope_theta, 500000);
  }
  json config = base("LlamaForCausalLM");
  EXPECT_EQ(parse(config).rope_theta, 10000);
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};  // the oldest spelling of the type
  EXPECT_EQ(parse(config).rope.type, "linear");
  EXPECT_EQ(parse(config).rope.factor, 2);
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"beta_fast", 16}, {"mscale", 0.5}, {"truncate", false}};
  const ModelConfig c = parse(config);
  EXPECT_EQ(c.rope.type, "yarn");
  EXPECT_EQ(c.rope.original_max_position, 256);  // the context, when not given
  EXPECT_EQ(c.rope.beta_fast, 16);
  EXPECT_EQ(c.rope.beta_slow, 1);
  EXPECT_EQ(c.rope.mscale, 0.5);
  EXPECT_FALSE(c.rope.truncate);
}

TEST(ModelConfig, SlidingWindows) {
  json mistral = base("MistralForCausalLM");
  mistral["sliding_window"] = 100;
  EXPECT_EQ(parse(mistral).sliding_window, 100);
  EXPECT_EQ(parse(mistral).sliding_layers, std::vector<bool>(4, true));
  EXPECT_EQ(parse(mistral).window_of(3), 100);
  mistral["sliding_window"] = 256;  // holds the whole context: hides nothing
  EXPECT_EQ(parse(mistral).sliding_window, 0);
  EXPECT_EQ(parse(mistral).window_of(3), 0);

  json qwen = base("Qwen2ForCausalLM");
  qwen["sliding_window"] = 100;
  qwen["use_sliding_window"] = false;
  qwen["max_window_layers"] = 1;
  EXPECT_EQ(parse(qwen).sliding_window, 0);
  qwen["use_sliding_window"] = true;
  EXPECT_EQ(parse(qwen).sliding_window, 100);
  EXPECT_EQ(parse(qwen).sliding_layers, (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ(parse(qwen).window_of(0), 0);
  qwen["layer_types"] = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(parse(qwen).sliding_layers, (std::vector<bool>{true, false, false, true}));
  qwen["max_window_layers"] = 28;
  qwen.erase("layer_types");
  EXPECT_EQ(parse(qwen).sliding_window, 0);
}

TEST(ModelConfig, TokensAndGenerationDefaults) {
  json config = base("LlamaForCausalLM");
  EXPECT_TRUE(parse(config).eos_token_ids.empty());
  EXPECT_FALSE(parse(config).bos_token_id.has_value());
  config["bos_token_id"] = 1;
  config["eos_token_id"] = 2;
  EXPECT_THAT(parse(config).eos_token_ids, ElementsAre(2));
  EXPECT_EQ(parse(config).bos_token_id, 1);
  config["eos_token_id"] = {9, 3, 9};
  EXPECT_THAT(parse(config).eos_token_ids, ElementsAre(3, 9));

  const json generation = {{"eos_token_id", {5, 4}},
                           {"bos_token_id", nullptr},
                           {"do_sample", true},
                           {"temperature", 0.5},
                           {"top_k", 20},
                           {"repetition_penalty", 1.25},
                           {"top_p", 0.75}};
  const ModelConfig c = parse(config, generation);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(4, 5));
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.generation.do_sample, true);
  EXPECT_EQ(c.generation.temperature, 0.5f);
  EXPECT_EQ(c.generation.top_k, 20);
  EXPECT_EQ(c.generation.top_p, 0.75f);
  EXPECT_EQ(c.generation.repetition_penalty, 1.25f);
  EXPECT_FALSE(c.generation.min_p.has_value());
  EXPECT_FALSE(parse(config).generation.do_sample.has_value());
}

// ---------------------------------------------------------------- what is refused

struct Refused {
  std::string_view architecture;
  std::string_view field;
  std::string_view value;  // JSON
  std::string_view message;
};

class Refusals : public testing::TestWithParam<Refused> {};

TEST_P(Refusals, NameFieldAndValue) {
  const Refused& p = GetParam();
  json config = base(p.architecture);
  ASSERT_EQ(refusal(config), "accepted");  // so that the refusal below is the field's doing
  config[std::string(p.field)] = json::parse(p.value);
  EXPECT_THAT(refusal(config), HasSubstr(p.message));
  EXPECT_THAT(refusal(config), HasSubstr("config.json: "));
}

INSTANTIATE_TEST_SUITE_P(
    Values, Refusals,
    testing::Values(
        Refused{"LlamaForCausalLM", "architectures", R"(["GPT2LMHeadModel"])",
                R"(architectures is ["GPT2LMHeadModel"]; supported are)"},
        Refused{"LlamaForCausalLM", "architectures", R"([])", "architectures is []"},
        Refused{"LlamaForCausalLM", "architectures", R"("LlamaForCausalLM")", "must be a list of strings"},
        Refused{"LlamaForCausalLM", "architectures", R"(["LlamaForCausalLM","X"])", "must hold one name"},
        Refused{"LlamaForCausalLM", "model_type", R"("mistral")", R"(model_type is "mistral")"},
        Refused{"LlamaForCausalLM", "hidden_act", R"("gelu")", R"(hidden_act is "gelu"; supported is silu)"},
        Refused{"LlamaForCausalLM", "quantization_config", R"({"quant_method":"fp8"})",
                R"(quantization_config is {"quant_method":"fp8"})"},
        Refused{"LlamaForCausalLM", "vocab_size", "0", "vocab_size is 0"},
        Refused{"LlamaForCausalLM", "vocab_size", "\"512\"", "vocab_size is \"512\"; it must be an integer"},
        Refused{"LlamaForCausalLM", "vocab_size", "512.0", "vocab_size is 512.0"},
        Refused{"LlamaForCausalLM", "vocab_size", "null", "vocab_size is null; it must be given"},
        Refused{"LlamaForCausalLM", "vocab_size", "[512]", "vocab_size is [512]"},
        Refused{"LlamaForCausalLM", "vocab_size", "true", "vocab_size is true"},
        Refused{"LlamaForCausalLM", "hidden_size", "-64", "hidden_size is -64"},
        Refused{"LlamaForCausalLM", "hidden_size", "18446744073709551615", "hidden_size is 18446744073709551615"},
        Refused{"LlamaForCausalLM", "hidden_size", "9223372036854775807", "hidden_size is 9223372036854775807"},
        Refused{"LlamaForCausalLM", "intermediate_size", "1e30", "intermediate_size is 1e+30"},
        Refused{"LlamaForCausalLM", "num_hidden_layers", "1000000000", "num_hidden_layers is 1000000000"},
        Refused{"LlamaForCausalLM", "num_attention_heads", "0", "num_attention_heads is 0"},
        Refused{"LlamaForCausalLM", "num_attention_heads", "7",
                "num_attention_heads is 7; it must be a multiple of num_key_value_heads, 4"},
        Refused{"LlamaForCausalLM", "num_attention_heads", "1048576", "num_attention_heads is 1048576; times head_dim"},
        Refused{"LlamaForCausalLM", "num_key_value_heads", "3", "multiple of num_key_value_heads, 3"},
        Refused{"LlamaForCausalLM", "num_key_value_heads", "16", "multiple of num_key_value_heads, 16"},
        Refused{"LlamaForCausalLM", "head_dim", "12", "head_dim is 12; it must be a multiple of 8"},
        Refused{"LlamaForCausalLM", "head_dim", "0", "head_dim is 0"},
        Refused{"LlamaForCausalLM", "head_dim", "2048", "head_dim is 2048"},
        Refused{"LlamaForCausalLM", "max_position_embeddings", "0", "max_position_embeddings is 0"},
        Refused{"LlamaForCausalLM", "rms_norm_eps", "0", "rms_norm_eps is 0"},
        Refused{"LlamaForCausalLM", "rms_norm_eps", "-1e-5", "rms_norm_eps is -1e-05"},
        Refused{"LlamaForCausalLM", "rms_norm_eps", "\"1e-5\"", "rms_norm_eps is \"1e-5\"; it must be a number"},
        Refused{"LlamaForCausalLM", "tie_word_embeddings", "1", "tie_word_embeddings is 1; it must be true or false"},
        Refused{"LlamaForCausalLM", "attention_bias", "\"no\"", "attention_bias is \"no\""},
        Refused{"LlamaForCausalLM", "sliding_window", "128", "sliding_window is 128"},
        Refused{"LlamaForCausalLM", "sliding_window", "0", "sliding_window is 0"},
        Refused{"LlamaForCausalLM", "partial_rotary_factor", "0.5", "partial_rotary_factor is 0.5"},
        Refused{"LlamaForCausalLM", "rope_interleaved", "true", "rope_interleaved is true"},
        Refused{"LlamaForCausalLM", "rope_theta", "0", "rope_theta is 0"},
        Refused{"LlamaForCausalLM", "rope_theta", "1", "rope_theta is 1"},
        Refused{"LlamaForCausalLM", "rope_theta", "[1e4]", "rope_theta is [10000.0]"},
        Refused{"LlamaForCausalLM", "rope_scaling", "4", "rope_scaling is 4; it must be an object"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"type":"dynamic","factor":2})",
                R"(rope_scaling.type is "dynamic"; supported are)"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"longrope","factor":2})",
                R"(rope_scaling.rope_type is "longrope")"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"yarn","type":"linear","factor":2})",
                R"(rope_scaling.type is "linear")"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"default","mrope_section":[1,2]})", "mrope_section"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"linear"})", "rope_scaling.factor is missing"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"linear","factor":0.5})", "rope_scaling.factor is 0.5"},
        Refused{
            "LlamaForCausalLM", "rope_scaling",
            R"({"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,"original_max_position_embeddings":64})",
            "rope_scaling.high_freq_factor is 4"},
        Refused{"LlamaForCausalLM", "rope_scaling",
                R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4})",
                "rope_scaling.original_max_position_embeddings is missing"},
        Refused{"LlamaForCausalLM", "rope_scaling", R"({"rope_type":"yarn","factor":4,"beta_fast":1,"beta_slow":32})",
                "rope_scaling.beta_fast is 1"},
        Refused{"LlamaForCausalLM", "rope_parameters", R"({"full_attention":{"rope_theta":1e4}})",
                "rope_parameters.\"full_attention\""},
        Refused{"LlamaForCausalLM", "rope_parameters", R"({"rope_type":"default","partial_rotary_factor":0.25})",
                "rope_parameters.partial_rotary_factor is 0.25"},
        Refused{"LlamaForCausalLM", "eos_token_id", "512", "eos_token_id is 512; it must be an integer in [0, 511]"},
        Refused{"LlamaForCausalLM", "eos_token_id", "[1,-1]", "eos_token_id is [1,-1]"},
        Refused{"LlamaForCausalLM", "bos_token_id", "\"<s>\"", "bos_token_id is \"<s>\""},
        Refused{"MistralForCausalLM", "sliding_window", "-1", "sliding_window is -1"},
        Refused{"MistralForCausalLM", "mlp_bias", "true", "mlp_bias is true"},
        Refused{"MistralForCausalLM", "layer_types",
                R"(["full_attention","full_attention","full_attention","sliding_attention"])", "layer_types is"},
        Refused{"Qwen2ForCausalLM", "layer_types", R"(["full_attention"])", "it must have num_hidden_layers = 4 entries"},
        Refused{"Qwen2ForCausalLM", "layer_types", R"(["full_attention","full_attention","full_attention","chunked_attention"])",
                "supported are full_attention and sliding_attention"},
        Refused{"Qwen2ForCausalLM", "layer_types", R"(["full_attention","full_attention","full_attention","sliding_attention"])",
                "use_sliding_window is off"},
        Refused{"Qwen3MoeForCausalLM", "num_local_experts", "0", "num_local_experts is 0"},
        Refused{"Qwen3MoeForCausalLM", "num_local_experts", "1000000", "num_local_experts is 1000000"},
        Refused{"Qwen3MoeForCausalLM", "num_experts_per_tok", "9", "num_experts_per_tok is 9; it must be an integer in [1, 8]"},
        Refused{"Qwen3MoeForCausalLM", "moe_intermediate_size", "null", "moe_intermediate_size is null"},
        Refused{"Qwen3MoeForCausalLM", "decoder_sparse_step", "0", "decoder_sparse_step is 0"},
        Refused{"MixtralForCausalLM", "num_experts_per_tok", "0", "num_experts_per_tok is 0"}));

TEST(ModelConfig, WindowsInUseThatTheFamilyDoesNotDefineAreRefused) {
  json config = base("Qwen3MoeForCausalLM");
  config["sliding_window"] = 128;
  EXPECT_EQ(refusal(config), "accepted");  // not in use unless it says so
  config["use_sliding_window"] = true;
  EXPECT_THAT(refusal(config), HasSubstr("sliding_window is 128"));
  json qwen = base("Qwen2ForCausalLM");
  qwen["use_sliding_window"] = true;
  qwen["sliding_window"] = 128;
  EXPECT_THAT(refusal(qwen), HasSubstr("max_window_layers is missing"));
}

TEST(ModelConfig, ContradictingRopeSpellingsAreRefused) {
  json config = base("LlamaForCausalLM");
  config["rope_theta"] = 10000;
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  EXPECT_THAT(refusal(config), HasSubstr("rope_theta is 10000; the nested rope_theta is 500000"));
  config["rope_theta"] = 500000;
  EXPECT_EQ(refusal(config), "accepted");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  EXPECT_THAT(refusal(config), HasSubstr("rope_scaling is"));
}

TEST(ModelConfig, MalformedJsonIsRefused) {
  EXPECT_THAT(refusal_of(""), HasSubstr("config.json: not valid JSON"));
  EXPECT_THAT(refusal_of("[]"), HasSubstr("the document is []; it must be an object"));
  EXPECT_THAT(refusal_of("{} {}"), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal_of("{\"a\": NaN}"), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal_of("{\"rms_norm_eps\": 1e999}"), HasSubstr("too large"));
  EXPECT_THAT(refusal_of("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal_of("{\"vocab_size\": 1, \"vocab_size\": 2}"), HasSubstr("the key \"vocab_size\" is given twice"));
  EXPECT_THAT(refusal_of(std::string(100000, '[')), HasSubstr("nested deeper than 16"));
  EXPECT_THAT(refusal_of(base("LlamaForCausalLM").dump().substr(0, 100)), HasSubstr("not valid JSON"));
  for (const char* field : {"architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "max_position_embeddings", "rms_norm_eps"}) {
    json config = base("LlamaForCausalLM");
    config.erase(field);
    EXPECT_THAT(refusal(config), HasSubstr(std::string(field) + " is ")) << field;
  }
}

TEST(ModelConfig, GenerationConfigIsCheckedToo) {
  const std::string config = base("LlamaForCausalLM").dump();
  EXPECT_EQ(refusal_of(config, "{}"), "accepted");
  EXPECT_THAT(refusal_of(config, "{"), HasSubstr("generation_config.json: not valid JSON"));
  EXPECT_THAT(refusal_of(config, R"({"eos_token_id": 600})"), HasSubstr("generation_config.json: eos_token_id is 600"));
  EXPECT_THAT(refusal_of(config, R"({"temperature": -1})"), HasSubstr("temperature is -1"));
  EXPECT_THAT(refusal_of(config, R"({"top_p": 0})"), HasSubstr("top_p is 0"));
  EXPECT_THAT(refusal_of(config, R"({"top_k": 1.5})"), HasSubstr("top_k is 1.5"));
  EXPECT_THAT(refusal_of(config, R"({"do_sample": "yes"})"), HasSubstr("do_sample is \"yes\""));
  EXPECT_THAT(refusal_of(config, R"({"repetition_penalty": 0})"), HasSubstr("repetition_penalty is 0"));
}

// ---------------------------------------------------------------- files

TEST(ModelConfig, LoadsAFolderAndAFileAlone) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "invar_model_config_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(absl::IsNotFound(load_model_config(folder).status()));
  std::ofstream(folder / "config.json") << base("LlamaForCausalLM").dump();
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": 7})";
  EXPECT_THAT(load_model_config(folder)->eos_token_ids, ElementsAre(7));
  EXPECT_TRUE(load_model_config(folder / "config.json")->eos_token_ids.empty());
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": -7})";
  EXPECT_THAT(std::string(load_model_config(folder).status().message()),
              HasSubstr((folder / "generation_config.json").string() + ": eos_token_id is -7"));
  std::filesystem::remove_all(folder);
}

struct Real {
  std::string_view file;
  int64_t layers, heads, kv_heads, head_dim, tensors;
  std::string_view rope;
  double theta;
};

TEST(ModelConfig, RealConfigsParseOrAreRefusedByArchitecture) {
  const std::filesystem::path folder = std::filesystem::path(INVAR_SOURCE_DIR) / ".." / "shared" / "tokenizers" / "configs";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const Real reals[] = {{"llama-3.1-8b-instruct", 32, 32, 8, 128, 291, "llama3", 500000},
                        {"llama-3.1-70b-instruct", 80, 64, 8, 128, 723, "llama3", 500000},
                        {"llama-3.2-1b-instruct", 16, 32, 8, 64, 146, "llama3", 500000},
                        {"llama-3.2-3b-instruct", 28, 24, 8, 128, 254, "llama3", 500000},
                        {"mistral-7b-v0.3", 32, 32, 8, 128, 291, "default", 1000000},
                        {"mixtral-8x7b", 32, 32, 8, 128, 995, "default", 1000000},
                        {"qwen2.5-3b", 36, 16, 2, 128, 434, "default", 1000000},
                        {"qwen3-0.6b", 28, 16, 8, 128, 310, "default", 1000000},
                        {"qwen3-1.7b", 28, 16, 8, 128, 310, "default", 1000000},
                        {"qwen3-4b", 36, 32, 8, 128, 398, "default", 1000000},
                        {"qwen3-8b", 36, 32, 8, 128, 399, "default", 1000000},
                        {"qwen3-30b-a3b", 48, 32, 4, 128, 18867, "default", 1000000},
                        {"smollm2-135m", 30, 9, 3, 64, 272, "default", 100000}};
  size_t refused = 0, files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    ++files;
    SCOPED_TRACE(entry.path().string());
    const absl::StatusOr<ModelConfig> c = load_model_config(entry.path());
    const std::string stem = entry.path().stem();
    if (stem == "gpt-oss-20b" || stem == "deepseek-v3") {
      ++refused;
      EXPECT_TRUE(absl::IsUnimplemented(c.status()));
      EXPECT_THAT(std::string(c.status().message()),
                  HasSubstr(stem == "deepseek-v3" ? R"(architectures is ["DeepseekV3ForCausalLM"])"
                                                  : R"(architectures is ["GptOssForCausalLM"])"));
      continue;
    }
    ASSERT_TRUE(c.ok()) << c.status();
    const Real* real = std::find_if(std::begin(reals), std::end(reals), [&](const Real& r) { return r.file == stem; });
    ASSERT_NE(real, std::end(reals)) << "a config this test does not know";
    EXPECT_EQ(c->num_layers, real->layers);
    EXPECT_EQ(c->num_heads, real->heads);
    EXPECT_EQ(c->num_kv_heads, real->kv_heads);
    EXPECT_EQ(c->head_dim, real->head_dim);
    EXPECT_EQ(c->rope.type, real->rope);
    EXPECT_EQ(c->rope_theta, real->theta);
    EXPECT_EQ(static_cast<int64_t>(expected_tensors(*c).size()), real->tensors);
    EXPECT_EQ(c->sliding_window, 0);
  }
  EXPECT_EQ(refused, 2u);
  EXPECT_EQ(files, std::size(reals) + refused);
}

}  // namespace
}  // namespace invar
