#include "rpc/http/error_body.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace invar::http {
namespace {

constexpr absl::string_view kParam = "invar/param", kCode = "invar/code", kHttpStatus = "invar/http-status";

std::string payload(const absl::Status& status, absl::string_view name) {
  const auto found = status.GetPayload(name);
  return found ? std::string(*found) : std::string();
}

// Messages about bad input begin with the field: "temperature = -1 must be ...", "stop[0]: ...".
std::string leading_field(absl::string_view message) {
  size_t end = 0;
  while (end < message.size() && (absl::ascii_isalnum(message[end]) || message[end] == '_' || message[end] == '.' ||
                                  message[end] == '[' || message[end] == ']'))
    ++end;
  return end < message.size() && (message[end] == ':' || message[end] == ' ') ? std::string(message.substr(0, end))
                                                                              : std::string();
}

bool names_field(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument || status.code() == absl::StatusCode::kUnimplemented;
}

absl::string_view type_of(int http) {
  switch (http) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
  }
  return http < 500 ? "invalid_request_error" : "server_error";
}

std::string body(int http, absl::string_view message, const std::string& param, const std::string& code) {
  nlohmann::ordered_json error;
  error["message"] = std::string(message);
  error["type"] = std::string(type_of(http));
  error["param"] = param.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(param);
  error["code"] = code.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(code);
  return nlohmann::ordered_json{{"error", std::move(error)}}.dump(-1, ' ', false,
                                                                  nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

absl::Status field_error(absl::string_view field, absl::string_view what) {
  return with_details(absl::InvalidArgumentError(absl::StrCat(field, ": ", what)), 0, "", field);
}

absl::Status with_details(absl::Status status, int http, absl::string_view code, absl::string_view param) {
  if (http != 0) status.SetPayload(kHttpStatus, absl::Cord(absl::StrCat(http)));
  if (!code.empty()) status.SetPayload(kCode, absl::Cord(code));
  if (!param.empty()) status.SetPayload(kParam, absl::Cord(param));
  return status;
}

absl::Status renamed(const absl::Status& status, const FieldNames& names) {
  if (!names_field(status)) return status;
  const std::string field = leading_field(status.message());
  for (const auto& [engine, client] : names) {
    const absl::string_view rest = absl::string_view(field).substr(std::min(engine.size(), field.size()));
    if (!absl::StartsWith(field, engine) || !(rest.empty() || rest[0] == '[' || rest[0] == '.')) continue;
    const std::string name = absl::StrCat(client, rest);
    return with_details(absl::Status(status.code(), absl::StrCat(name, status.message().substr(field.size()))), 0, "", name);
  }
  return status;
}

absl::Status check_json_type(const Request& request) {
  const std::string* type = request.header("content-type");
  const std::string media = type != nullptr ? type->substr(0, type->find(';')) : "";
  if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(media), "application/json")) return absl::OkStatus();
  return with_details(absl::InvalidArgumentError(absl::StrCat("Content-Type: \"", media, "\" is not application/json")), 415,
                      "unsupported_media_type", "Content-Type");
}

int http_status(const absl::Status& status) {
  int http = 0;
  if (absl::SimpleAtoi(payload(status, kHttpStatus), &http)) return http;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string error_json(const absl::Status& status) {
  std::string param = payload(status, kParam);
  if (param.empty() && names_field(status)) param = leading_field(status.message());
  return body(http_status(status), status.message(), param, payload(status, kCode));
}

Response error_response(const absl::Status& status) {
  Response response;
  response.status = http_status(status);
  response.body = error_json(status);
  if (response.status == 429 || response.status == 503) response.headers.emplace_back("Retry-After", "1");
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

Response error_response(int http, absl::string_view message, absl::string_view code) {
  Response response;
  response.status = http;
  response.body = body(http, message, "", std::string(code));
  if (http == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace invar::http
