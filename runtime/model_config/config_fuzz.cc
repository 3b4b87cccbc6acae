#include "runtime/model_config/config_fuzz.h"

#include <cstdint>
#include <cstdlib>

#include "runtime/model_config/weight_names.h"

namespace invar {
namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

bool fuzz_config(std::string_view all) {
  const size_t cut = all.find('\0');
  const std::string_view generation = cut == std::string_view::npos ? std::string_view() : all.substr(cut + 1);
  const absl::StatusOr<ModelConfig> config = parse_model_config(all.substr(0, cut), generation);
  if (!config.ok()) {
    require(!config.status().message().empty());
    return false;
  }
  const ModelConfig& c = *config;
  require(c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads == 0 && c.head_dim > 0 && c.head_dim % 8 == 0);
  require(c.rms_norm_eps > 0 && c.rope_theta > 1 && c.rope.factor >= 1);
  require(static_cast<int64_t>(c.sliding_layers.size()) == c.num_layers &&
          static_cast<int64_t>(c.moe_layer.size()) == c.num_layers);
  require(c.moe.num_experts == 0 || (c.moe.top_k >= 1 && c.moe.top_k <= c.moe.num_experts && c.moe.intermediate_size > 0));
  for (const int32_t id : c.eos_token_ids) require(id >= 0 && id < c.vocab_size);
  if (c.num_layers * (c.moe.num_experts + 1) > 4096) return true;  // valid, but slow to list
  int64_t elements = 0;
  for (const ExpectedTensor& tensor : expected_tensors(c)) {
    int64_t count = 1;
    for (const int64_t dim : tensor.shape) {
      require(dim > 0);
      require(!__builtin_mul_overflow(count, dim, &count));
    }
    require(!__builtin_add_overflow(elements, count, &elements));
  }
  return true;
}

}  // namespace invar

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  invar::fuzz_config(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
