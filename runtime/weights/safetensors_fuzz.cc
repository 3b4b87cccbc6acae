#include "runtime/weights/safetensors_fuzz.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "runtime/weights/safetensors_header.h"

namespace invar {
namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

bool fuzz_safetensors_header(std::string_view text) {
  if (text.size() < 2) return false;
  const int64_t data_bytes = static_cast<uint8_t>(text[0]) | static_cast<uint8_t>(text[1]) << 8;
  const std::string_view header = text.substr(2);
  const absl::StatusOr<std::vector<TensorRecord>> records = parse_safetensors_header(header, data_bytes);
  if (!records.ok()) {
    require(!records.status().message().empty() && records.status().message().size() < 1000);
    return false;
  }
  std::vector<int> owners(data_bytes, 0);
  for (size_t i = 0; i < records->size(); ++i) {
    const TensorRecord& r = (*records)[i];
    require(r.begin >= 0 && r.begin <= r.end && r.end <= data_bytes && r.shape.size() <= kMaxTensorRank);
    int64_t elements = 1;
    for (const int64_t dim : r.shape) require(dim >= 0 && !__builtin_mul_overflow(elements, dim, &elements));
    require(elements == r.elements() && elements * bytes_of(r.type) == r.end - r.begin);
    for (int64_t b = r.begin; b < r.end; ++b) ++owners[b];
    require(i == 0 || (*records)[i - 1].name < r.name);
  }
  require(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
  return true;
}

}  // namespace invar

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  invar::fuzz_safetensors_header(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
