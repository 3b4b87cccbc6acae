#include "rpc/server/invar_service.h"

#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "rpc/server/generate_stream.h"
#include "rpc/wire/call_metadata.h"
#include "rpc/wire/status.h"
#include "runtime/engine/validate.h"

namespace invar::rpc {
namespace {

absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer_of(const absl::StatusOr<std::shared_ptr<Engine>>& engine) {
  if (!engine.ok()) return engine.status();
  std::shared_ptr<const Tokenizer> tokenizer = (*engine)->tokenizer();
  if (tokenizer == nullptr) return absl::FailedPreconditionError("the model has no tokenizer: it takes and gives token ids only");
  return tokenizer;
}

absl::Status named(const char* field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(field, ": ", status.message()));
}

absl::Status tokenize(const absl::StatusOr<std::shared_ptr<Engine>>& engine, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse& response) {
  const absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer = tokenizer_of(engine);
  if (!tokenizer.ok()) return tokenizer.status();
  const bool special = !request.has_add_special_tokens() || request.add_special_tokens();
  const absl::StatusOr<std::vector<int32_t>> ids = (*tokenizer)->encode(request.text(), special);
  if (!ids.ok()) return named("text", ids.status());
  response.mutable_ids()->Add(ids->begin(), ids->end());
  response.set_max_model_len(static_cast<uint32_t>((*engine)->options().max_model_len));
  return absl::OkStatus();
}

absl::Status detokenize(const absl::StatusOr<std::shared_ptr<Engine>>& engine, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse& response) {
  const absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer = tokenizer_of(engine);
  if (!tokenizer.ok()) return tokenizer.status();
  const std::span<const int32_t> ids(request.ids().data(), static_cast<size_t>(request.ids_size()));
  absl::StatusOr<std::string> text = (*tokenizer)->decode_checked(ids, request.skip_special_tokens());
  if (!text.ok()) return named("ids", text.status());
  response.set_text(*std::move(text));
  return absl::OkStatus();
}

class AsItIs final : public Encoder<v1::GenerateResponse> {
 public:
  void encode(v1::GenerateResponse response, std::deque<v1::GenerateResponse>& out) override {
    out.push_back(std::move(response));
  }
};

grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(to_grpc(status));
  return reactor;
}

}  // namespace

InvarService::InvarService(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                           std::shared_ptr<const ApiKeys> keys, const StreamOptions& options)
    : state_(std::move(state)), writer_(std::move(writer)), keys_(std::move(keys)), options_(options) {}

grpc::ServerWriteReactor<v1::GenerateResponse>* InvarService::Generate(grpc::CallbackServerContext* context,
                                                                       const v1::GenerateRequest* request) {
  absl::StatusOr<v1::GenerateRequest> asked = *request;
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) asked = s;
  return MessageStream<v1::GenerateResponse>::start(state_, writer_, options_, context, "invar.v1.Invar/Generate",
                                                    std::move(asked), std::make_unique<AsItIs>());
}

grpc::ServerUnaryReactor* InvarService::Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                                 v1::TokenizeResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  return answer(context, tokenize(state_->engine(), *request, *response));
}

grpc::ServerUnaryReactor* InvarService::Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                                   v1::DetokenizeResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  return answer(context, detokenize(state_->engine(), *request, *response));
}

grpc::ServerUnaryReactor* InvarService::GetModelInfo(grpc::CallbackServerContext* context, const v1::GetModelInfoRequest*,
                                                     v1::ModelInfo* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return answer(context, engine.status());
  const ModelConfig& model = (*engine)->model();
  const EngineOptions& options = (*engine)->options();
  response->set_name(state_->info().model_name());
  response->set_model_digest((*engine)->facts().model_digest);
  response->set_numerics_id((*engine)->facts().numerics_id);
  response->set_architecture(model.architecture);
  response->set_model_type(model.model_type);
  response->set_max_model_len(static_cast<uint64_t>(options.max_model_len));
  response->set_vocab_size(static_cast<uint32_t>(model.vocab_size));
  response->mutable_eos_token_ids()->Add(model.eos_token_ids.begin(), model.eos_token_ids.end());
  if (model.bos_token_id.has_value()) response->set_bos_token_id(*model.bos_token_id);
  *response->mutable_default_sampling_params() = engine::effective_sampling({}, model.generation, options.seed);
  response->set_tokenizer((*engine)->tokenizer() != nullptr);
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InvarService::GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest*,
                                                      v1::ServerInfo* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  *response = state_->info();
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InvarService::FlushCache(grpc::CallbackServerContext* context, const v1::FlushCacheRequest*,
                                                   v1::FlushCacheResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return answer(context, engine.status());
  response->set_pages(static_cast<uint64_t>((*engine)->flush_cache()));
  spdlog::info("prefix cache flushed by {}: {} pages", context->peer(), response->pages());
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InvarService::Abort(grpc::CallbackServerContext* context, const v1::AbortRequest* request,
                                              v1::AbortResponse*) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  if (request->request_id().empty()) return answer(context, absl::InvalidArgumentError("request_id is empty"));
  const std::shared_ptr<Engine> engine = state_->loaded_engine();
  if (engine == nullptr) return answer(context, absl::NotFoundError("request_id: no model is loaded"));
  return answer(context, engine->abort(request->request_id()));
}

}  // namespace invar::rpc
