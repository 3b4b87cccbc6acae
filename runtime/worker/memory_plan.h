// How a rank's memory is shared out, worked out before anything is allocated: what does not fit is refused with the sum.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/model/decoder.h"
#include "runtime/worker/rank_options.h"

namespace invar {

// Bytes.
struct MemoryNeeds {
  int64_t weights = 0;
  int64_t activations = 0;  // of the largest step, logits and exchange buffers included
  int64_t rope = 0;
  int64_t page = 0;  // one KV page on the rank that needs most
  int64_t sum() const { return weights + activations + rope; }
};
MemoryNeeds memory_needs(const ModelConfig& config, const ModelShard& shard, const RankOptions& options);

// KV pages of a home. `budget`: bytes this rank may take of a GPU's memory; 0 = host memory, where pages take
// options.kv_cache_bytes (0 = 1 GiB or what can be used). InvalidArgument names flag, value and sum.
absl::StatusOr<KvSize> kv_size(const ModelConfig& config, const MemoryNeeds& needs, const RankOptions& options, int64_t budget);

}  // namespace invar
