#include "runtime/weights/element_type.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace invar {
namespace {

struct TypeInfo {
  std::string_view name;
  int64_t bytes;
};
// By ElementType.
constexpr std::array<TypeInfo, 16> kTypes = {{{"BOOL", 1},
                                              {"U8", 1},
                                              {"I8", 1},
                                              {"F8_E5M2", 1},
                                              {"F8_E4M3", 1},
                                              {"F8_E8M0", 1},
                                              {"I16", 2},
                                              {"U16", 2},
                                              {"F16", 2},
                                              {"BF16", 2},
                                              {"I32", 4},
                                              {"U32", 4},
                                              {"F32", 4},
                                              {"I64", 8},
                                              {"U64", 8},
                                              {"F64", 8}}};

template <class Word>
Word load(const std::byte* in, int64_t i) {
  Word word;
  std::memcpy(&word, in + i * sizeof(Word), sizeof(Word));
  return word;
}

// Exact, subnormals too: the exponent field moves down by 112 and one exact multiplication puts it right. Infinity and NaN come
// out as large numbers, so callers look at the fp16 exponent.
float widen_finite_fp16(uint16_t h) {
  const float magnitude = numerics::mul(numerics::bits_float(uint32_t{h & 0x7fffu} << 13), 0x1p112f);
  return numerics::bits_float(numerics::float_bits(magnitude) | (uint32_t{h & 0x8000u} << 16));
}

float widen(ElementType type, const std::byte* in) {
  switch (type) {
    case ElementType::kBf16:
      return numerics::widen(numerics::Bf16{load<uint16_t>(in, 0)});
    case ElementType::kF16:
      return widen_finite_fp16(load<uint16_t>(in, 0));
    default:
      return numerics::bits_float(load<uint32_t>(in, 0));
  }
}

bool is_finite(ElementType type, const std::byte* in) {
  if (type == ElementType::kF16) return (load<uint16_t>(in, 0) & 0x7c00) != 0x7c00;
  return (numerics::bf(widen(type, in)).bits & 0x7f80) != 0x7f80;
}

}  // namespace

std::optional<ElementType> parse_element_type(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<ElementType>(i);
  }
  return std::nullopt;
}
std::string_view name(ElementType type) { return kTypes[static_cast<size_t>(type)].name; }
int64_t bytes_of(ElementType type) { return kTypes[static_cast<size_t>(type)].bytes; }
bool is_weight_type(ElementType type) {
  return type == ElementType::kBf16 || type == ElementType::kF16 || type == ElementType::kF32;
}

int64_t to_bf16(ElementType type, const std::byte* in, int64_t count, numerics::Bf16* out) {
  // The loops only collect whether anything is wrong, so that they vectorise; who it was is asked afterwards.
  uint32_t bad = 0;
  switch (type) {
    case ElementType::kBf16:
      for (int64_t i = 0; i < count; ++i) {
        const uint16_t bits = load<uint16_t>(in, i);
        bad |= (bits & 0x7f80u) == 0x7f80u;
        out[i] = numerics::Bf16{bits};
      }
      break;
    case ElementType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        const uint16_t bits = load<uint16_t>(in, i);
        bad |= (bits & 0x7c00u) == 0x7c00u;
        out[i] = numerics::bf(widen_finite_fp16(bits));
      }
      break;
    default:
      for (int64_t i = 0; i < count; ++i) {
        // numerics::bf without its branch for NaN, which would keep the loop scalar; a NaN is an error anyway.
        const uint32_t u = load<uint32_t>(in, i);
        const uint16_t bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
        bad |= ((u & 0x7f800000u) == 0x7f800000u) | ((bits & 0x7f80u) == 0x7f80u);
        out[i] = numerics::Bf16{bits};
      }
  }
  if (!bad) return -1;
  int64_t first = 0;
  while (is_finite(type, in + first * bytes_of(type))) ++first;
  return first;
}

std::string show_element(ElementType type, const std::byte* in) {
  char text[64];
  const bool half = type != ElementType::kF32;
  const uint32_t bits = half ? load<uint16_t>(in, 0) : load<uint32_t>(in, 0);
  float value = widen(type, in);
  if (type == ElementType::kF16 && (bits & 0x7c00) == 0x7c00) value = bits & 0x3ff ? NAN : (bits & 0x8000 ? -INFINITY : INFINITY);
  if (std::isnan(value)) {
    std::snprintf(text, sizeof(text), "0x%0*x (NaN)", half ? 4 : 8, bits);
  } else if (std::isinf(value)) {
    std::snprintf(text, sizeof(text), "0x%0*x (%sinfinity)", half ? 4 : 8, bits, value < 0 ? "-" : "");
  } else {
    std::snprintf(text, sizeof(text), "0x%0*x (%g)", half ? 4 : 8, bits, static_cast<double>(value));
  }
  return text;
}

}  // namespace invar
