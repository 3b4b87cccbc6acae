// libFuzzer entry over safetensors headers: whatever is accepted must tile its data. Also driven by safetensors_mutation_test.cc,
// so a build without clang runs it too.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "runtime/weights/safetensors_header.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

// Two bytes of data length, then the header. Returns 0 for accepted, -1 for refused (libFuzzer: do not keep in the corpus).
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return -1;
  const int64_t data_bytes = data[0] | data[1] << 8;
  const std::string_view header(reinterpret_cast<const char*>(data + 2), size - 2);
  const absl::StatusOr<std::vector<invar::TensorRecord>> records = invar::parse_safetensors_header(header, data_bytes);
  if (!records.ok()) {
    require(!records.status().message().empty() && records.status().message().size() < 1000);
    return -1;
  }
  std::vector<int> owners(data_bytes, 0);
  for (size_t i = 0; i < records->size(); ++i) {
    const invar::TensorRecord& r = (*records)[i];
    require(r.begin >= 0 && r.begin <= r.end && r.end <= data_bytes && r.shape.size() <= invar::kMaxTensorRank);
    int64_t elements = 1;
    for (const int64_t dim : r.shape) require(dim >= 0 && !__builtin_mul_overflow(elements, dim, &elements));
    require(elements == r.elements() && elements * bytes_of(r.type) == r.end - r.begin);
    for (int64_t b = r.begin; b < r.end; ++b) ++owners[b];
    require(i == 0 || (*records)[i - 1].name < r.name);
  }
  require(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
  return 0;
}
