// Text of an error from parts of any kind.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace invar {

// absl::StrCat, but std::string_view is taken too where the installed absl was built with a string_view of its own.
namespace message_parts {
template <class T>
const T& part(const T& value) {
  return value;
}
inline absl::string_view part(const std::string_view& text) { return absl::string_view(text.data(), text.size()); }
}  // namespace message_parts

template <class... Parts>
std::string message(const Parts&... parts) {
  return absl::StrCat(message_parts::part(parts)...);
}

}  // namespace invar
