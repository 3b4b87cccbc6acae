// A layer's experts: who computes which rows, their MLPs, and the sum (clauses 9 to 11). Where the experts of other ranks are
// asked, rows travel there and back.
#pragma once

#include <vector>

#include "kernels/device/device.h"
#include "kernels/moe/router.h"
#include "parallel/exchange/expert_exchange.h"
#include "parallel/reduce/tree_all_reduce.h"
#include "runtime/model/rank_weights.h"
#include "runtime/model/shard.h"
#include "runtime/trace/recorder.h"

namespace invar {

// One for all layers of a rank; scratch grows to the largest step seen.
class MoeBlock {
 public:
  // All are the decoder's and outlive this. `partials` is the scratch that its other row-parallel products use, too.
  MoeBlock(const Device& device, const ModelConfig& config, const ModelShard& shard, const parallel::Group& ep,
           parallel::TreeAllReduce& all_reduce, Buffer& partials);

  // Once the layers' weights are there, which stay where they are. Without expert parallelism rows need not travel.
  void hold(const std::vector<LayerWeights>& layers);
  bool at_home() const { return at_home_; }

  // What the experts make of x [rows][hidden], into y. Collective over the replica, unless it is at home: with no rows, too.
  struct Problem {
    int64_t rows = 0;
    int64_t local_layer = 0;
    const LayerWeights* weights = nullptr;
    const Bf16* x = nullptr;
    Bf16* y = nullptr;
    TraceRecorder* trace = nullptr;  // may be null
  };
  void run(const Problem& problem);

 private:
  // Of each layer, on a rank that has all experts: what a launch over all of them needs.
  struct HeldExperts {
    std::vector<const ExpertWeights*> weights;
    ExpertTable table;
  };

  void run_at_home(const Problem& problem, const Router& router);
  void run_anywhere(const Problem& problem, const Router& router);
  // What the experts make of so many rows, which `problem` says; the rest is the shard's.
  void compute(ExpertMlp problem, int64_t rows, Bf16* results);
  void trace_experts(const Problem& problem, const parallel::ReturnedRows& home);

  const Device& device_;
  const ModelConfig& config_;
  const ModelShard& shard_;
  parallel::TreeAllReduce& all_reduce_;
  parallel::ExpertExchange exchange_;
  std::vector<HeldExperts> held_;  // by local layer
  bool at_home_ = false;
  Buffer& partials_;
  Buffer router_, ids_, weights_of_, moved_, expert_order_, expert_scratch_;
};

}  // namespace invar
