// A family: one architecture name, how its config.json maps to ModelConfig, how its expert tensors are called.
#pragma once

#include <span>
#include <string_view>

#include "runtime/model_config/fields.h"
#include "runtime/model_config/model_config.h"

namespace invar {

// Below "model.layers.N.": router, then experts + "E" + gate / up / down.
struct ExpertNames {
  std::string_view router;
  std::string_view experts;
  std::string_view gate;
  std::string_view up;
  std::string_view down;
};

struct Family {
  std::string_view architecture;
  std::string_view model_type;
  // What the family's own code adds to the common fields, which are read and in bounds by then. Mistakes go to `fields`.
  void (*read)(Fields& fields, ModelConfig& config);
  ExpertNames experts = {};
  bool kv_heads_default_to_heads = false;  // a config without num_key_value_heads means one KV head per query head
  bool head_dim_required = false;          // otherwise hidden_size / num_attention_heads when not given
};

extern const Family kLlamaFamily;
extern const Family kMistralFamily;
extern const Family kQwen2Family;
extern const Family kQwen3Family;
extern const Family kMixtralFamily;
extern const Family kQwen3MoeFamily;

std::span<const Family* const> families();
const Family* find_family(std::string_view architecture);  // null: unknown

// Bounds that keep every product of two sizes far from overflow and refuse values no model has.
inline constexpr int64_t kMaxWidth = 1 << 20;  // hidden, intermediate, heads * head_dim
inline constexpr int64_t kMaxExperts = 1024;   // what the router takes
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxExpertsInAll = 1 << 17;  // over all layers: keeps the list of tensors small for a lying config
inline constexpr int64_t kMaxPositions = 1 << 26;

// Pieces that several families share.
void refuse_bias(Fields& fields, std::string_view name);  // the family has no such bias: true is an error
void read_experts(Fields& fields, ModelConfig& config);   // num_experts / num_local_experts and num_experts_per_tok
// A window in use that would matter is refused; `default_use`: what a config without use_sliding_window means.
void window_none(Fields& fields, ModelConfig& config, bool default_use);
void window_on_every_layer(Fields& fields, ModelConfig& config);
void window_from_layer_on(Fields& fields, ModelConfig& config);  // use_sliding_window and max_window_layers, or layer_types

}  // namespace invar
