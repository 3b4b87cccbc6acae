// Reading the small JSON tree of tokenizer.json with errors that name the field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace invar::tokenizer {

// One JSON value and the way to it. The first error of a whole reading is kept in one status that all Fields of it share;
// after an error the getters return empty values, so a reader asks for all it needs and looks at the status once.
class Fields {
 public:
  Fields(const nlohmann::json& value, std::string path, absl::Status& error)
      : value_(&value), path_(std::move(path)), error_(&error) {}

  const std::string& path() const { return path_; }
  const nlohmann::json& value() const { return *value_; }
  bool ok() const { return error_->ok(); }
  const absl::Status& error() const { return *error_; }

  // Refuses a value that is no object, and every key not named: a field nobody reads would be skipped silently.
  void only(std::initializer_list<std::string_view> keys) const;
  bool present(std::string_view key) const;  // there and not null

  // A getter without a fallback asks for a required field; null counts as absent.
  std::string text(std::string_view key, std::optional<std::string> fallback = std::nullopt) const;
  bool flag(std::string_view key, std::optional<bool> fallback = std::nullopt) const;
  int64_t integer(std::string_view key, int64_t low, int64_t high) const;
  Fields child(std::string_view key) const;
  std::vector<Fields> list(std::string_view key) const;

  void fail(std::string_view key, std::string_view message) const;          // InvalidArgument
  void unsupported(std::string_view key, std::string_view why = {}) const;  // Unimplemented, with the value

 private:
  const nlohmann::json* find(std::string_view key) const;
  std::string name(std::string_view key) const;

  const nlohmann::json* value_;
  std::string path_;
  absl::Status* error_;
};

}  // namespace invar::tokenizer
