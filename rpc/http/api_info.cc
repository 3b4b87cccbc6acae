// The paths that tell of the server, and the tokenizer's.
#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "rpc/http/answer.h"
#include "rpc/http/api.h"
#include "rpc/http/error_body.h"
#include "rpc/http/metrics_text.h"
#include "rpc/http/static_file.h"
#include "runtime/engine/engine.h"

namespace invar::http {
namespace {

void respond_json(Exchange& exchange, const Json& json) {
  Response response;
  response.body = dumped(json);
  exchange.respond(std::move(response));
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer_of(const Engine& engine) {
  std::shared_ptr<const Tokenizer> tokenizer = engine.tokenizer();
  if (tokenizer == nullptr) return absl::FailedPreconditionError("the model has no tokenizer: it takes and gives token ids only");
  return tokenizer;
}

absl::StatusOr<Json> tokenized(const Json& body, const ModelFacts& model, const Tokenizer& tokenizer) {
  Fields fields(body);
  if (absl::Status s = check_model_name(fields, model); !s.ok()) return s;
  const bool chat = fields.find("messages") != nullptr;
  const bool special = fields.boolean("add_special_tokens").value_or(!chat);
  const bool strings = fields.boolean("return_token_strs").value_or(false);
  const std::optional<std::string> prompt = fields.text("prompt");
  if (chat == prompt.has_value()) fields.fail("prompt", "one of prompt and messages is wanted");
  if (!fields.status().ok()) return fields.status();
  std::string text = prompt.value_or("");
  if (chat) {
    absl::StatusOr<std::string> rendered = render_chat(fields, model);
    if (!rendered.ok()) return rendered.status();
    text = *std::move(rendered);
  }
  const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.encode(text, special);
  if (!ids.ok()) return field_error(chat ? "messages" : "prompt", ids.status().message());
  Json out{{"count", ids->size()}, {"max_model_len", model.max_model_len}, {"tokens", *ids}, {"token_strs", nullptr}};
  if (strings) {
    out["token_strs"] = Json::array();
    for (const int32_t id : *ids) out["token_strs"].push_back(tokenizer.token_text(id));
  }
  return out;
}

absl::StatusOr<Json> detokenized(const Json& body, const ModelFacts& model, const Tokenizer& tokenizer) {
  Fields fields(body);
  if (absl::Status s = check_model_name(fields, model); !s.ok()) return s;
  if (fields.list("tokens") == nullptr) fields.fail("tokens", "a list of token ids is wanted");
  const std::vector<int32_t> ids = fields.ids("tokens");
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<std::string> text = tokenizer.decode_checked(ids, false);
  if (!text.ok()) return field_error("tokens", text.status().message());
  return Json{{"prompt", *std::move(text)}};
}

template <class Work>
void with_body(Exchange& exchange, const rpc::ServingState& state, Work work) {
  const auto result = [&]() -> absl::StatusOr<Json> {
    const absl::StatusOr<std::shared_ptr<Engine>> engine = state.engine();
    if (!engine.ok()) return engine.status();
    const absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer = tokenizer_of(**engine);
    if (!tokenizer.ok()) return tokenizer.status();
    if (absl::Status type = check_json_type(exchange.request()); !type.ok()) return type;
    const absl::StatusOr<Json> body = parse_body(exchange.request().body);
    if (!body.ok()) return body.status();
    return work(**engine, **tokenizer, *body);
  }();
  result.ok() ? respond_json(exchange, *result) : exchange.respond(error_response(result.status()));
}

}  // namespace

void Api::tokenize(const std::shared_ptr<Exchange>& exchange) {
  with_body(*exchange, *state_,
            [&](const Engine& e, const Tokenizer& t, const Json& body) { return tokenized(body, facts_of(e), t); });
}
void Api::detokenize(const std::shared_ptr<Exchange>& exchange) {
  with_body(*exchange, *state_,
            [&](const Engine& e, const Tokenizer& t, const Json& body) { return detokenized(body, facts_of(e), t); });
}

// Forward progress, not a probe request: a server that is busy for minutes is healthy, one whose steps stopped is not.
void Api::health(const std::shared_ptr<Exchange>& exchange) {
  const v1::ServerState serving = state_->state();
  if (serving == v1::SERVER_STATE_SERVING) return respond_json(*exchange, Json{{"status", "ok"}});
  const std::string why = serving == v1::SERVER_STATE_DRAINING
                              ? "the server is draining: it finishes what runs and takes nothing new"
                              : state_->info().progress();
  exchange->respond(error_response(503, absl::StrCat(serving == v1::SERVER_STATE_LOADING ? "the server is loading: " : "", why),
                                   "not_serving"));
}

void Api::version(const std::shared_ptr<Exchange>& exchange) {
  respond_json(*exchange, Json{{"version", state_->info().build_id()}});
}

void Api::metrics(const std::shared_ptr<Exchange>& exchange) {
  Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_text(*state_, model_name());
  exchange->respond(std::move(response));
}

void Api::models(const std::shared_ptr<Exchange>& exchange) {
  const std::shared_ptr<Engine> engine = state_->loaded_engine();
  if (engine == nullptr)
    return exchange->respond(error_response(503, absl::StrCat("the server is loading: ", state_->info().progress())));
  const int64_t created =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  Json list = Json::array();
  for (const std::string& name : options_.model_names) {
    list.push_back({{"id", name},
                    {"object", "model"},
                    {"created", created},
                    {"owned_by", "invar"},
                    {"root", options_.model_path},
                    {"parent", nullptr},
                    {"max_model_len", engine->options().max_model_len},
                    {"permission", Json::array()},
                    {"invar", {{"numerics_id", engine->facts().numerics_id}, {"model_digest", engine->facts().model_digest}}}});
  }
  const std::string& path = exchange->request().path;
  if (path.size() <= 11) return respond_json(*exchange, Json{{"object", "list"}, {"data", std::move(list)}});
  const std::string wanted = path.substr(11);
  for (const Json& model : list)
    if (model["id"] == wanted) return respond_json(*exchange, model);
  exchange->respond(error_response(with_details(absl::NotFoundError(absl::StrCat("The model `", wanted, "` does not exist")), 404,
                                                "model_not_found", "model")));
}

void Api::page(const std::shared_ptr<Exchange>& exchange) {
  const std::string& path = exchange->request().path;
  const StaticFile* file = find_static_file(path == "/" ? "/index.html" : path);
  Response response;
  if (file == nullptr) {
    response.content_type = "text/plain; charset=utf-8";
    response.body = absl::StrCat("Invar serves ", model_name(), ".\n\n");
    for (const auto& [route, methods] : routes_) absl::StrAppend(&response.body, route, "\n");
    return exchange->respond(std::move(response));
  }
  response.content_type = std::string(file->content_type);
  response.body = std::string(file->body);
  response.headers = {{"Cache-Control", "no-cache"},
                      {"Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"},
                      {"X-Content-Type-Options", "nosniff"}};
  exchange->respond(std::move(response));
}

void Api::flush_cache(const std::shared_ptr<Exchange>& exchange) {
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return exchange->respond(error_response(engine.status()));
  Response response;
  response.content_type = "text/plain; charset=utf-8";
  response.body = absl::StrCat("Cache flushed: ", (*engine)->flush_cache(), " pages.\n");
  exchange->respond(std::move(response));
}

void Api::model_info(const std::shared_ptr<Exchange>& exchange) {
  const std::shared_ptr<Engine> engine = state_->loaded_engine();
  if (engine == nullptr)
    return exchange->respond(error_response(503, absl::StrCat("the server is loading: ", state_->info().progress())));
  respond_json(*exchange, Json{{"model_path", options_.model_path},
                               {"tokenizer_path", options_.model_path},
                               {"is_generation", true},
                               {"preferred_sampling_params", nullptr},
                               {"weight_version", engine->facts().model_digest.substr(0, 16)},
                               {"model_type", engine->model().model_type},
                               {"architectures", {engine->model().architecture}},
                               {"numerics_id", engine->facts().numerics_id},
                               {"model_digest", engine->facts().model_digest}});
}

void Api::server_info(const std::shared_ptr<Exchange>& exchange) {
  const v1::ServerInfo info = state_->info();
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  print.always_print_primitive_fields = true;
  std::string text;
  Json out = Json::object();
  if (google::protobuf::util::MessageToJsonString(info, &text, print).ok()) out = Json::parse(text, nullptr, false);
  // SGLang's names for the same things.
  out["model_path"] = options_.model_path;
  out["served_model_name"] = model_name();
  out["tp_size"] = info.layout().tensor_parallel();
  out["pp_size"] = info.layout().pipeline_parallel();
  out["ep_size"] = info.layout().expert_parallel();
  out["dp_size"] = info.layout().data_parallel();
  out["version"] = info.build_id();
  respond_json(*exchange, out);
}

}  // namespace invar::http
