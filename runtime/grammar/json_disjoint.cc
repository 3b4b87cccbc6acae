#include "runtime/grammar/json_disjoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/grammar/json_pointer.h"

namespace invar::grammar {
namespace {

using Json = nlohmann::ordered_json;

// References are followed this far; behind it a schema counts as anything.
constexpr int kDeepest = 16;

enum Types : unsigned { kNull = 1, kBoolean = 2, kNumber = 4, kString = 8, kArray = 16, kObject = 32, kAll = 63 };

unsigned type_of(const Json& v) {
  if (v.is_null()) return kNull;
  if (v.is_boolean()) return kBoolean;
  if (v.is_number()) return kNumber;
  if (v.is_string()) return kString;
  return v.is_array() ? kArray : kObject;
}

unsigned type_named(const Json& name) {
  static const std::map<std::string, unsigned> types = {{"null", kNull},      {"boolean", kBoolean}, {"number", kNumber},
                                                        {"integer", kNumber}, {"string", kString},   {"array", kArray},
                                                        {"object", kObject}};
  const auto found = name.is_string() ? types.find(name.get<std::string>()) : types.end();
  return found == types.end() ? unsigned{kAll} : found->second;
}

const Json* followed(const Json& root, const Json& s, int& depth) {
  const Json* at = &s;
  while (at && at->is_object() && at->contains("$ref") && (*at)["$ref"].is_string()) {
    if (++depth > kDeepest) return nullptr;
    at = resolve_pointer(root, (*at)["$ref"].get<std::string>());
  }
  return at && at->is_object() ? at : nullptr;
}

unsigned types_of(const Json& root, const Json& s, int depth) {
  const Json* at = followed(root, s, depth);
  if (!at || ++depth > kDeepest) return kAll;
  unsigned types = 0;
  if (at->contains("const")) return type_of((*at)["const"]);
  if (at->contains("enum") && (*at)["enum"].is_array()) {
    for (const Json& v : (*at)["enum"]) types |= type_of(v);
    return types;
  }
  for (const char* word : {"anyOf", "oneOf", "allOf"}) {
    if (!at->contains(word) || !(*at)[word].is_array()) continue;
    for (const Json& part : (*at)[word]) types |= types_of(root, part, depth);
    return types;
  }
  if (at->contains("type")) {
    const Json& type = (*at)["type"];
    if (!type.is_array()) return type_named(type);
    for (const Json& t : type) types |= type_named(t);
    return types;
  }
  // Without a type a property or an item may be asked for of a value of another type: that is meant by nobody, and the network
  // takes only the type that the keywords belong to.
  if (at->contains("properties") || at->contains("required") || at->contains("additionalProperties")) types |= kObject;
  if (at->contains("items") || at->contains("prefixItems") || at->contains("minItems") || at->contains("maxItems"))
    types |= kArray;
  for (const char* word : {"minLength", "maxLength", "pattern", "format"})
    if (at->contains(word)) types |= kString;
  for (const char* word : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
    if (at->contains(word)) types |= kNumber;
  return types ? types : unsigned{kAll};
}

// All values that satisfy it, if they are listed.
std::optional<std::vector<Json>> values_of(const Json& root, const Json& s) {
  int depth = 0;
  const Json* at = followed(root, s, depth);
  if (!at) return std::nullopt;
  if (at->contains("const")) return std::vector<Json>{(*at)["const"]};
  if (!at->contains("enum") || !(*at)["enum"].is_array()) return std::nullopt;
  return std::vector<Json>((*at)["enum"].begin(), (*at)["enum"].end());
}

bool no_common_value(const Json& root, const Json& a, const Json& b) {
  const auto in_a = values_of(root, a), in_b = values_of(root, b);
  if (!in_a || !in_b) return false;
  // Order of keys does not matter for equality of values: compare as objects without order.
  return std::none_of(in_a->begin(), in_a->end(), [&](const Json& v) {
    return std::any_of(in_b->begin(), in_b->end(), [&](const Json& w) { return nlohmann::json(v) == nlohmann::json(w); });
  });
}

bool requires_property(const Json& s, const std::string& name) {
  if (!s.contains("required") || !s["required"].is_array()) return false;
  return std::any_of(s["required"].begin(), s["required"].end(), [&](const Json& v) { return v == Json(name); });
}

}  // namespace

bool disjoint_schemas(const Json& root, const Json& a, const Json& b) {
  const unsigned common = types_of(root, a, 0) & types_of(root, b, 0);
  if (common == 0 || no_common_value(root, a, b)) return true;
  if (common != kObject) return false;
  int depth = 0;
  const Json* left = followed(root, a, depth);
  const Json* right = followed(root, b, depth);
  if (!left || !right || !left->contains("properties") || !right->contains("properties")) return false;
  const Json &in_left = (*left)["properties"], &in_right = (*right)["properties"];
  if (!in_left.is_object() || !in_right.is_object()) return false;
  for (const auto& [name, schema] : in_left.items()) {
    const auto other = in_right.find(name);
    if (other == in_right.end() || !requires_property(*left, name) || !requires_property(*right, name)) continue;
    if (types_of(root, schema, 0) & types_of(root, *other, 0) ? no_common_value(root, schema, *other) : true) return true;
  }
  return false;
}

}  // namespace invar::grammar
