// For tests: does a value satisfy a schema? Written for the keywords that runtime/grammar supports and from the standard alone;
// it shares no code with the compiler.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cmath>
#include <string>

#include "nlohmann/json.hpp"

namespace invar::grammar {

using CheckedJson = nlohmann::ordered_json;

inline bool pattern_found(const std::string& pattern, const std::string& text) {
  int error;
  size_t offset;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_DOLLAR_ENDONLY,
                                   &error, &offset, nullptr);
  if (!code) return false;
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code, nullptr);
  const int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data, nullptr);
  pcre2_match_data_free(data);
  pcre2_code_free(code);
  return rc >= 0;
}

inline int64_t characters_of(const std::string& text) {
  int64_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return n;
}

inline bool satisfies(const CheckedJson& root, const CheckedJson& s, const CheckedJson& v) {
  if (s.is_boolean()) return s.get<bool>();
  const auto each = [&](const char* word, auto f) { return !s.contains(word) || f(s[word]); };
  if (s.contains("$ref")) {
    const std::string ref = s["$ref"];
    if (!satisfies(root, root.at(CheckedJson::json_pointer(ref.substr(1))), v)) return false;
  }
  const auto equal = [](const CheckedJson& a, const CheckedJson& b) { return nlohmann::json(a) == nlohmann::json(b); };
  const auto is = [&](const std::string& type) {
    if (type == "integer")
      return v.is_number_integer() || (v.is_number_float() && v.get<double>() == std::floor(v.get<double>()));
    return type == std::string(v.type_name());
  };
  if (!each("type", [&](const auto& t) {
        if (t.is_string()) return is(t.template get<std::string>());
        return std::any_of(t.begin(), t.end(), [&](const auto& one) { return is(one.template get<std::string>()); });
      }))
    return false;
  if (!each("const", [&](const auto& c) { return equal(c, v); })) return false;
  if (!each("enum",
            [&](const auto& list) { return std::any_of(list.begin(), list.end(), [&](const auto& c) { return equal(c, v); }); }))
    return false;
  const auto count = [&](const char* word) {
    int64_t n = 0;
    for (const auto& part : s[word]) n += satisfies(root, part, v);
    return n;
  };
  if (s.contains("anyOf") && count("anyOf") == 0) return false;
  if (s.contains("oneOf") && count("oneOf") != 1) return false;
  if (s.contains("allOf") && count("allOf") != static_cast<int64_t>(s["allOf"].size())) return false;
  if (v.is_number()) {
    const double x = v.get<double>();
    if (!each("minimum", [&](const auto& b) { return x >= b.template get<double>(); })) return false;
    if (!each("maximum", [&](const auto& b) { return x <= b.template get<double>(); })) return false;
    if (!each("exclusiveMinimum", [&](const auto& b) { return x > b.template get<double>(); })) return false;
    if (!each("exclusiveMaximum", [&](const auto& b) { return x < b.template get<double>(); })) return false;
  }
  if (v.is_string()) {
    const std::string text = v;
    if (!each("minLength", [&](const auto& n) { return characters_of(text) >= n.template get<int64_t>(); })) return false;
    if (!each("maxLength", [&](const auto& n) { return characters_of(text) <= n.template get<int64_t>(); })) return false;
    if (!each("pattern", [&](const auto& p) { return pattern_found(p, text); })) return false;
  }
  if (v.is_array()) {
    const auto size = static_cast<int64_t>(v.size());
    if (!each("minItems", [&](const auto& n) { return size >= n.template get<int64_t>(); })) return false;
    if (!each("maxItems", [&](const auto& n) { return size <= n.template get<int64_t>(); })) return false;
    const size_t listed = s.contains("prefixItems") ? s["prefixItems"].size() : 0;
    for (size_t i = 0; i < v.size(); ++i) {
      if (i < listed && !satisfies(root, s["prefixItems"][i], v[i])) return false;
      if (i >= listed && s.contains("items") && !satisfies(root, s["items"], v[i])) return false;
    }
  }
  if (v.is_object()) {
    if (!each("required", [&](const auto& names) {
          return std::all_of(names.begin(), names.end(),
                             [&](const auto& n) { return v.contains(n.template get<std::string>()); });
        }))
      return false;
    for (const auto& [name, value] : v.items()) {
      if (s.contains("properties") && s["properties"].contains(name)) {
        if (!satisfies(root, s["properties"][name], value)) return false;
      } else if (s.contains("additionalProperties") && !satisfies(root, s["additionalProperties"], value)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace invar::grammar
