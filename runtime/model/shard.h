// What one rank holds of a model: pure arithmetic from config, layout and coordinates; no two ranks ever disagree about it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/row_tree.h"
#include "parallel/grid/grid.h"
#include "runtime/model_config/model_config.h"

namespace invar {

using parallel::Coordinates;
using parallel::Layout;
using parallel::Range;

// Segments of a row-parallel linear and the part of K that this rank holds.
struct RowShard {
  RowSegments segments;
  int first = 0;  // segments [first, last) are this rank's
  int last = 0;
  Range k;
  std::vector<TreeNode> nodes;  // what the rank ships
};

struct ModelShard {
  Layout layout;
  Coordinates at;
  Range layers;
  bool first_stage = false;  // embeds
  bool last_stage = false;   // holds the final norm and the head

  RowShard o;                       // K = query heads * head_dim
  RowShard down;                    // K = intermediate size of the dense MLP
  RowShard expert;                  // K = intermediate size of one expert; K = 0 in a dense model
  Range query_heads;                // the heads of o.k
  Range kv_heads;                   // those the query heads read; ranks may share one
  Range owned_kv_heads;             // each KV head has exactly one owner among the ranks: for traces
  std::vector<int32_t> kv_head_of;  // per local query head: local KV head
  Range vocabulary;                 // rows of embedding and head
  Range experts;

  static ModelShard make(const ModelConfig& config, const Layout& layout, const Coordinates& at,
                         ControlArm arm = ControlArm::kNone);
};

}  // namespace invar
