// A request and an answer of HTTP/1.1 as the program sees them. No types of the HTTP library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace invar::http {

struct Request {
  std::string method;                                        // "GET", "POST", ...
  std::string path;                                          // "/v1/models", decoded by nobody: our paths need no escapes
  std::string query;                                         // behind the "?", without it
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string peer;        // "127.0.0.1:40312"
  std::string request_id;  // X-Request-Id if it is printable and short, otherwise one of our own

  // Value of the first header of this name (lower case); null = there is none.
  const std::string* header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return &value;
    return nullptr;
  }
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";  // empty = none, for answers without a body
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

}  // namespace invar::http
