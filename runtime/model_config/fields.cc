#include "runtime/model_config/fields.h"

#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"

namespace invar {

Fields::Fields(const nlohmann::json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (object_.is_object()) return;
  std::string_view whole = path_;
  if (!whole.empty()) whole.remove_suffix(1);  // the dot
  status_ = absl::InvalidArgumentError(
      message(whole.empty() ? "the document" : whole, " is ", show_json(object_), "; it must be an object"));
}

void Fields::fold(const absl::Status& other) {
  if (status_.ok()) status_ = other;
}

void Fields::invalid(std::string_view name, std::string_view why) {
  const nlohmann::json* value = find(name);
  fold(absl::InvalidArgumentError(message(path_, name, " is ", value ? show_json(*value) : "not given", "; ", why)));
}

void Fields::unsupported(std::string_view name, std::string_view why) {
  const nlohmann::json* value = find(name);
  fold(absl::UnimplementedError(message(path_, name, " is ", value ? show_json(*value) : "not given", "; ", why)));
}

void Fields::missing(std::string_view name) {
  fold(absl::InvalidArgumentError(message(path_, name, contains(name) ? " is null" : " is missing", "; it must be given")));
}

bool Fields::contains(std::string_view name) const { return object_.is_object() && object_.contains(std::string(name)); }

const nlohmann::json* Fields::find(std::string_view name) const {
  if (!contains(name)) return nullptr;
  const nlohmann::json& value = object_.at(std::string(name));
  return value.is_null() ? nullptr : &value;
}

bool Fields::given(std::string_view name) const { return find(name) != nullptr; }

std::optional<int64_t> Fields::as_integer(std::string_view name, const nlohmann::json& value, int64_t low, int64_t high) {
  const bool fits =
      value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX));
  if (fits) {
    const int64_t n = value.get<int64_t>();
    if (n >= low && n <= high) return n;
  }
  invalid(name, message("it must be an integer in [", low, ", ", high, "]"));
  return std::nullopt;
}

std::optional<int64_t> Fields::optional_integer(std::string_view name, int64_t low, int64_t high) {
  const nlohmann::json* value = find(name);
  return value ? as_integer(name, *value, low, high) : std::nullopt;
}

int64_t Fields::integer(std::string_view name, int64_t low, int64_t high) {
  if (!given(name)) missing(name);
  return optional_integer(name, low, high).value_or(low);
}

std::optional<double> Fields::optional_number(std::string_view name, double low, double high) {
  const nlohmann::json* value = find(name);
  if (!value) return std::nullopt;
  if (value->is_number()) {
    const double x = value->get<double>();
    if (x >= low && x <= high) return x;  // false for NaN
  }
  invalid(name, message("it must be a number in [", low, ", ", high, "]"));
  return std::nullopt;
}

double Fields::number(std::string_view name, double low, double high) {
  if (!given(name)) missing(name);
  return optional_number(name, low, high).value_or(low);
}

std::optional<bool> Fields::optional_boolean(std::string_view name) {
  const nlohmann::json* value = find(name);
  if (!value) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  invalid(name, "it must be true or false");
  return std::nullopt;
}

bool Fields::boolean_or(std::string_view name, bool fallback) { return optional_boolean(name).value_or(fallback); }

std::string Fields::string_or(std::string_view name, std::string_view fallback) {
  const nlohmann::json* value = find(name);
  if (!value) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  invalid(name, "it must be a string");
  return std::string(fallback);
}

std::vector<int64_t> Fields::integers(std::string_view name, int64_t low, int64_t high) {
  std::vector<int64_t> result;
  const nlohmann::json* value = find(name);
  if (!value) return result;
  if (!value->is_array()) {
    invalid(name, "it must be a list of integers");
    return result;
  }
  for (const nlohmann::json& item : *value) {
    const std::optional<int64_t> n = as_integer(name, item, low, high);
    if (!n) return {};
    result.push_back(*n);
  }
  return result;
}

std::vector<std::string> Fields::strings(std::string_view name) {
  std::vector<std::string> result;
  const nlohmann::json* value = find(name);
  if (!value) return result;
  bool ok = value->is_array();
  for (size_t i = 0; ok && i < value->size(); ++i) {
    ok = (*value)[i].is_string();
    if (ok) result.push_back((*value)[i].get<std::string>());
  }
  if (!ok) {
    invalid(name, "it must be a list of strings");
    return {};
  }
  return result;
}

}  // namespace invar
