// One call, {"name": ..., "arguments": {...}}, read piece by piece.
#pragma once

#include <string>
#include <string_view>

#include "runtime/tool_call/value_scanner.h"

namespace invar::tool_call {

class CallScanner {
 public:
  enum class State { kMore, kDone, kBroken };

  // Takes bytes of `text` from `*at` on. kDone: behind the closing brace. kBroken: what stands at `*at` belongs to no such
  // object.
  State take(std::string_view text, size_t* at);

  // The name and the beginning of the arguments are there: this is a call. Members may come in any order; others are read over.
  bool known() const { return has_name_ && has_arguments_; }
  const std::string& name() const { return name_; }
  // Arguments as they were written, those that were not asked for yet.
  std::string new_arguments();
  // All of it that was taken.
  const std::string& raw() const { return raw_; }

 private:
  enum class Place { kBegin, kKeyOrEnd, kKey, kColon, kValue, kCommaOrEnd };
  bool end_value();

  Place place_ = Place::kBegin;
  ValueScanner value_;
  std::string key_, member_, name_, arguments_, raw_;
  bool has_name_ = false, has_arguments_ = false;
};

}  // namespace invar::tool_call
