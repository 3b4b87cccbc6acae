// The flags of the HTTP port: vLLM's names where vLLM has them.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/http/service.h"

namespace invar::launch {

struct HttpFlags {
  int port = 8000;
  std::string uds;  // instead of host and port
  bool off = false;
  int64_t max_request_bytes = 4 << 20;
  int max_requests_per_key = 0;
  std::string chat_template;
  bool auto_tool_choice = false;
  std::string tool_call_parser;
  std::vector<std::string> allowed_origins, allowed_methods, allowed_headers;
  bool allow_credentials = false;
  bool no_access_log = false;
};

void add_flags(CLI::App& app, HttpFlags& flags);

http::ServerOptions http_server_options(const HttpFlags& flags, const std::string& host, std::optional<rpc::ServerTls> tls);
// `model_folder` may hold a chat template; without one only /v1/completions takes text. Errors name the template's file and line.
absl::StatusOr<http::ApiOptions> http_api_options(const HttpFlags& flags, const std::string& model_folder,
                                                  std::vector<std::string> model_names, std::vector<std::string> api_keys);

// As many descriptors as the system lets this process have: every open stream is one, and the usual 1,024 are soon gone.
void raise_descriptor_limit();
// --api-key and --api-key-file (one a line, # begins a comment) together. NotFound, InvalidArgument.
absl::StatusOr<std::vector<std::string>> all_api_keys(std::vector<std::string> keys, const std::string& file);

}  // namespace invar::launch
