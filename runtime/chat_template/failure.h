// How an error leaves the depth of an expression. Thrown inside this folder only: ChatTemplate turns it into a Status.
#pragma once

#include <exception>
#include <string>

#include "absl/status/status.h"
#include "runtime/tokenizer/strings.h"

namespace invar::jinja {

using tokenizer::concat;

struct Failure : std::exception {
  Failure(absl::StatusCode code, std::string message, int line = 0) : code(code), message(std::move(message)), line(line) {}
  const char* what() const noexcept override { return message.c_str(); }

  absl::StatusCode code;
  std::string message;
  int line;                    // of the template, from 1; 0 until a node that knows its line has seen the failure
  bool from_template = false;  // the text of raise_exception(): handed on as it is
};

// A mistake of the template or of its variables.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Failure(absl::StatusCode::kInvalidArgument, concat(parts...));
}
template <typename... Parts>
[[noreturn]] void fail_unsupported(const Parts&... parts) {
  throw Failure(absl::StatusCode::kUnimplemented, concat(parts...));
}
template <typename... Parts>
[[noreturn]] void fail_exhausted(const Parts&... parts) {
  throw Failure(absl::StatusCode::kResourceExhausted, concat(parts...));
}

}  // namespace invar::jinja
