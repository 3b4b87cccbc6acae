// Names and shapes of a model's tensors as Hugging Face folders spell them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/model_config/model_config.h"

namespace invar {

struct ExpertNames;

// Layers and experts count from 0. Matrices are [outputs][inputs]. A name is given whether or not the model has the tensor:
// expected_tensors() says which exist.
class WeightNames {
 public:
  explicit WeightNames(const ModelConfig& config);  // config: one that parse_model_config() returned

  std::string embed() const;       // [vocab_size][hidden_size]
  std::string final_norm() const;  // [hidden_size]
  std::string lm_head() const;     // [vocab_size][hidden_size]; with tied embeddings the same tensor as embed()

  std::string input_norm(int64_t layer) const;           // [hidden_size], before attention
  std::string post_attention_norm(int64_t layer) const;  // [hidden_size], before the MLP
  std::string q_weight(int64_t layer) const;             // [num_heads * head_dim][hidden_size]
  std::string k_weight(int64_t layer) const;             // [num_kv_heads * head_dim][hidden_size]
  std::string v_weight(int64_t layer) const;             // [num_kv_heads * head_dim][hidden_size]
  std::string o_weight(int64_t layer) const;             // [hidden_size][num_heads * head_dim]
  std::string q_bias(int64_t layer) const;
  std::string k_bias(int64_t layer) const;
  std::string v_bias(int64_t layer) const;
  std::string o_bias(int64_t layer) const;
  std::string q_norm(int64_t layer) const;  // [head_dim]
  std::string k_norm(int64_t layer) const;  // [head_dim]

  // Dense MLP.
  std::string gate_weight(int64_t layer) const;  // [intermediate_size][hidden_size]
  std::string up_weight(int64_t layer) const;    // [intermediate_size][hidden_size]
  std::string down_weight(int64_t layer) const;  // [hidden_size][intermediate_size]
  std::string gate_bias(int64_t layer) const;
  std::string up_bias(int64_t layer) const;
  std::string down_bias(int64_t layer) const;

  // Experts; I = moe.intermediate_size.
  std::string router(int64_t layer) const;                       // [num_experts][hidden_size]
  std::string expert_gate(int64_t layer, int64_t expert) const;  // [I][hidden_size]
  std::string expert_up(int64_t layer, int64_t expert) const;    // [I][hidden_size]
  std::string expert_down(int64_t layer, int64_t expert) const;  // [hidden_size][I]

 private:
  std::string expert(int64_t layer, int64_t expert, std::string_view matrix) const;

  bool tied_;
  const ExpertNames* experts_;  // of the family; not null
};

enum class TensorRole : uint8_t { kMatrix, kNorm, kBias };

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;  // one or two dimensions
  TensorRole role = TensorRole::kMatrix;
};

// Every tensor the model has, once each: embedding, layers in order, final norm, head (absent when tied).
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

}  // namespace invar
