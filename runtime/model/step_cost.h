// What a step must at least move and compute: the floors that benches compare with.
#pragma once

#include <cstdint>

#include "runtime/model_config/model_config.h"

namespace invar {

// Bytes of weights that a decode step of `rows` rows reads: each dense matrix once, of the experts as many as that many rows are
// expected to touch when every expert is as likely.
double step_weight_bytes(const ModelConfig& config, int64_t rows);
double kv_bytes_per_token(const ModelConfig& config);
// Operations of a prefill of `rows` tokens from position 0, the logits of the last row included.
double prefill_operations(const ModelConfig& config, int64_t rows);

}  // namespace invar
