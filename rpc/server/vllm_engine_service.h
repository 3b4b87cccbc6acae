// vllm.grpc.engine.VllmEngine over the serving state: what gateways in front of vLLM speak. Internal to this folder (it shows
// gRPC types).
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "rpc/proto/vllm_engine.grpc.pb.h"
#include "rpc/server/serving_state.h"
#include "rpc/server/stream_writer.h"
#include "rpc/wire/api_keys.h"

namespace invar::rpc {

class VllmEngineService final : public ::vllm::grpc::engine::VllmEngine::CallbackService {
 public:
  VllmEngineService(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                    std::shared_ptr<const ApiKeys> keys, const StreamOptions& options);

  template <class Message>
  using Stream = grpc::ServerWriteReactor<Message>;
  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  Stream<::vllm::grpc::engine::GenerateResponse>* Generate(Context* context,
                                                           const ::vllm::grpc::engine::GenerateRequest* request) override;
  Unary* Embed(Context* context, const ::vllm::grpc::engine::EmbedRequest*, ::vllm::grpc::engine::EmbedResponse*) override;
  Unary* HealthCheck(Context* context, const ::vllm::grpc::engine::HealthCheckRequest*,
                     ::vllm::grpc::engine::HealthCheckResponse* response) override;
  Unary* FlushCache(Context* context, const ::smg::grpc::common::FlushCacheRequest* request,
                    ::smg::grpc::common::FlushCacheResponse* response) override;
  Unary* StartProfile(Context* context, const ::smg::grpc::common::StartProfileRequest*,
                      ::smg::grpc::common::ProfileResponse*) override;
  Unary* StopProfile(Context* context, const ::smg::grpc::common::StopProfileRequest*,
                     ::smg::grpc::common::ProfileResponse*) override;
  Unary* Abort(Context* context, const ::vllm::grpc::engine::AbortRequest* request,
               ::vllm::grpc::engine::AbortResponse*) override;
  Unary* GetModelInfo(Context* context, const ::vllm::grpc::engine::GetModelInfoRequest*,
                      ::vllm::grpc::engine::GetModelInfoResponse* response) override;
  Unary* GetServerInfo(Context* context, const ::vllm::grpc::engine::GetServerInfoRequest*,
                       ::vllm::grpc::engine::GetServerInfoResponse* response) override;
  Unary* GetLoads(Context* context, const ::vllm::grpc::engine::GetLoadsRequest* request,
                  ::vllm::grpc::engine::GetLoadsResponse* response) override;
  Stream<::smg::grpc::common::GetTokenizerChunk>* GetTokenizer(Context* context,
                                                               const ::smg::grpc::common::GetTokenizerRequest*) override;
  Stream<::smg::grpc::common::KvEventBatch>* SubscribeKvEvents(Context* context,
                                                               const ::smg::grpc::common::SubscribeKvEventsRequest*) override;

 private:
  struct Archive {
    std::string folder, bytes, sha256;
  };
  absl::StatusOr<std::shared_ptr<const Archive>> archive();
  double throughput(uint64_t generation_tokens);

  const std::shared_ptr<ServingState> state_;
  const std::shared_ptr<StreamWriter> writer_;
  const std::shared_ptr<const ApiKeys> keys_;
  const StreamOptions options_;
  std::mutex mutex_;
  std::shared_ptr<const Archive> archive_;  // made when first asked for
  // Tokens a second between two looks at least a second apart.
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
  uint64_t tokens_then_ = 0;
  double rate_ = 0;
};

}  // namespace invar::rpc
