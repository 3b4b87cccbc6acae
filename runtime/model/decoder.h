// Decoder: one rank's share of the model, its KV pages, and the forward pass of a step. Llama, Mistral, Qwen2, Qwen3, Mixtral and
// Qwen3-MoE are this one pass with parts switched by the config.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention/attention.h"
#include "kernels/device/device.h"
#include "kernels/rope/rope.h"
#include "parallel/reduce/tree_all_reduce.h"
#include "runtime/model/moe_block.h"
#include "runtime/model/rank_weights.h"
#include "runtime/model/shard.h"
#include "runtime/model/step_inputs.h"
#include "runtime/model/step_rows.h"
#include "runtime/trace/recorder.h"

namespace invar {

struct KvSize {
  int64_t pages = 0;       // per home; equal on each rank of a replica
  int64_t page_size = 16;  // token slots; a multiple of 16
};
// Bytes of one page on the rank that needs most, so that all ranks agree on the number of pages without asking.
int64_t kv_page_bytes(const ModelConfig& config, const Layout& layout, int64_t page_size);

// Logits rows computed and shipped at a time: bounds memory when a whole prompt's logits are wanted.
inline constexpr int64_t kLogitsBlock = 64;

// Gets blocks of whole logits rows, on the rank that samples: rows [first, first + count) of StepRows::logits, [count][vocab] in
// the device's memory.
using LogitsSink = std::function<void(int64_t first, int64_t count, const float* logits)>;

// What a TP rank wants of a window, for steps of at most `rows` rows at full speed; larger ones go in several parts.
parallel::PeerSizes peer_sizes(const ModelConfig& config, int64_t rows);

class Decoder {
 public:
  struct Options {
    Layout layout;
    Coordinates at;
    KvSize kv;
    int64_t max_positions = 0;  // length of the RoPE table
    bool record_decode = true;  // CUDA graphs for decode steps: the bits are the same
    // Windows of the rank's TP group (peer_sizes()), outliving the decoder; null: everything goes through the transport.
    parallel::PeerMemory* peer = nullptr;
  };
  // Loads the rank's weights. `transport` has the world's ranks and outlives the decoder; one that moves host memory only is
  // enough for any device.
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
  void exchange_embeddings(const StepRows& rows);
  void share_embeddings(int64_t rows);
  void receive_hidden(int64_t rows);
  void send_hidden(int64_t rows);
  // Blocks read normed_, add to the residual stream x_, and leave the norm of that by `next_norm` in normed_ (null: nothing).
  void attention_block(const StepRows& rows, int64_t layer, const LayerWeights& w, KvPages& pages, const Bf16* next_norm);
  void dense_block(int64_t rows, int64_t layer, const LayerWeights& w, const Bf16* next_norm);
  void moe_block(int64_t rows, int64_t local_layer, const LayerWeights& w, const Bf16* next_norm);
  void norm(int64_t rows, const Bf16* weight);
  struct BlockEnd {
    int64_t layer;
    v1::TraceOperatorKind output, residual;  // what a trace calls the block's result and the stream after it
    const Bf16* next_norm;
  };
  void add_block(const BlockEnd& end, int64_t rows);
  void layers(const StepRows& rows);
  void head(const StepRows& rows, const LogitsSink& sink);
  const float* logits_of(const StepRows& rows, int64_t first, int64_t count);
  // The whole rows, on the rank that samples; null on the others. Over peer memory only.
  const float* logits_over_peers(const StepRows& rows, int64_t first, int64_t count);
  // Decode steps that nothing on the host interrupts, queued as one piece once a step of the same size has been seen. Returns
  // false if this step is none.
  bool run_recorded(const StepRows& rows, const LogitsSink& sink);
  // A block's last product: what it adds up, with room for the partial sums; the product itself, into those, or where that is one
  // pass the whole result into output_, or added to x_, or the partial sums to where all ranks add them; and what follows.
  parallel::RowReduction reduction_of(const RowShard& shard, int64_t rows, const DeviceArray<Bf16>& bias);
  // x: [rows of the reduction][the shard's k]. True: the result is in x_ and nowhere else.
  bool multiply_row(const RowShard& shard, const PackedWeights& weights, const Bf16* x, const BlockEnd& end,
                    parallel::RowReduction* reduction);
  void reduce_and_add(const parallel::RowReduction& reduction, const BlockEnd& end, bool added);

  const Device& device_;
  std::unique_ptr<parallel::Transport> staged_;  // with a device whose memory the given transport cannot reach
  parallel::Transport& transport_;               // moves the device's memory
  ModelConfig config_;
  ModelShard shard_;
  parallel::Group tp_;
  parallel::PeerMemory* peer_;  // null with one TP rank, too
  parallel::TreeAllReduce all_reduce_;
  RopeTable rope_;
  RankWeights weights_;
  std::vector<KvPages> pages_;  // per layer of this stage
  TraceRecorder* trace_ = nullptr;
  StepInputs inputs_;
  AttentionStep step_;
  // With several TP ranks: the step's tokens by owner of their embedding rows, and where each row of the step lies among them.
  std::vector<int32_t> tokens_by_owner_;
  std::vector<int64_t> place_by_owner_;
  DeviceArray<int32_t> owned_tokens_;
  parallel::DeviceIndex embedding_index_;

  struct Recorded {
    uint64_t allocations = 0, generation = 0;  // as they were when the step was last queued one by one
    RecordedWork work;
    const float* logits = nullptr;
  };
  bool may_record_ = false;
  // By rows, rows whose logits are wanted, and whether the attention has states to merge.
  std::map<std::tuple<int64_t, int64_t, bool>, Recorded> recorded_;

  // Activations, grown to the largest step seen. x is the residual stream.
  Buffer x_, normed_, qkv_, attended_, partials_, output_, gate_up_, activation_, moved_, logits_, gathered_;
  MoeBlock moe_;  // behind partials_, which it shares
};

}  // namespace invar
