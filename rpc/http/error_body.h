// Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rpc/http/message.h"

namespace invar::http {

// An InvalidArgument about one field of the body; the message begins with the field's name. Its kind goes to "code".
absl::Status field_error(absl::string_view field, absl::string_view what);
// Sets what the status code alone does not say: HTTP status (0 = as the code has it), "code" and "param" of the error.
absl::Status with_details(absl::Status status, int http_status, absl::string_view code, absl::string_view param = {});

// Unless the body is said to be JSON. A page of another origin can send any other type without asking first.
absl::Status check_json_type(const Request& request);

// Engine's name of a field -> the client's.
using FieldNames = std::vector<std::pair<std::string, std::string>>;
// An error of the engine in the client's words: the field that the message begins with, with what follows it in brackets, gets
// its other name, also as "param".
absl::Status renamed(const absl::Status& status, const FieldNames& names);

int http_status(const absl::Status& status);
std::string error_json(const absl::Status& status);
Response error_response(const absl::Status& status);
// For errors that no absl code fits.
Response error_response(int http_status, absl::string_view message, absl::string_view code = {});

}  // namespace invar::http
