#include "rpc/server/vllm_engine_service.h"

#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "rpc/server/generate_stream.h"
#include "rpc/server/tokenizer_archive.h"
#include "rpc/server/vllm_messages.h"
#include "rpc/wire/call_metadata.h"
#include "rpc/wire/status.h"
#include "runtime/receipt/sha256.h"

namespace invar::rpc {
namespace {

namespace vllm = ::vllm::grpc::engine;
namespace smg = ::smg::grpc::common;

constexpr size_t kChunkBytes = 64 << 10;

grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(to_grpc(status));
  return reactor;
}

absl::Status not_here(const char* what) { return absl::UnimplementedError(absl::StrCat(what, " is not supported by Invar")); }

std::string sampling_defaults(const GenerationDefaults& d) {
  std::vector<std::string> fields;
  const auto add = [&](const char* name, const auto& value) {
    if (value.has_value()) fields.push_back(absl::StrFormat("\"%s\":%.9g", name, static_cast<double>(*value)));
  };
  add("temperature", d.temperature);
  add("top_p", d.top_p);
  add("top_k", d.top_k);
  add("min_p", d.min_p);
  add("repetition_penalty", d.repetition_penalty);
  return fields.empty() ? "" : absl::StrCat("{", absl::StrJoin(fields, ","), "}");
}

// A stream that only refuses, or gives out ready bytes piece by piece. Deletes itself.
template <class Message>
class Refusal final : public grpc::ServerWriteReactor<Message> {
 public:
  explicit Refusal(const absl::Status& status) { this->Finish(to_grpc(status)); }
  void OnDone() override { delete this; }
};

class ArchiveStream final : public grpc::ServerWriteReactor<smg::GetTokenizerChunk> {
 public:
  ArchiveStream(std::shared_ptr<const std::string> bytes, std::string sha256)
      : bytes_(std::move(bytes)), sha256_(std::move(sha256)) {
    next();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
    next();
  }
  void OnDone() override { delete this; }

 private:
  void next() {
    const size_t count = std::min(kChunkBytes, bytes_->size() - at_);
    chunk_.set_data(bytes_->data() + at_, count);
    at_ += count;
    if (at_ < bytes_->size()) return StartWrite(&chunk_);
    chunk_.set_sha256(sha256_);
    StartWriteAndFinish(&chunk_, grpc::WriteOptions(), grpc::Status::OK);
  }

  const std::shared_ptr<const std::string> bytes_;
  const std::string sha256_;
  size_t at_ = 0;
  smg::GetTokenizerChunk chunk_;
};

int32_t to_int32(int64_t value) { return static_cast<int32_t>(std::clamp<int64_t>(value, 0, INT32_MAX)); }

}  // namespace

VllmEngineService::VllmEngineService(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                                     std::shared_ptr<const ApiKeys> keys, const StreamOptions& options)
    : state_(std::move(state)), writer_(std::move(writer)), keys_(std::move(keys)), options_(options) {}

grpc::ServerWriteReactor<vllm::GenerateResponse>* VllmEngineService::Generate(Context* context,
                                                                              const vllm::GenerateRequest* request) {
  using AnswerStream = MessageStream<vllm::GenerateResponse>;
  absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) engine = s;
  absl::StatusOr<v1::GenerateRequest> ours = engine.ok() ? from_vllm(*request, **engine) : engine.status();
  auto encoder = std::make_unique<VllmAnswer>(request->stream(), ours.ok() ? *ours : v1::GenerateRequest());
  return AnswerStream::start(state_, writer_, options_, context, "vllm.grpc.engine.VllmEngine/Generate", std::move(ours),
                             std::move(encoder));
}

grpc::ServerUnaryReactor* VllmEngineService::Embed(Context* context, const vllm::EmbedRequest*, vllm::EmbedResponse*) {
  return answer(context, not_here("Embed"));
}
grpc::ServerUnaryReactor* VllmEngineService::StartProfile(Context* context, const smg::StartProfileRequest*,
                                                          smg::ProfileResponse*) {
  return answer(context, not_here("StartProfile"));
}
grpc::ServerUnaryReactor* VllmEngineService::StopProfile(Context* context, const smg::StopProfileRequest*,
                                                         smg::ProfileResponse*) {
  return answer(context, not_here("StopProfile"));
}
grpc::ServerWriteReactor<smg::KvEventBatch>* VllmEngineService::SubscribeKvEvents(Context*,
                                                                                  const smg::SubscribeKvEventsRequest*) {
  return new Refusal<smg::KvEventBatch>(not_here("SubscribeKvEvents"));
}

// Open without a key, as grpc.health.v1 is: it tells no more.
grpc::ServerUnaryReactor* VllmEngineService::HealthCheck(Context* context, const vllm::HealthCheckRequest*,
                                                         vllm::HealthCheckResponse* response) {
  const v1::ServerInfo info = state_->info();
  const bool serving = info.state() == v1::SERVER_STATE_SERVING;
  response->set_healthy(serving);
  response->set_message(serving ? "serving" : info.progress().empty() ? v1::ServerState_Name(info.state()) : info.progress());
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* VllmEngineService::FlushCache(Context* context, const smg::FlushCacheRequest* request,
                                                        smg::FlushCacheResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  if (!std::isfinite(request->timeout_s()) || request->timeout_s() < 0)
    return answer(context, absl::InvalidArgumentError(
                               absl::StrCat("timeout_s = ", request->timeout_s(), " must be a number of seconds, 0 or more")));
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return answer(context, engine.status());
  const int64_t pages = (*engine)->flush_cache();
  spdlog::info("prefix cache flushed by {}: {} pages", context->peer(), pages);
  response->set_success(true);
  response->set_message(absl::StrCat(pages, " pages freed"));
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* VllmEngineService::Abort(Context* context, const vllm::AbortRequest* request, vllm::AbortResponse*) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  // Unknown ids: it ended by itself, perhaps at the same time.
  if (const std::shared_ptr<Engine> engine = state_->loaded_engine(); engine != nullptr)
    for (const std::string& id : request->request_ids()) engine->abort(id).IgnoreError();
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* VllmEngineService::GetModelInfo(Context* context, const vllm::GetModelInfoRequest*,
                                                          vllm::GetModelInfoResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) return answer(context, engine.status());
  const v1::ServerInfo info = state_->info();
  const ModelConfig& model = (*engine)->model();
  const int64_t length = (*engine)->options().max_model_len;
  response->set_model_path(info.model_path());
  response->set_is_generation(true);
  response->set_max_context_length(static_cast<uint32_t>(to_int32(length)));
  response->set_vocab_size(static_cast<uint32_t>(model.vocab_size));
  response->set_served_model_name(info.model_name());
  response->set_tokenizer_path(info.tokenizer_path());
  response->set_model_type(model.model_type);
  response->add_architectures(model.architecture);
  response->mutable_eos_token_ids()->Add(model.eos_token_ids.begin(), model.eos_token_ids.end());
  response->set_bos_token_id(model.bos_token_id.value_or(0));
  response->set_max_req_input_len(to_int32(length - 1));  // one answer token at least
  response->set_default_sampling_params_json(sampling_defaults(model.generation));
  return answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* VllmEngineService::GetServerInfo(Context* context, const vllm::GetServerInfoRequest*,
                                                           vllm::GetServerInfoResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  const v1::ServerInfo info = state_->info();
  response->set_active_requests(static_cast<uint32_t>(info.stats().running() + info.stats().waiting()));
  response->set_is_paused(info.state() == v1::SERVER_STATE_DRAINING);
  response->set_uptime_seconds(info.uptime_seconds());
  response->set_server_type("invar");
  response->set_data_parallel_size(1);
  response->set_kv_cache_dtype("bfloat16");
  response->set_model_dtype("bfloat16");
  if (const std::shared_ptr<Engine> engine = state_->loaded_engine(); engine != nullptr) {
    response->set_block_size(to_int32(engine->facts().page_size));
    response->set_max_num_seqs(to_int32(engine->options().max_num_seqs * std::max(1, engine->stats().replicas)));
  }
  response->set_constrained_decoding_start("first_token");
  return answer(context, absl::OkStatus());
}

double VllmEngineService::throughput(uint64_t generation_tokens) {
  const auto now = std::chrono::steady_clock::now();
  std::lock_guard lock(mutex_);
  const double seconds = std::chrono::duration<double>(now - looked_).count();
  if (seconds >= 1) {
    rate_ = static_cast<double>(generation_tokens - tokens_then_) / seconds;
    tokens_then_ = generation_tokens;
    looked_ = now;
  }
  return rate_;
}

grpc::ServerUnaryReactor* VllmEngineService::GetLoads(Context* context, const vllm::GetLoadsRequest* request,
                                                      vllm::GetLoadsResponse* response) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return answer(context, s);
  response->set_timestamp(absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone()));
  response->set_version(state_->info().build_id());
  response->set_dp_rank_count(1);
  if (request->has_dp_rank() && request->dp_rank() != 0) return answer(context, absl::OkStatus());
  vllm::SchedulerLoad& load = *response->add_loads();
  const std::shared_ptr<Engine> engine = state_->loaded_engine();
  if (engine == nullptr) return answer(context, absl::OkStatus());  // loading: nothing runs
  const EngineStats stats = engine->stats();
  const int64_t page = engine->facts().page_size;
  const int64_t most = engine->options().max_num_seqs * std::max(1, stats.replicas);
  load.set_num_running_reqs(to_int32(stats.running));
  load.set_num_waiting_reqs(to_int32(stats.waiting));
  load.set_num_total_reqs(to_int32(stats.running + stats.waiting));
  load.set_num_used_tokens(to_int32(stats.pages_used * page));
  load.set_max_total_num_tokens(to_int32(stats.pages_total * page));
  if (stats.pages_total > 0) load.set_token_usage(static_cast<double>(stats.pages_used) / static_cast<double>(stats.pages_total));
  load.set_gen_throughput(throughput(stats.generation_tokens));
  if (stats.prompt_tokens > 0)
    load.set_cache_hit_rate(static_cast<double>(stats.cached_tokens) / static_cast<double>(stats.prompt_tokens));
  load.set_utilization(static_cast<double>(stats.running) / static_cast<double>(most));
  load.set_max_running_requests(to_int32(most));
  return answer(context, absl::OkStatus());
}

absl::StatusOr<std::shared_ptr<const VllmEngineService::Archive>> VllmEngineService::archive() {
  const v1::ServerInfo info = state_->info();
  if (!info.tokenizer() || info.tokenizer_path().empty())
    return absl::FailedPreconditionError("the model has no tokenizer: it takes and gives token ids only");
  std::lock_guard lock(mutex_);
  if (archive_ == nullptr || archive_->folder != info.tokenizer_path()) {
    absl::StatusOr<std::string> bytes = tokenizer_archive(info.tokenizer_path());
    if (!bytes.ok()) return bytes.status();
    receipt::Sha256 hash;
    std::string sha256 = receipt::hex(hash.bytes(bytes->data(), bytes->size()).finish());
    archive_ = std::make_shared<const Archive>(Archive{info.tokenizer_path(), *std::move(bytes), std::move(sha256)});
  }
  return archive_;
}

grpc::ServerWriteReactor<smg::GetTokenizerChunk>* VllmEngineService::GetTokenizer(Context* context,
                                                                                  const smg::GetTokenizerRequest*) {
  if (absl::Status s = authorize(*keys_, *context); !s.ok()) return new Refusal<smg::GetTokenizerChunk>(s);
  const absl::StatusOr<std::shared_ptr<const Archive>> archive = this->archive();
  if (!archive.ok()) return new Refusal<smg::GetTokenizerChunk>(archive.status());
  return new ArchiveStream({*archive, &(*archive)->bytes}, (*archive)->sha256);
}

}  // namespace invar::rpc
