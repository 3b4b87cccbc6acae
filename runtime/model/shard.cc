#include "runtime/model/shard.h"

#include "parallel/reduce/tree_all_reduce.h"

namespace invar {
namespace {

RowShard row_shard(ControlArm arm, int64_t k, int64_t unit, int tp, int tp_rank) {
  RowShard s;
  s.segments = RowSegments::cut(k, unit);
  const Range mine = parallel::segments_of(tp, tp_rank);
  s.first = static_cast<int>(mine.begin);
  s.last = static_cast<int>(mine.end);
  s.k = {s.segments.begin[s.first], s.segments.begin[s.last]};
  s.nodes = parallel::shipped_nodes(arm, s.segments, s.first, s.last);
  return s;
}

}  // namespace

ModelShard ModelShard::make(const ModelConfig& config, const Layout& layout, const Coordinates& at, ControlArm arm) {
  ModelShard s;
  s.layout = layout;
  s.at = at;
  s.layers = parallel::layers_of(config.num_layers, layout.pp, at.pp);
  s.first_stage = at.pp == 0;
  s.last_stage = at.pp == layout.pp - 1;

  const int64_t group = config.num_heads / config.num_kv_heads;
  s.o = row_shard(arm, config.num_heads * config.head_dim,
                  numerics::o_unit(config.num_heads, config.num_kv_heads, config.head_dim), layout.tp, at.tp);
  s.query_heads = {s.o.k.begin / config.head_dim, s.o.k.end / config.head_dim};
  if (!s.query_heads.empty()) {
    s.kv_heads = parallel::groups_touched(s.query_heads, group);
    // The owner of a KV head is the rank that holds its first query head.
    s.owned_kv_heads = {(s.query_heads.begin + group - 1) / group, s.kv_heads.end};
    for (int64_t h = s.query_heads.begin; h < s.query_heads.end; ++h)
      s.kv_head_of.push_back(static_cast<int32_t>(h / group - s.kv_heads.begin));
  }
  if (config.intermediate_size > 0)
    s.down = row_shard(arm, config.intermediate_size, numerics::down_unit(config.intermediate_size), layout.tp, at.tp);
  if (config.moe.num_experts > 0) {
    const int64_t k = config.moe.intermediate_size;
    s.expert = row_shard(arm, k, numerics::down_unit(k), layout.tp, at.tp);
    s.experts = parallel::experts_of(config.moe.num_experts, layout.ep, at.ep);
  }
  s.vocabulary = parallel::shard(config.vocab_size, layout.tp, at.tp);
  return s;
}

}  // namespace invar
