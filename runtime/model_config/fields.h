// Typed reading of one JSON object with the first mistake kept, so that a family's mapping reads as a list of fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace invar {

// Every reader returns something harmless (the lower bound, the fallback, nothing) after a mistake; look at status() before
// using values for sizes. A null counts as not given.
class Fields {
 public:
  // `object` must outlive this; `path` goes before each name in a message: "", or "rope_scaling." for a nested object.
  explicit Fields(const nlohmann::json& object, std::string path = "");

  const absl::Status& status() const { return status_; }
  void invalid(std::string_view name, std::string_view why);      // "<name> is <value>; <why>", the value as written
  void unsupported(std::string_view name, std::string_view why);  // the same as Unimplemented
  void fold(const absl::Status& other);                           // keeps the first failure

  bool given(std::string_view name) const;                  // there and not null
  bool contains(std::string_view name) const;               // there, null or not
  const nlohmann::json* find(std::string_view name) const;  // null pointer: not given

  int64_t integer(std::string_view name, int64_t low, int64_t high);
  std::optional<int64_t> optional_integer(std::string_view name, int64_t low, int64_t high);
  double number(std::string_view name, double low, double high);
  std::optional<double> optional_number(std::string_view name, double low, double high);
  bool boolean_or(std::string_view name, bool fallback);
  std::optional<bool> optional_boolean(std::string_view name);
  std::string string_or(std::string_view name, std::string_view fallback);
  std::vector<int64_t> integers(std::string_view name, int64_t low, int64_t high);  // not given: empty
  std::vector<std::string> strings(std::string_view name);                          // not given: empty

 private:
  void missing(std::string_view name);
  std::optional<int64_t> as_integer(std::string_view name, const nlohmann::json& value, int64_t low, int64_t high);

  const nlohmann::json& object_;
  std::string path_;
  absl::Status status_;
};

}  // namespace invar
