#include "runtime/tokenizer/fields.h"

#include <algorithm>

#include "runtime/tokenizer/strings.h"

namespace invar::tokenizer {
namespace {

using nlohmann::json;

const json kNull;

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 120) text = text.substr(0, 120) + "...";
  return text;
}

}  // namespace

const json* Fields::find(std::string_view key) const {
  if (!value_->is_object()) return nullptr;
  const auto found = value_->find(std::string(key));
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

std::string Fields::name(std::string_view key) const {
  if (key.empty()) return path_;
  return path_.empty() ? std::string(key) : concat(path_, ".", key);
}

void Fields::fail(std::string_view key, std::string_view message) const {
  if (error_->ok()) *error_ = absl::InvalidArgumentError(concat("tokenizer.json: ", name(key), ": ", message));
}

void Fields::unsupported(std::string_view key, std::string_view why) const {
  if (!error_->ok()) return;
  const json* value = key.empty() ? value_ : find(key);
  *error_ = absl::UnimplementedError(concat("tokenizer.json: ", name(key), ": ", shown(value ? *value : kNull),
                                            " is not supported", why.empty() ? "" : ": ", why));
}

void Fields::only(std::initializer_list<std::string_view> keys) const {
  if (!value_->is_object()) return fail("", concat(shown(*value_), " is not an object"));
  for (const auto& [key, value] : value_->items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end() && !value.is_null()) return unsupported(key);
  }
}

bool Fields::present(std::string_view key) const { return find(key) != nullptr; }

std::string Fields::text(std::string_view key, std::optional<std::string> fallback) const {
  const json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_string()) {
    fail(key, value ? concat(shown(*value), " is not a string") : "is missing");
    return {};
  }
  return value->get<std::string>();
}

bool Fields::flag(std::string_view key, std::optional<bool> fallback) const {
  const json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_boolean()) {
    fail(key, value ? concat(shown(*value), " is not true or false") : "is missing");
    return false;
  }
  return value->get<bool>();
}

int64_t Fields::integer(std::string_view key, int64_t low, int64_t high) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_number_integer()) {
    fail(key, value ? concat(shown(*value), " is not an integer") : "is missing");
    return low;
  }
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    fail(key, concat(shown(*value), " is not between ", low, " and ", high));
    return low;
  }
  return value->get<int64_t>();
}

Fields Fields::child(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  return Fields(value ? *value : kNull, name(key), *error_);
}

std::vector<Fields> Fields::list(std::string_view key) const {
  std::vector<Fields> items;
  const json* value = find(key);
  if (value == nullptr || !value->is_array()) {
    fail(key, value ? concat(shown(*value), " is not a list") : "is missing");
    return items;
  }
  items.reserve(value->size());
  for (size_t i = 0; i < value->size(); ++i) items.emplace_back((*value)[i], concat(name(key), "[", i, "]"), *error_);
  return items;
}

}  // namespace invar::tokenizer
