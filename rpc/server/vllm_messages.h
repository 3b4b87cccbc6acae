// vllm.grpc.engine messages to and from the engine's. Pure: no call, no lock. Internal to this folder.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/proto/vllm_engine.pb.h"
#include "rpc/server/generate_stream.h"
#include "runtime/engine/engine.h"
#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

// The engine's request that means the same. Fields that Invar cannot honour are refused by name (InvalidArgument; Unimplemented
// for what another engine could do). A text is tokenised here, since the answer's messages tell of the prompt's ids.
absl::StatusOr<v1::GenerateRequest> from_vllm(const ::vllm::grpc::engine::GenerateRequest& request, const Engine& engine);

// The answer as that service's clients expect it: with `stream` a chunk for new tokens, and for each choice a message that ends
// it; else only the latter. Choices end when the whole answer does: only then it is known how many prompt tokens were cached.
class VllmAnswer final : public Encoder<::vllm::grpc::engine::GenerateResponse> {
 public:
  // `request` is what from_vllm made.
  VllmAnswer(bool stream, const v1::GenerateRequest& request);

  void encode(v1::GenerateResponse response, std::deque<::vllm::grpc::engine::GenerateResponse>& out) override;
  // An Abort is not an error here: what is there ends with finish_reason "abort".
  absl::Status end(absl::Status status, std::deque<::vllm::grpc::engine::GenerateResponse>& out) override;

 private:
  struct Choice {
    std::vector<uint32_t> ids;
    ::vllm::grpc::engine::OutputLogProbs logprobs;  // without stream
    bool begun = false;                             // a chunk was made
    v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;
    std::string stop_reason;
  };

  void add_chunk(uint32_t index, const v1::ChoiceDelta& delta, std::deque<::vllm::grpc::engine::GenerateResponse>& out);
  void add_complete(uint32_t index, std::deque<::vllm::grpc::engine::GenerateResponse>& out);

  const bool stream_;
  const v1::SamplingParams sampling_;
  const std::vector<uint32_t> prompt_;
  std::optional<::vllm::grpc::engine::InputLogProbs> prompt_logprobs_;
  std::vector<Choice> choices_;
  uint32_t cached_tokens_ = 0;
};

}  // namespace invar::rpc
