#include "runtime/model/step_cost.h"

#include <algorithm>
#include <cmath>

namespace invar {
namespace {

// Elements of all matrices but the embedding, with `experts` of each layer's experts.
double matrix_elements(const ModelConfig& c, double experts) {
  const double h = static_cast<double>(c.hidden_size), hd = static_cast<double>(c.head_dim);
  double n = static_cast<double>(c.vocab_size) * h;  // the head; of the embedding one row a token, not counted
  for (int64_t l = 0; l < c.num_layers; ++l) {
    n += 2 * h * hd * static_cast<double>(c.num_heads + c.num_kv_heads);
    if (c.moe_layer[l])
      n += h * (static_cast<double>(c.moe.num_experts) + 3 * experts * static_cast<double>(c.moe.intermediate_size));
    else
      n += 3 * h * static_cast<double>(c.intermediate_size);
  }
  return n;
}

}  // namespace

double step_weight_bytes(const ModelConfig& c, int64_t rows) {
  const double all = static_cast<double>(c.moe.num_experts), k = static_cast<double>(c.moe.top_k);
  return 2 * matrix_elements(c, all > 0 ? all * (1 - std::pow(1 - k / all, static_cast<double>(rows))) : 0);
}

double kv_bytes_per_token(const ModelConfig& c) { return 4.0 * static_cast<double>(c.num_layers * c.num_kv_heads * c.head_dim); }

double prefill_operations(const ModelConfig& c, int64_t rows) {
  const double n = static_cast<double>(rows), head = static_cast<double>(c.vocab_size * c.hidden_size);
  const double linears = (matrix_elements(c, static_cast<double>(c.moe.top_k)) - head) * n + head;
  double keys = 0;  // seen by all rows of a layer's query heads
  for (int64_t l = 0; l < c.num_layers; ++l)
    for (int64_t r = 0; r < rows; ++r) keys += static_cast<double>(c.window_of(l) > 0 ? std::min(r + 1, c.window_of(l)) : r + 1);
  return 2 * linears + 4 * keys * static_cast<double>(c.num_heads * c.head_dim);
}

}  // namespace invar
