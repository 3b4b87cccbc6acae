#include "rpc/http/api.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rpc/http/cors.h"
#include "rpc/http/error_body.h"
#include "rpc/http/request_id.h"
#include "rpc/http/static_file.h"

namespace invar::http {
namespace {

constexpr size_t kMostNamedFields = 8;

bool switched_on(const std::string* header) {
  return header != nullptr && *header != "0" && *header != "false" && !header->empty();
}

std::string listed(const std::vector<std::string>& names) {
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(names.size(), kMostNamedFields); ++i) {
    std::string& name = shown.emplace_back();
    for (const char c : names[i].substr(0, 40)) name += c > ' ' && c < 127 && c != '"' ? c : '?';
  }
  return absl::StrJoin(shown, ",");
}

}  // namespace

Api::Api(ApiOptions options, std::shared_ptr<rpc::ServingState> state)
    : options_(std::move(options)),
      state_(std::move(state)),
      keys_(options_.api_keys),
      key_limits_(options_.api_keys.size(), options_.requests_per_key),
      pool_(std::make_shared<WorkPool>(std::max(1, options_.threads))) {
  const Route open{nullptr, true, true};
  const auto add = [&](const char* path, std::initializer_list<const char*> methods, Work work, Route route) {
    route.work = work;
    for (const char* method : methods) routes_[path][method] = route;
  };
  add("/", {"GET"}, &Api::page, open);
  add("/health", {"GET"}, &Api::health, open);
  add("/health_generate", {"GET"}, &Api::health, open);
  add("/ping", {"GET", "POST"}, &Api::health, open);
  add("/version", {"GET"}, &Api::version, open);
  add("/metrics", {"GET"}, &Api::metrics, open);
  add("/v1/models", {"GET"}, &Api::models, {nullptr, false, true});
  add("/v1/completions", {"POST"}, &Api::completions, {});
  add("/v1/chat/completions", {"POST"}, &Api::chat_completions, {});
  add("/tokenize", {"POST"}, &Api::tokenize, {});
  add("/detokenize", {"POST"}, &Api::detokenize, {});
  add("/generate", {"POST", "PUT"}, &Api::generate, {});
  add("/flush_cache", {"GET", "POST"}, &Api::flush_cache, {});
  add("/get_model_info", {"GET"}, &Api::model_info, {});
  add("/model_info", {"GET"}, &Api::model_info, {});
  add("/get_server_info", {"GET"}, &Api::server_info, {});
  add("/server_info", {"GET"}, &Api::server_info, {});
}

const Api::Methods* Api::find(const std::string& path) const {
  const auto it = routes_.find(path.size() > 1 && path.back() == '/' ? path.substr(0, path.size() - 1) : path);
  if (it != routes_.end()) return &it->second;
  if (path.compare(0, 11, "/v1/models/") == 0) return &routes_.at("/v1/models");
  if (find_static_file(path) != nullptr) return &routes_.at("/");
  return nullptr;
}

void Api::handle(std::shared_ptr<Exchange> exchange) {
  exchange = with_cors(std::move(exchange), options_.cors);
  if (answer_preflight(*exchange, options_.cors)) return;
  handle_checked(std::move(exchange));
}

void Api::handle_checked(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  const Methods* methods = find(request.path);
  if (methods == nullptr) return exchange->respond(error_response(404, "there is no such path", "path_not_found"));
  const auto route = methods->find(request.method == "HEAD" ? "GET" : request.method);
  if (route == methods->end()) {
    std::vector<std::string> allowed;
    for (const auto& [method, unused] : *methods) allowed.push_back(method);
    Response response = error_response(405, absl::StrCat("only ", absl::StrJoin(allowed, ", ")), "method_not_allowed");
    response.headers.emplace_back("Allow", absl::StrJoin(allowed, ", "));
    return exchange->respond(std::move(response));
  }
  if (!route->second.open) {
    const std::string* given = request.header("authorization");
    const absl::Status allowed = keys_.check(given != nullptr ? std::optional<std::string_view>(*given) : std::nullopt);
    if (!allowed.ok()) return exchange->respond(error_response(with_details(allowed, 401, "invalid_api_key")));
    if (keys_.required()) exchange->note(absl::StrCat("key=", key_of(*exchange)));
  }
  const Work work = route->second.work;
  if (route->second.prompt) return (this->*work)(exchange);
  const std::string& request_id = exchange->request().request_id;
  pool_->post(request_id, [this, work, exchange] { (this->*work)(exchange); });
}

std::string Api::model_name() const { return options_.model_names.empty() ? "" : options_.model_names.front(); }

ModelFacts Api::facts_of(const Engine& engine) const {
  ModelFacts facts;
  facts.names = options_.model_names;
  facts.tokenizer = engine.tokenizer().get();
  facts.max_model_len = engine.options().max_model_len;
  facts.render = options_.render_chat;
  facts.tool_format = options_.tool_format;
  return facts;
}

int Api::key_of(const Exchange& exchange) const {
  const std::string* given = exchange.request().header("authorization");
  return given == nullptr || !keys_.required() ? 0 : std::max(0, keys_.find_bearer(*given));
}

void Api::answer(const std::shared_ptr<Exchange>& exchange, const char* id_prefix, Parse parse, Make make) {
  const Request& request = exchange->request();
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return exchange->respond(error_response(engine.status()));
  if (absl::Status json = check_json_type(request); !json.ok()) return exchange->respond(error_response(json));
  absl::StatusOr<std::shared_ptr<void>> held = key_limits_.begin(key_of(*exchange));
  if (!held.ok()) return exchange->respond(error_response(held.status()));
  const absl::StatusOr<Json> body = parse_body(request.body);
  if (!body.ok()) return exchange->respond(error_response(body.status()));
  absl::StatusOr<Ask> ask = parse(*body, facts_of(**engine));
  if (!ask.ok()) return exchange->respond(error_response(ask.status()));
  if (!ask->ignored.empty())
    spdlog::warn("http request_id={}: fields that nobody reads: {}", request.request_id, listed(ask->ignored));

  AnswerFacts facts;
  facts.id = absl::StrCat(id_prefix, ask->request_id.empty() ? request.request_id : ask->request_id);
  facts.created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  facts.model = model_name();
  facts.numerics_id = (*engine)->facts().numerics_id;
  facts.model_digest = (*engine)->facts().model_digest;
  facts.tokenizer = (*engine)->tokenizer();
  if (switched_on(request.header("x-invar-receipt"))) ask->set_receipt(true);
  const std::string* digest = request.header("x-invar-require-model-digest");
  // Names that clients chose may be in use already, by a request that was sent twice; the engine's must be its own.
  const std::string unique = new_request_id().substr(0, 8);
  for (size_t i = 0; i < ask->requests.size(); ++i) {
    v1::GenerateRequest& r = ask->requests[i];
    r.set_request_id(absl::StrCat(facts.id, "-", unique, ask->requests.size() > 1 ? absl::StrCat("-", i) : ""));
    if (digest != nullptr) r.set_require_model_digest(*digest);
  }
  std::vector<v1::GenerateRequest> requests = ask->requests;
  Call::start(exchange, *engine, state_, pool_, make(std::move(facts), *std::move(ask)), std::move(requests), options_.limits,
              *std::move(held));
}

void Api::completions(const std::shared_ptr<Exchange>& exchange) {
  answer(exchange, "cmpl-", parse_completion, make_completion_answer);
}
void Api::chat_completions(const std::shared_ptr<Exchange>& exchange) {
  answer(exchange, "chatcmpl-", parse_chat, make_chat_answer);
}
void Api::generate(const std::shared_ptr<Exchange>& exchange) { answer(exchange, "", parse_sglang, make_sglang_answer); }

}  // namespace invar::http
