// Reading fields of a JSON object that somebody else wrote. The first thing wrong is kept, with the field's name and value.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::http {

using Json = nlohmann::ordered_json;  // templates write objects in the order in which the client wrote them

// InvalidArgument: not JSON (with the place), not an object, nested deeper than 64, a key twice in one object.
absl::StatusOr<Json> parse_body(const std::string& text);
// A value in a message: its text, cut when long.
std::string show(const Json& value);

// A member that is null counts as absent, as in pydantic's optional fields.
class Fields {
 public:
  // `prefix` is put before names in messages: "sampling_params.". `object` must outlive this and be an object.
  Fields(const Json& object, std::string prefix = "") : object_(object), prefix_(std::move(prefix)) {}

  const Json* find(const char* name);
  std::optional<bool> boolean(const char* name);
  std::optional<int64_t> integer(const char* name, int64_t low, int64_t high);
  std::optional<float> real(const char* name);
  std::optional<std::string> text(const char* name);
  std::vector<std::string> texts(const char* name);  // one, or a list
  std::vector<int32_t> ids(const char* name);
  const Json* object(const char* name);
  const Json* list(const char* name);

  void ignore(std::initializer_list<const char*> names);
  // Present and not null, false, 0, "" or empty: an error that says `why`.
  void refuse(const char* name, const char* why);
  void fail(const std::string& name, const std::string& what);
  void fail(absl::Status status);

  const absl::Status& status() const { return status_; }
  // Members nobody asked for.
  std::vector<std::string> unknown() const;

 private:
  void wrong(const char* name, const char* wanted, const Json& value);

  const Json& object_;
  const std::string prefix_;
  std::set<std::string> known_;
  absl::Status status_;
};

}  // namespace invar::http
