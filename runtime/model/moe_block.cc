#include "runtime/model/moe_block.h"

#include "kernels/moe/expert_order.h"
#include "runtime/model/room.h"

namespace invar {

using namespace v1;  // NOLINT: the trace's operator names

MoeBlock::MoeBlock(const Device& device, const ModelConfig& config, const ModelShard& shard, const parallel::Group& ep,
                   parallel::TreeAllReduce& all_reduce, Buffer& partials)
    : device_(device),
      config_(config),
      shard_(shard),
      all_reduce_(all_reduce),
      exchange_(device, ep, parallel::expert_owners(config.moe.num_experts, shard.layout.ep)),
      partials_(partials) {}

void MoeBlock::hold(const std::vector<LayerWeights>& layers) {
  at_home_ = shard_.layout.ep == 1 && config_.moe.num_experts > 0 && device_.control_arm() != ControlArm::kExpertCapacity;
  if (!at_home_) return;
  for (const LayerWeights& layer : layers) {
    HeldExperts& held = held_.emplace_back();
    for (const ExpertWeights& e : layer.experts) held.weights.push_back(&e);
    held.table = ExpertTable(device_, held.weights);
  }
}

void MoeBlock::run(const Problem& p) {
  const int64_t n = p.rows, hidden = config_.hidden_size, experts = config_.moe.num_experts, top_k = config_.moe.top_k;
  const Router router{.rows = n,
                      .experts = experts,
                      .top_k = top_k,
                      .renormalise = config_.moe.norm_topk_prob,
                      .logits = room<float>(device_, router_, n * experts),
                      .ids = room<int32_t>(device_, ids_, n * top_k),
                      .weights = room<float>(device_, weights_of_, n * top_k)};
  if (n > 0)
    linear_column(device_, {.rows = n,
                            .x = p.x,
                            .x_stride = hidden,
                            .weights = &p.weights->router,
                            .y_fp32 = router_.as<float>(),
                            .y_stride = experts});
  if (!at_home_ || p.trace)  // a trace wants the rows' places on the host
    run_anywhere(p, router);
  else if (n > 0)
    run_at_home(p, router);
}

void MoeBlock::run_anywhere(const Problem& p, const Router& router) {
  const int64_t n = p.rows, layer = shard_.layers.begin + p.local_layer, hidden = config_.hidden_size;
  const int64_t experts = router.experts, top_k = router.top_k;
  if (n > 0) route(device_, router);
  if (p.trace) {
    p.trace->record(ROUTER_LOGITS, layer, router.logits, experts, 0, experts);
    p.trace->record(EXPERT_IDS, layer, router.ids, top_k, 0, top_k);
    p.trace->record(EXPERT_WEIGHTS, layer, router.weights, top_k, 0, top_k);
  }
  const parallel::DispatchedRows here = exchange_.dispatch(p.x, n, hidden, router.ids, top_k);
  const int64_t rows = here.rows();
  Bf16* results = room<Bf16>(device_, moved_, rows * hidden);
  if (rows > 0) {
    std::vector<const ExpertWeights*> held;
    for (const ExpertWeights& e : p.weights->experts) held.push_back(&e);
    compute({.offsets = here.offsets, .experts = held, .x = here.x}, rows, results);
  }
  const parallel::ReturnedRows home = exchange_.combine_return(results);
  if (p.trace) trace_experts(p, home);
  if (n == 0) return;
  combine(device_, {.rows = n,
                    .width = hidden,
                    .top_k = top_k,
                    .expert_rows = home.expert_rows,
                    .row_of = home.row_of,
                    .weights = router.weights,
                    .y = p.y});
}

// Every expert is here, so rows need not travel, and the host need not know who goes where.
void MoeBlock::run_at_home(const Problem& p, const Router& router) {
  const HeldExperts& held = held_[p.local_layer];
  const int64_t n = p.rows, hidden = config_.hidden_size, experts = router.experts, top_k = router.top_k, rows = n * top_k;
  int64_t* offsets = room<int64_t>(device_, expert_order_, experts + 1 + rows + (rows + 1) / 2);
  int64_t* row_of = offsets + experts + 1;
  int32_t* token_of = reinterpret_cast<int32_t*>(row_of + rows);
  route_in_order(device_, router,
                 {.rows = n,
                  .top_k = top_k,
                  .experts = experts,
                  .ids = router.ids,
                  .offsets = offsets,
                  .row_of = row_of,
                  .token_of = token_of});
  Bf16* results = room<Bf16>(device_, moved_, rows * hidden);
  compute(
      {.offsets_on_device = offsets, .rows = rows, .experts = held.weights, .table = &held.table, .x = p.x, .index = token_of},
      rows, results);
  combine(device_, {.rows = n,
                    .width = hidden,
                    .top_k = top_k,
                    .expert_rows = results,
                    .row_of = row_of,
                    .weights = router.weights,
                    .y = p.y});
}

void MoeBlock::compute(ExpertMlp problem, int64_t rows, Bf16* results) {
  const RowShard& shard = shard_.expert;
  problem.hidden = config_.hidden_size;
  problem.segments = shard.segments;
  problem.first = shard.first;
  problem.last = shard.last;
  problem.nodes = shard.nodes;
  problem.partials = room<float>(device_, partials_, static_cast<int64_t>(shard.nodes.size()) * rows * config_.hidden_size);
  problem.scratch = &expert_scratch_;
  const bool finished = !shard.k.empty() && problem.table && root_alone(shard.nodes);
  if (finished) problem.y = results;
  if (!shard.k.empty()) expert_mlp(device_, problem);
  all_reduce_.run({.rows = rows,
                   .outputs = config_.hidden_size,
                   .segments = shard.segments,
                   .partials = problem.partials,
                   .y = results,
                   .values = finished ? parallel::RowValues::kFinished : parallel::RowValues::kPartials});
}

// Slot by slot, as columns [slot * hidden, (slot + 1) * hidden) of one wide row a token.
void MoeBlock::trace_experts(const Problem& p, const parallel::ReturnedRows& home) {
  const int64_t n = p.rows, hidden = config_.hidden_size, top_k = config_.moe.top_k;
  const DeviceArray<Bf16> slot(device_, n * hidden);
  for (int64_t i = 0; i < top_k; ++i) {
    for (int64_t r = 0; r < n; ++r)
      if (home.row_of_on_host[r * top_k + i] >= 0)
        device_.copy(slot.data() + r * hidden, home.expert_rows + home.row_of_on_host[r * top_k + i] * hidden,
                     hidden * sizeof(Bf16));
    p.trace->record(EXPERT_OUTPUT, shard_.layers.begin + p.local_layer, slot.data(), hidden, i * hidden, hidden);
  }
}

}  // namespace invar
