// The gRPC service over the serving state. Internal to this folder (it shows gRPC types).
#pragma once

#include <memory>

#include "rpc/proto/invar.grpc.pb.h"
#include "rpc/server/serving_state.h"
#include "rpc/server/stream_writer.h"
#include "rpc/wire/api_keys.h"

namespace invar::rpc {

class InvarService final : public v1::Invar::CallbackService {
 public:
  InvarService(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer, std::shared_ptr<const ApiKeys> keys,
               const StreamOptions& options);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context, const v1::GetModelInfoRequest* request,
                                         v1::ModelInfo* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerUnaryReactor* FlushCache(grpc::CallbackServerContext* context, const v1::FlushCacheRequest* request,
                                       v1::FlushCacheResponse* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context, const v1::AbortRequest* request,
                                  v1::AbortResponse* response) override;

 private:
  const std::shared_ptr<ServingState> state_;
  const std::shared_ptr<StreamWriter> writer_;
  const std::shared_ptr<const ApiKeys> keys_;
  const StreamOptions options_;
};

}  // namespace invar::rpc
