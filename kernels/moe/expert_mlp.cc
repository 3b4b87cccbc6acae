#include "kernels/moe/expert_mlp.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/activation/activation.h"

namespace invar {

void expert_mlp(const Device& device, const ExpertMlp& problem) {
  const auto experts = static_cast<int64_t>(problem.experts.size());
  const int64_t rows = experts ? problem.offsets[experts] : 0;
  int64_t largest = 0, widest = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t group = problem.offsets[e + 1] - problem.offsets[e];
    if (group) largest = std::max(largest, group), widest = std::max(widest, problem.experts[e]->down.inputs());
  }
  // No node: this rank holds none of the intermediate width and has nothing to add.
  if (!largest || problem.nodes.empty()) return;
  const auto nodes = static_cast<int64_t>(problem.nodes.size());
  const auto both = std::make_unique_for_overwrite<Bf16[]>(largest * widest * 2);
  const auto hidden_rows = std::make_unique_for_overwrite<Bf16[]>(largest * widest);
  // linear_row leaves the nodes of one group one behind the other; partials wants each node's rows of all groups together.
  const auto group_partials = nodes > 1 ? std::make_unique_for_overwrite<float[]>(nodes * largest * problem.hidden) : nullptr;

  for (int64_t e = 0; e < experts; ++e) {
    const int64_t first_row = problem.offsets[e], group = problem.offsets[e + 1] - first_row;
    if (!group) continue;
    const ExpertWeights& weights = *problem.experts[e];
    const int64_t width = weights.down.inputs();
    linear_column(device, {.rows = group,
                           .x = problem.x + first_row * problem.hidden,
                           .x_stride = problem.hidden,
                           .weights = &weights.gate_up,
                           .y = both.get(),
                           .y_stride = 2 * width});
    silu_mul(device,
             {.rows = group, .width = width, .x = both.get(), .x_stride = 2 * width, .y = hidden_rows.get(), .y_stride = width});
    float* partials = group_partials ? group_partials.get() : problem.partials + first_row * problem.hidden;
    linear_row(device, {.rows = group,
                        .x = hidden_rows.get(),
                        .x_stride = width,
                        .weights = &weights.down,
                        .segments = problem.segments,
                        .first = problem.first,
                        .last = problem.last,
                        .nodes = problem.nodes,
                        .partials = partials});
    if (group_partials)
      for (int64_t i = 0; i < nodes; ++i)
        std::memcpy(problem.partials + (i * rows + first_row) * problem.hidden, partials + i * group * problem.hidden,
                    group * problem.hidden * sizeof(float));
  }
}

}  // namespace invar
