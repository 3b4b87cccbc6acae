#include "rpc/http/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "rpc/http/error_body.h"

namespace invar::http {
namespace {

constexpr size_t kMaxDepth = 64;

// Builds a value as the library does, but an object's members are appended unseen: the library looks each up in a list, and a
// body of many members would cost a minute. Twice the same key is an error, because readers disagree on which one counts.
class Builder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return add(nullptr) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override { return add(value) != nullptr; }
  bool string(string_t& value) override { return add(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool end_array() override {
    inside_.pop_back();
    return true;
  }
  bool end_object() override {
    std::vector<const std::string*> keys;
    for (const auto& [name, value] : inside_.back()->get_ref<const Json::object_t&>()) keys.push_back(&name);
    std::sort(keys.begin(), keys.end(), [](const std::string* a, const std::string* b) { return *a < *b; });
    const auto twice =
        std::adjacent_find(keys.begin(), keys.end(), [](const std::string* a, const std::string* b) { return *a == *b; });
    if (twice != keys.end()) return fail(absl::StrCat("the key ", show(Json(**twice)), " is there twice in one object"));
    inside_.pop_back();
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string what = e.what();
    const size_t end = what.find("] ");
    return fail(absl::StrCat("the body is not JSON: ", end == std::string::npos ? what : what.substr(end + 2)));
  }

  Json root;
  std::string error;

 private:
  template <class Value>
  Json* add(Value&& value) {
    if (inside_.empty()) return &(root = std::forward<Value>(value));
    Json& parent = *inside_.back();
    if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::forward<Value>(value));
    std::vector<Json::object_t::value_type, Json::object_t::allocator_type>& members = parent.get_ref<Json::object_t&>();
    return &members.emplace_back(std::move(key_), std::forward<Value>(value)).second;
  }
  bool open(Json empty) {
    // Writing and reading a value are recursive elsewhere.
    if (inside_.size() >= kMaxDepth) return fail(absl::StrCat("the body is nested deeper than ", kMaxDepth, " levels"));
    inside_.push_back(add(std::move(empty)));
    return true;
  }
  bool fail(std::string why) {
    if (error.empty()) error = std::move(why);
    return false;
  }

  std::vector<Json*> inside_;  // open containers; only the last one grows, so the others stay where they are
  std::string key_;
};

std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) return std::nullopt;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double d = value.get<double>();
  if (d != std::floor(d) || std::abs(d) > 9e15) return std::nullopt;
  return static_cast<int64_t>(d);
}

}  // namespace

std::string show(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

absl::StatusOr<Json> parse_body(const std::string& text) {
  if (text.empty()) return absl::InvalidArgumentError("the body is empty, a JSON object is wanted");
  // The parser takes a zero byte for the end and would not look at what follows.
  if (const size_t at = text.find('\0'); at != std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat("the body has a zero byte at offset ", at));
  Builder builder;
  if (!Json::sax_parse(text, &builder)) return absl::InvalidArgumentError(builder.error);
  if (!builder.root.is_object())
    return absl::InvalidArgumentError(absl::StrCat("the body is ", show(builder.root), ", a JSON object is wanted"));
  return std::move(builder.root);
}

const Json* Fields::find(const char* name) {
  known_.insert(name);
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void Fields::fail(const std::string& name, const std::string& what) {
  if (status_.ok()) status_ = field_error(prefix_ + name, what);
}
void Fields::fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}
void Fields::wrong(const char* name, const char* wanted, const Json& value) {
  fail(name, absl::StrCat(show(value), " is not ", wanted));
}

std::optional<bool> Fields::boolean(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  wrong(name, "true or false", *value);
  return std::nullopt;
}

std::optional<int64_t> Fields::integer(const char* name, int64_t low, int64_t high) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = whole_number(*value);
  if (number && *number >= low && *number <= high) return number;
  fail(name, absl::StrCat(show(*value), " is not a whole number in [", low, ", ", high, "]"));
  return std::nullopt;
}

std::optional<float> Fields::real(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number() && std::abs(value->get<double>()) <= std::numeric_limits<float>::max())
    return static_cast<float>(value->get<double>());
  wrong(name, "a number", *value);
  return std::nullopt;
}

std::optional<std::string> Fields::text(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  wrong(name, "a string", *value);
  return std::nullopt;
}

std::vector<std::string> Fields::texts(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  std::vector<std::string> out;
  if (value->is_array()) {
    for (const Json& entry : *value) {
      if (!entry.is_string()) {
        fail(absl::StrCat(name, "[", out.size(), "]"), absl::StrCat(show(entry), " is not a string"));
        return {};
      }
      out.push_back(entry.get<std::string>());
    }
    return out;
  }
  wrong(name, "a string or a list of strings", *value);
  return {};
}

std::vector<int32_t> Fields::ids(const char* name) {
  const Json* value = list(name);
  if (value == nullptr) return {};
  std::vector<int32_t> out;
  out.reserve(value->size());
  for (const Json& entry : *value) {
    const std::optional<int64_t> number = whole_number(entry);
    if (!number || *number < 0 || *number > std::numeric_limits<int32_t>::max()) {
      fail(absl::StrCat(name, "[", out.size(), "]"), absl::StrCat(show(entry), " is not a token id"));
      return {};
    }
    out.push_back(static_cast<int32_t>(*number));
  }
  return out;
}

const Json* Fields::object(const char* name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  wrong(name, "an object", *value);
  return nullptr;
}

const Json* Fields::list(const char* name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_array()) return value;
  wrong(name, "a list", *value);
  return nullptr;
}

void Fields::ignore(std::initializer_list<const char*> names) { known_.insert(names.begin(), names.end()); }

void Fields::refuse(const char* name, const char* why) {
  const Json* value = find(name);
  if (value == nullptr || *value == false || *value == 0 || *value == "" || (value->is_structured() && value->empty())) return;
  fail(name, absl::StrCat(show(*value), " ", why));
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> out;
  for (const auto& [name, value] : object_.items())
    if (!known_.contains(name)) out.push_back(name);
  return out;
}

}  // namespace invar::http
