#include "runtime/worker/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::string gib(int64_t bytes) { return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (int64_t{1} << 30)); }

}  // namespace

MemoryNeeds memory_needs(const ModelConfig& c, const ModelShard& s, const RankOptions& o) {
  const int64_t rows = o.max_num_batched_tokens, hidden = c.hidden_size, bf16 = 2;
  const int64_t attention = s.o.k.size() + 2 * s.kv_heads.size() * c.head_dim + s.o.k.size();
  const int64_t mlp = 3 * s.down.k.size();
  // Expert rows travel: a step in which every token takes this rank's experts is legal.
  const int64_t routed = c.moe.num_experts > 0 ? rows * c.moe.top_k * s.layout.ep : 0;
  const int64_t partials =
      std::max({static_cast<int64_t>(s.o.nodes.size()) * rows, static_cast<int64_t>(s.down.nodes.size()) * rows,
                static_cast<int64_t>(s.expert.nodes.size()) * routed}) *
      hidden * 4;
  MemoryNeeds n;
  n.weights = rank_weight_elements(c, s) * bf16;
  n.activations = rows * (4 * hidden + attention + mlp) * bf16 + partials * 2 +
                  routed * (3 * hidden + 3 * s.expert.k.size()) * bf16 +
                  kLogitsBlock * c.vocab_size * 4 * (s.layout.tp > 1 ? 3 : 1);
  const bool may_share =
      o.device.backend == Backend::kCuda && s.layout.tp > 1 && (o.exchange == Exchange::kAuto || o.exchange == Exchange::kPeer);
  if (may_share) n.activations += static_cast<int64_t>(parallel::peer_window_bytes(peer_sizes(c, rows)));
  const int64_t length = o.max_model_len > 0 ? o.max_model_len : c.max_position_embeddings;
  n.rope = length * c.head_dim * 4;
  n.page = kv_page_bytes(c, o.layout, o.page_size);
  return n;
}

absl::StatusOr<KvSize> kv_size(const ModelConfig& config, const MemoryNeeds& needs, const RankOptions& o, int64_t budget) {
  if (o.page_size < 16 || o.page_size % 16 != 0)
    return absl::InvalidArgumentError(absl::StrCat("--block-size ", o.page_size, ": must be a positive multiple of 16"));
  const int64_t length = o.max_model_len > 0 ? o.max_model_len : config.max_position_embeddings;
  const int64_t useful = o.max_num_seqs * ceil_div(length, o.page_size), page = std::max<int64_t>(needs.page, 1);
  KvSize kv{o.pages, o.page_size};
  const std::string asked = o.pages != 0 ? absl::StrCat("--num-gpu-blocks-override ", o.pages)
                                         : absl::StrCat("--kv-cache-memory-bytes ", o.kv_cache_bytes);
  if (budget > 0) {
    const int64_t left = budget - needs.sum();
    const std::string sum =
        absl::StrCat(gib(budget), " (--gpu-memory-utilization ", o.gpu_memory_utilization,
                     ") of GPU memory: ", gib(needs.weights), " weights + ", gib(needs.activations), " activations of ",
                     o.max_num_batched_tokens, " tokens + ", gib(needs.rope), " position tables");
    if (left < page)
      return absl::InvalidArgumentError(absl::StrCat(sum,
                                                     " leave no room for keys and values; use more ranks, a smaller "
                                                     "--max-num-batched-tokens or a larger --gpu-memory-utilization"));
    const int64_t wanted = kv.pages > 0 ? kv.pages * page : o.kv_cache_bytes;
    if (wanted > left)
      return absl::InvalidArgumentError(absl::StrCat(asked, " (", gib(wanted), " of KV pages): ", sum, " leave ", gib(left)));
    if (kv.pages == 0) kv.pages = std::min((o.kv_cache_bytes > 0 ? o.kv_cache_bytes : left) / page, useful);
  } else if (kv.pages == 0) {
    kv.pages = std::min((o.kv_cache_bytes > 0 ? o.kv_cache_bytes : int64_t{1} << 30) / page, useful);
  }
  if (kv.pages < 1)
    return absl::InvalidArgumentError(
        absl::StrCat(asked, ": not one page of ", o.page_size, " tokens fits; a page takes ", needs.page, " bytes on a rank"));
  if (kv.pages > INT32_MAX / o.page_size) {
    if (o.pages > 0)
      return absl::InvalidArgumentError(absl::StrCat("--num-gpu-blocks-override ", kv.pages, ": more than ",
                                                     INT32_MAX / o.page_size, " pages of ", o.page_size, " tokens"));
    kv.pages = INT32_MAX / o.page_size;
  }
  return kv;
}

}  // namespace invar
