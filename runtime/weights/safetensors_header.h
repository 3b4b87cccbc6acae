// The JSON header of a safetensors file as untrusted input.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/weights/element_type.h"

namespace invar {

struct TensorRecord {
  std::string name;
  ElementType type = ElementType::kBf16;
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes from the start of the data, which follows the header
  int64_t end = 0;

  int64_t elements() const;
};

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the format's own limit
inline constexpr size_t kMaxTensorRank = 8;

// Records by name. Everything is checked against `data_bytes`, the bytes that follow the header: the tensors tile them without
// hole or overlap, each is as long as its shape and type say, names are unique. InvalidArgument names tensor, field and value.
absl::StatusOr<std::vector<TensorRecord>> parse_safetensors_header(std::string_view header, int64_t data_bytes);

}  // namespace invar
