// Deterministic mutations of valid configs through the fuzzer's entry: no crash, no accepted nonsense.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model_config/config_fuzz.h"

namespace invar {
namespace {

const std::vector<std::string>& seeds() {
  using namespace std::string_literals;
  static const std::vector<std::string> list = {
      R"({"architectures":["LlamaForCausalLM"],"vocab_size":512,"hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,)"
      R"("num_attention_heads":8,"num_key_value_heads":4,"max_position_embeddings":512,"rms_norm_eps":1e-05,)"
      R"("rope_theta":10000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
      R"("original_max_position_embeddings":128,"rope_type":"llama3"},"eos_token_id":[1,2],"tie_word_embeddings":true})"s,
      R"({"architectures":["Qwen3MoeForCausalLM"],"model_type":"qwen3_moe","vocab_size":64,"hidden_size":32,"num_experts":4,)"
      R"("intermediate_size":64,"moe_intermediate_size":16,"num_hidden_layers":3,"num_attention_heads":4,"head_dim":8,)"
      R"("num_key_value_heads":2,"max_position_embeddings":128,"rms_norm_eps":1e-06,"num_experts_per_tok":2,)"
      R"("mlp_only_layers":[1],"decoder_sparse_step":1,"rope_parameters":{"rope_type":"yarn","rope_theta":10000.0,)"
      R"("factor":4.0,"original_max_position_embeddings":32}})"s,
      R"({"architectures":["Qwen2ForCausalLM"],"vocab_size":64,"hidden_size":32,"intermediate_size":64,"num_hidden_layers":2,)"
      R"("num_attention_heads":4,"num_key_value_heads":4,"max_position_embeddings":128,"rms_norm_eps":1e-06,)"
      R"("sliding_window":32,"use_sliding_window":true,"max_window_layers":1,)"
      R"("layer_types":["full_attention","sliding_attention"]})"s +
          '\0' + R"({"eos_token_id":[3,4],"temperature":0.7,"top_p":0.8,"top_k":20,"do_sample":true,"repetition_penalty":1.05})"};
  return list;
}

std::string mutate(std::string text, std::mt19937_64& random) {
  static const std::string_view kPieces[] = {"null",
                                             "-1",
                                             "0",
                                             "1e308",
                                             "9223372036854775807",
                                             "18446744073709551615",
                                             "true",
                                             "[]",
                                             "{}",
                                             "\"\"",
                                             "[[[[[[[[[[[[[[[[[[",
                                             "\"a\":1,",
                                             "\\u0000",
                                             "\xff",
                                             "4294967296",
                                             "1.5",
                                             "1048576",
                                             "7",
                                             ",",
                                             ":",
                                             "{\"a\":"};
  const int changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    switch (random() % 6) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text[at] = static_cast<char>('0' + random() % 10);
        break;
      case 2:
        text.insert(at, kPieces[random() % std::size(kPieces)]);
        break;
      case 3:
        text.erase(at, 1 + random() % 12);
        break;
      case 4:
        text.resize(at);
        break;
      default: {  // another value after a colon
        const size_t colon = text.find(':', at);
        if (colon == std::string::npos) break;
        const size_t end = text.find_first_of(",}", colon);
        if (end != std::string::npos) text.replace(colon + 1, end - colon - 1, kPieces[random() % std::size(kPieces)]);
      }
    }
  }
  return text;
}

TEST(ConfigMutation, NothingCrashesAndBothAnswersOccur) {
  for (const std::string& seed : seeds()) ASSERT_TRUE(fuzz_config(seed)) << seed;
  std::mt19937_64 random(1);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 60000; ++i) (fuzz_config(mutate(seeds()[i % seeds().size()], random)) ? accepted : refused)++;
  EXPECT_GT(accepted, 600);
  EXPECT_GT(refused, 6000);
}

}  // namespace
}  // namespace invar
