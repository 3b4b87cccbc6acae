// What a model is: the plain values of config.json and generation_config.json that decide shapes, numbers and stopping.
//
// Reading is strict: a value this program would not honour is an error naming field and value (InvalidArgument: the value is
// wrong; Unimplemented: the value means something this program does not do), never a silent default.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/rope/rope.h"

namespace invar {

// What a model's author suggests when a request says nothing. An empty field was not given (or null).
struct GenerationDefaults {
  std::optional<bool> do_sample;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  std::string model_type;    // "llama", ...

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // of the dense MLP
  int64_t num_layers = 0;
  int64_t num_heads = 0;  // query heads, a multiple of num_kv_heads
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;  // a multiple of 8; num_heads * head_dim need not be hidden_size
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 0;
  bool tie_word_embeddings = false;

  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over head_dim of every query and key head, before RoPE

  RopeScaling rope;
  double rope_theta = 10000;

  // A query of a sliding layer sees the last `sliding_window` keys, itself included. 0 = no layer slides; a window that holds
  // every position the model has is read as 0. sliding_layers: num_layers entries, all false when sliding_window is 0.
  int64_t sliding_window = 0;
  std::vector<bool> sliding_layers;

  struct Moe {
    int64_t num_experts = 0;  // 0 = a dense model
    int64_t top_k = 0;
    int64_t intermediate_size = 0;         // of one expert
    int64_t shared_intermediate_size = 0;  // 0 = no shared expert
    bool norm_topk_prob = false;           // weights of the chosen experts are renormalised
  } moe;
  std::vector<bool> moe_layer;  // num_layers entries: experts (true) or a dense MLP

  std::vector<int32_t> eos_token_ids;  // ascending, without repeats; generation_config.json wins over config.json
  std::optional<int32_t> bos_token_id;
  GenerationDefaults generation;
  std::string torch_dtype;  // as written; the weights are read from whatever the files hold. Empty: not given

  int64_t window_of(int64_t layer) const { return sliding_layers[layer] ? sliding_window : 0; }
};

// `folder_or_config_json`: a model folder (its generation_config.json is read too, where there is one) or a config.json
// alone. NotFound when it is not there; other errors as above, prefixed with the file's path.
absl::StatusOr<ModelConfig> load_model_config(const std::filesystem::path& folder_or_config_json);

// The same from text. An empty generation_config_json: there is none.
absl::StatusOr<ModelConfig> parse_model_config(std::string_view config_json, std::string_view generation_config_json);

}  // namespace invar
