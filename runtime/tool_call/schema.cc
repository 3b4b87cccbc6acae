#include "runtime/tool_call/schema.h"

#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace invar::tool_call {
namespace {

using Json = nlohmann::ordered_json;

Json parameters_of(const Json& function) {
  const auto found = function.find("parameters");
  if (found != function.end() && !found->is_null() && !(found->is_object() && found->empty())) return *found;
  return {{"type", "object"}, {"properties", Json::object()}};
}

// "#/..." in a schema that has moved to `place`. Values are no schemas, and names of properties are no keywords.
void move_references(Json& schema, const std::string& place) {
  static const std::set<std::string, std::less<>> kValues = {"const", "enum", "default", "examples", "required"};
  static const std::set<std::string, std::less<>> kNamed = {"properties", "patternProperties", "$defs", "definitions",
                                                            "dependentSchemas"};
  if (schema.is_array())
    for (Json& one : schema) move_references(one, place);
  if (!schema.is_object()) return;
  for (auto& [key, value] : schema.items()) {
    if (key == "$ref" && value.is_string() && value.get_ref<const std::string&>().starts_with("#")) {
      value = absl::StrCat(place, value.get<std::string>().substr(1));
    } else if (kNamed.contains(key) && value.is_object()) {
      for (auto& [name, one] : value.items()) move_references(one, place);
    } else if (!kValues.contains(key)) {
      move_references(value, place);
    }
  }
}

}  // namespace

std::string schema_of_arguments(const Json& function) { return parameters_of(function).dump(); }

std::string schema_of_calls(const std::vector<Json>& functions, bool parallel) {
  Json calls = Json::array(), defined = Json::object();
  for (size_t i = 0; i < functions.size(); ++i) {
    const std::string name = absl::StrCat("tool", i);
    Json parameters = parameters_of(functions[i]);
    move_references(parameters, "#/$defs/" + name);
    defined[name] = std::move(parameters);
    calls.push_back({{"type", "object"},
                     {"properties", {{"name", {{"const", functions[i]["name"]}}}, {"parameters", {{"$ref", "#/$defs/" + name}}}}},
                     {"required", {"name", "parameters"}},
                     {"additionalProperties", false}});
  }
  Json schema{{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", std::move(calls)}}}};
  if (!parallel) schema["maxItems"] = 1;
  schema["$defs"] = std::move(defined);
  return schema.dump();
}

}  // namespace invar::tool_call
