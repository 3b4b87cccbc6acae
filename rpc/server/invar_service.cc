#include "rpc/server/invar_service.h"

#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "rpc/server/generate_stream.h"
#include "rpc/wire/status.h"

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

grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(to_grpc(status));
  return reactor;
}

}  // namespace

InvarService::InvarService(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer, int64_t max_buffered_bytes)
    : state_(std::move(state)), writer_(std::move(writer)), max_buffered_bytes_(max_buffered_bytes) {}

grpc::ServerWriteReactor<v1::GenerateResponse>* InvarService::Generate(grpc::CallbackServerContext* context,
                                                                       const v1::GenerateRequest* request) {
  return GenerateStream::start(state_, writer_, max_buffered_bytes_, context, *request);
}

grpc::ServerUnaryReactor* InvarService::Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                                 v1::TokenizeResponse* response) {
  return answer(context, tokenize(state_->engine(), *request, *response));
}

grpc::ServerUnaryReactor* InvarService::Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                                   v1::DetokenizeResponse* response) {
  return answer(context, detokenize(state_->engine(), *request, *response));
}

grpc::ServerUnaryReactor* InvarService::GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest*,
                                                      v1::ServerInfo* response) {
  *response = state_->info();
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InvarService::FlushCache(grpc::CallbackServerContext* context, const v1::FlushCacheRequest*,
                                                   v1::FlushCacheResponse* response) {
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return answer(context, engine.status());
  response->set_pages(static_cast<uint64_t>((*engine)->flush_cache()));
  spdlog::info("prefix cache flushed by {}: {} pages", context->peer(), response->pages());
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InvarService::Abort(grpc::CallbackServerContext* context, const v1::AbortRequest* request,
                                              v1::AbortResponse*) {
  if (request->request_id().empty()) return answer(context, absl::InvalidArgumentError("request_id is empty"));
  const std::shared_ptr<Engine> engine = state_->loaded_engine();
  if (engine == nullptr) return answer(context, absl::NotFoundError("request_id: no model is loaded"));
  return answer(context, engine->abort(request->request_id()));
}

}  // namespace invar::rpc
