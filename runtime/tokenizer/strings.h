// Strings with std::string_view. Debian builds Abseil with a string_view of its own, which does not mix with the standard one.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace invar::tokenizer {

namespace strings_internal {
template <typename T>
void append(std::string& out, const T& part) {
  if constexpr (std::is_arithmetic_v<T>) {
    out += std::to_string(part);
  } else if constexpr (std::is_same_v<T, absl::string_view>) {
    out.append(part.data(), part.size());
  } else {
    out += std::string_view(part);
  }
}
}  // namespace strings_internal

// The parts one after the other; numbers in decimal.
template <typename... T>
std::string concat(const T&... parts) {
  std::string out;
  (strings_internal::append(out, parts), ...);
  return out;
}

// `text` with every `from` (not empty), left to right, replaced.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

// Lets maps keyed by std::string be searched with a std::string_view.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return absl::Hash<std::string_view>{}(text); }
};

}  // namespace invar::tokenizer
