// Decoder: one rank's share of the model, its KV pages, and the forward pass of a step. Llama, Mistral, Qwen2, Qwen3, Mixtral and
// Qwen3-MoE are this one pass with parts switched by the config.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention/attention.h"
#include "kernels/device/device.h"
#include "kernels/rope/rope.h"
#include "parallel/exchange/expert_exchange.h"
#include "parallel/reduce/tree_all_reduce.h"
#include "runtime/model/rank_weights.h"
#include "runtime/model/shard.h"
#include "runtime/model/step_rows.h"
#include "runtime/trace/recorder.h"

namespace invar {

struct KvSize {
  int64_t pages = 0;      // per home; equal on each rank of a replica
  int64_t page_size = 16; // token slots; a multiple of 16
};
// Bytes of one page on the rank that needs most, so that all ranks agree on the number of pages without asking.
int64_t kv_page_bytes(const ModelConfig& config, const Layout& layout, int64_t page_size);

// Gets blocks of whole logits rows, on the rank that samples: rows [first, first + count) of StepRows::logits, [count][vocab].
using LogitsSink = std::function<void(int64_t first, int64_t count, const float* logits)>;

class Decoder {
 public:
  struct Options {
    Layout layout;
    Coordinates at;
    KvSize kv;
    int64_t max_positions = 0;  // length of the RoPE table
  };
  // Loads the rank's weights. `transport` has the world's ranks and outlives the decoder.
  static absl::StatusOr<std::unique_ptr<Decoder>> load(const Device& device, parallel::Transport& transport,
                                                       const ModelConfig& config, const Options& options,
                                                       const WeightSource& weights, const LoadProgressFn& progress);

  // Collective over the replica: every rank runs every step, with rows or without. Throws parallel::PeerFailure.
  void forward(const StepRows& rows, TraceRecorder* trace, const LogitsSink& sink);

  bool samples() const { return shard_.last_stage && shard_.at.tp == 0; }
  const ModelShard& shard() const { return shard_; }
  const ModelConfig& config() const { return config_; }
  size_t weight_bytes() const { return weights_.bytes(); }
  size_t kv_bytes() const;

 private:
  Decoder(const Device& device, parallel::Transport& transport, const ModelConfig& config, const Options& options);

  void embed(const StepRows& rows);
  void receive_hidden(int64_t rows);
  void send_hidden(int64_t rows);
  void attention_block(const StepRows& rows, int64_t layer, const LayerWeights& w, KvPages& pages);
  void dense_block(int64_t rows, int64_t layer, const LayerWeights& w);
  void moe_block(int64_t rows, int64_t layer, const LayerWeights& w);
  void head(const StepRows& rows, const LogitsSink& sink);
  void reduce(const RowShard& shard, int64_t rows, const float* partials, const std::vector<Bf16>& bias, Bf16* y);

  const Device& device_;
  parallel::Transport& transport_;
  ModelConfig config_;
  ModelShard shard_;
  parallel::Group tp_;
  parallel::Group ep_;
  parallel::TreeAllReduce all_reduce_;
  parallel::ExpertExchange exchange_;
  RopeTable rope_;
  RankWeights weights_;
  std::vector<KvPages> pages_;  // per layer of this stage
  TraceRecorder* trace_ = nullptr;

  // Activations, grown to the largest step seen. x is the residual stream.
  Buffer x_, normed_, qkv_, attended_, partials_, output_, gate_up_, activation_, router_, ids_, weights_of_, moved_, logits_,
      gathered_;
};

}  // namespace invar
