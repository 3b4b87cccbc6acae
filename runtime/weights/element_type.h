// Element types of safetensors files and their way to bf16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/numerics.h"

namespace invar {

enum class ElementType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBf16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

std::optional<ElementType> parse_element_type(std::string_view name);  // "BF16", "F32", ...
std::string_view name(ElementType type);
int64_t bytes_of(ElementType type);
bool is_weight_type(ElementType type);  // BF16, F16, F32: what weights may be stored in

// out[i] = bf(in[i]), fp16 being widened exactly first. `in` need not be aligned; `type` is a weight type. Returns the index of
// the first element that is not finite as bf16 (NaN, infinity, or an fp32 that rounds to infinity), or -1.
int64_t to_bf16(ElementType type, const std::byte* in, int64_t count, numerics::Bf16* out);

// One element of a weight type for a message, bits and meaning: "0x7fc0 (NaN)".
std::string show_element(ElementType type, const std::byte* in);

}  // namespace invar
