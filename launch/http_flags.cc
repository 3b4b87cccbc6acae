#include "launch/http_flags.h"

#include <sys/resource.h>

#include <fstream>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "launch/help_group.h"
#include "runtime/chat_template/chat_templates.h"

namespace invar::launch {
namespace {

CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<std::string>& list, const std::string& help) {
  return app.add_option(name, list, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
}

// vLLM takes these as JSON lists: '["*"]'.
std::vector<std::string> unpacked(const std::vector<std::string>& given) {
  std::vector<std::string> out;
  for (const std::string& value : given) {
    const http::Json json = http::Json::parse(value, nullptr, false);
    if (!json.is_array()) {
      out.push_back(value);
      continue;
    }
    for (const http::Json& entry : json)
      if (entry.is_string()) out.push_back(entry.get<std::string>());
  }
  return out;
}

}  // namespace

void add_flags(CLI::App& app, HttpFlags& f) {
  const HelpGroup group(app, "HTTP");
  app.add_option("--port,--http-port", f.port, "HTTP port (OpenAI's, vLLM's and SGLang's paths); 0 = any free one, see the log")
      ->check(CLI::Range(0, 65535));
  app.add_option("--uds", f.uds, "HTTP on this Unix socket instead of --host and --port; gRPC on PATH.grpc if no flag says where")
      ->option_text("PATH");
  app.add_flag("--no-http", f.off, "gRPC only");
  app.add_option("--max-request-bytes", f.max_request_bytes, "longest body of a request, HTTP and gRPC")
      ->check(CLI::Range(int64_t{1024}, int64_t{1} << 30));
  app.add_option("--max-requests-per-key", f.max_requests_per_key,
                 "HTTP requests that one API key may have running; 0 = no limit")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--chat-template", f.chat_template, "file with the chat template, if not the model's")->option_text("FILE");
  app.add_flag("--enable-auto-tool-choice", f.auto_tool_choice,
               "models may call the tools of a request when they choose (tool_choice auto)");
  app.add_option("--tool-call-parser", f.tool_call_parser, "how the model writes calls: hermes (Qwen too), llama3_json, mistral")
      ->option_text("NAME");
  add_list(app, "--allowed-origins", f.allowed_origins,
           "origins whose pages may ask (CORS), '*' = all; default none; may be repeated");
  add_list(app, "--allowed-methods", f.allowed_methods, "what such pages may use; default all");
  add_list(app, "--allowed-headers", f.allowed_headers, "headers such pages may send; default all");
  app.add_flag("--allow-credentials", f.allow_credentials, "such pages may send cookies and client certificates");
  app.add_flag("--disable-access-log,--disable-uvicorn-access-log", f.no_access_log, "no line for each request, HTTP or gRPC");
}

http::ServerOptions http_server_options(const HttpFlags& f, const std::string& host, std::optional<rpc::ServerTls> tls) {
  http::ServerOptions options;
  const bool v6 = host.find(':') != std::string::npos && host.front() != '[';
  options.listen = {!f.uds.empty() ? absl::StrCat("unix:", f.uds) : absl::StrCat(v6 ? "[" : "", host, v6 ? "]:" : ":", f.port)};
  options.tls = std::move(tls);
  options.max_request_bytes = f.max_request_bytes;
  options.max_bodies_bytes = std::max(options.max_bodies_bytes, f.max_request_bytes);
  options.access_log = !f.no_access_log;
  return options;
}

absl::StatusOr<http::ApiOptions> http_api_options(const HttpFlags& f, const std::string& model_folder,
                                                  std::vector<std::string> model_names, std::vector<std::string> api_keys) {
  http::ApiOptions options;
  options.model_names = std::move(model_names);
  options.model_path = model_folder;
  options.api_keys = std::move(api_keys);
  options.requests_per_key = f.max_requests_per_key;
  options.cors.allowed_origins = unpacked(f.allowed_origins);
  if (!f.allowed_methods.empty()) options.cors.allowed_methods = unpacked(f.allowed_methods);
  if (!f.allowed_headers.empty()) options.cors.allowed_headers = unpacked(f.allowed_headers);
  options.cors.allow_credentials = f.allow_credentials;
  if (f.auto_tool_choice != !f.tool_call_parser.empty())
    return absl::InvalidArgumentError(f.auto_tool_choice ? "--enable-auto-tool-choice: needs --tool-call-parser"
                                                         : "--tool-call-parser: needs --enable-auto-tool-choice");
  if (f.auto_tool_choice) {
    const absl::StatusOr<tool_call::Format> format = tool_call::format_named(f.tool_call_parser);
    if (!format.ok()) return absl::InvalidArgumentError(absl::StrCat("--tool-call-parser: ", format.status().message()));
    options.tool_format = *format;
  }
  std::optional<std::filesystem::path> file;
  if (!f.chat_template.empty()) file = f.chat_template;
  auto templates = ChatTemplates::load(model_folder, file);
  if (!templates.ok()) return templates.status();
  if (!templates->empty())
    options.render_chat = [shared = std::make_shared<const ChatTemplates>(*std::move(templates))](const http::Json& variables) {
      return shared->render(variables, std::chrono::system_clock::now());
    };
  return options;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::StatusOr<std::vector<std::string>> all_api_keys(std::vector<std::string> keys, const std::string& path) {
  for (const std::string& key : keys)
    if (key.empty()) return absl::InvalidArgumentError("--api-key: the key is empty");
  if (path.empty()) return keys;
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("--api-key-file ", path, ": cannot be read"));
  const size_t before = keys.size();
  for (std::string line; std::getline(file, line);) {
    const std::string key(absl::StripAsciiWhitespace(line));
    if (!key.empty() && key[0] != '#') keys.push_back(key);
  }
  if (keys.size() == before) return absl::InvalidArgumentError(absl::StrCat("--api-key-file ", path, ": holds no key"));
  return keys;
}

}  // namespace invar::launch
