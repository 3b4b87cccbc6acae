// libFuzzer entry over config.json and generation_config.json: whatever is accepted must be usable. Also driven by
// config_mutation_test.cc, so a build without clang runs it too.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/model_config/weight_names.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

// The two documents are parted by a zero byte. Returns 0 for accepted, -1 for refused (libFuzzer: do not keep in the corpus).
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = all.find('\0');
  const std::string_view generation = cut == std::string_view::npos ? std::string_view() : all.substr(cut + 1);
  const absl::StatusOr<invar::ModelConfig> config = invar::parse_model_config(all.substr(0, cut), generation);
  if (!config.ok()) {
    require(!config.status().message().empty());
    return -1;
  }
  const invar::ModelConfig& c = *config;
  require(c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads == 0 && c.head_dim > 0 && c.head_dim % 8 == 0);
  require(c.rms_norm_eps > 0 && c.rope_theta > 1 && c.rope.factor >= 1);
  require(static_cast<int64_t>(c.sliding_layers.size()) == c.num_layers && static_cast<int64_t>(c.moe_layer.size()) == c.num_layers);
  require(c.moe.num_experts == 0 || (c.moe.top_k >= 1 && c.moe.top_k <= c.moe.num_experts && c.moe.intermediate_size > 0));
  for (const int32_t id : c.eos_token_ids) require(id >= 0 && id < c.vocab_size);
  if (c.num_layers * (c.moe.num_experts + 1) > 4096) return 0;  // valid, but slow to list
  int64_t elements = 0;
  for (const invar::ExpectedTensor& tensor : expected_tensors(c)) {
    int64_t count = 1;
    for (const int64_t dim : tensor.shape) {
      require(dim > 0);
      require(!__builtin_mul_overflow(count, dim, &count));
    }
    require(!__builtin_add_overflow(elements, count, &elements));
  }
  return 0;
}
