// One choice's answer as it grows: when it ends, its text, log-probabilities, digest and receipt.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/stop_strings.h"
#include "runtime/engine/validate.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/proto/step.pb.h"
#include "runtime/receipt/response_chain.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar::engine {

// What all requests to one engine share.
struct EngineContext {
  std::string numerics_id, model_digest;
  std::vector<int32_t> eos_token_ids;
  std::shared_ptr<const Tokenizer> tokenizer;  // null = no text
};

class ChoiceOutput {
 public:
  // Both must outlive the object.
  ChoiceOutput(const EngineContext& context, const ValidRequest& request, uint32_t choice);

  // The answer's next token, which is `result`'s draw or, in a verification, the forced one. Appends to `delta`, sets its
  // finish_reason and what comes with it when the answer ends here, and returns whether it does. `complete`: a constraint says
  // that nothing may follow.
  bool append(int32_t token, const v1::TokenResult& result, bool complete, v1::ChoiceDelta* delta);
  // The answer ends without another token.
  void fail(std::string_view reason, v1::ChoiceDelta* delta);

  int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  bool is_stop_id(int32_t token, std::string* reason) const;
  void close(v1::FinishReason reason, std::string_view stop_reason, v1::ChoiceDelta* delta);

  const EngineContext& context_;
  const ValidRequest& request_;
  const uint32_t choice_;
  std::optional<StreamDecoder> decoder_;
  StopStrings stops_;
  ResponseChain chain_;
  std::vector<int32_t> tokens_;
  std::vector<uint64_t> hashes_;
};

// Fills the texts and float bits of what a rank reported. `top` is cut to `most` entries.
v1::TokenLogprobs token_logprobs(const v1::Logprob& chosen, const google::protobuf::RepeatedPtrField<v1::Logprob>& top,
                                 int32_t most, const Tokenizer* tokenizer);

}  // namespace invar::engine
