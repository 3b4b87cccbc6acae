#include "runtime/grammar/json_pointer.h"

#include <charconv>

#include "absl/strings/str_replace.h"

namespace invar::grammar {
namespace {

// %41 -> A. Invalid ones stay.
std::string without_percent(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string below(std::string_view at, std::string_view step) {
  return std::string(at) + "/" + absl::StrReplaceAll(std::string(step), {{"~", "~0"}, {"/", "~1"}});
}

const nlohmann::ordered_json* resolve_pointer(const nlohmann::ordered_json& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  const std::string path = without_percent(reference.substr(1));
  const nlohmann::ordered_json* at = &root;
  for (size_t begin = 0; begin < path.size();) {
    if (path[begin] != '/') return nullptr;
    const size_t end = std::min(path.find('/', begin + 1), path.size());
    const std::string step = absl::StrReplaceAll(path.substr(begin + 1, end - begin - 1), {{"~1", "/"}, {"~0", "~"}});
    begin = end;
    if (at->is_object()) {
      const auto found = at->find(step);
      if (found == at->end()) return nullptr;
      at = &*found;
    } else if (at->is_array()) {
      size_t index = 0;
      const auto read = std::from_chars(step.data(), step.data() + step.size(), index);
      if (read.ec != std::errc() || read.ptr != step.data() + step.size() || index >= at->size()) return nullptr;
      at = &(*at)[index];
    } else {
      return nullptr;
    }
  }
  return at;
}

}  // namespace invar::grammar
