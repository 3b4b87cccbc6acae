// The weights one rank holds, packed for its device. Reads only the rank's slices.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/gated_linear.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/expert_mlp.h"
#include "runtime/model/shard.h"
#include "runtime/weights/weight_source.h"

namespace invar {

struct LayerWeights {
  DeviceArray<Bf16> input_norm, post_attention_norm;  // [hidden]
  DeviceArray<Bf16> q_norm, k_norm;                   // [head_dim] or empty
  PackedWeights qkv;                                  // [(query heads + 2 kv heads) * head_dim][hidden]
  DeviceArray<Bf16> qkv_bias;                         // or empty
  PackedWeights o;                                    // [hidden][query heads * head_dim]
  DeviceArray<Bf16> o_bias;                           // whole; added after the tree
  // Dense MLP ...
  GatedWeights gate_up;         // [local intermediate][hidden] twice, with their biases
  PackedWeights down;           // [hidden][local intermediate]
  DeviceArray<Bf16> down_bias;  // whole
  // ... or experts.
  bool moe = false;
  PackedWeights router;  // [experts][hidden], whole on every rank
  std::vector<ExpertWeights> experts;
};

struct RankWeights {
  std::vector<LayerWeights> layers;  // of this stage
  // Rows of this rank's vocabulary range. With tied embeddings one object serves both ends of the model.
  std::shared_ptr<PackedWeights> embedding;  // first stage
  std::shared_ptr<PackedWeights> head;       // last stage
  DeviceArray<Bf16> final_norm;              // last stage

  size_t bytes() const;
};

// Progress counts the bytes of this rank's shard. Errors are the weight source's, naming tensor and element.
absl::StatusOr<RankWeights> load_rank_weights(const Device& device, const ModelConfig& config, const ModelShard& shard,
                                              const WeightSource& source, const LoadProgressFn& progress);

// Bytes the packed weights of a shard take.
int64_t rank_weight_elements(const ModelConfig& config, const ModelShard& shard);

}  // namespace invar
