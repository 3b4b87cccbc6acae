#include "runtime/receipt/response_chain.h"

#include "kernels/numerics.h"

namespace invar {
namespace {

// -0 and +0 mean the same and must not make two requests of one.
uint32_t plain_bits(float x) { return x == 0 ? 0 : numerics::float_bits(x); }

}  // namespace

ResponseChain::ResponseChain(std::string_view numerics_id, std::string_view model_digest, std::span<const int32_t> prompt,
                             const v1::SamplingParams& effective, uint32_t choice) {
  const bool greedy = effective.temperature() == 0;
  receipt::Sha256 sha;
  sha.text("invar.receipt.v1").text(numerics_id).text(model_digest).ids(prompt);
  sha.le32(plain_bits(effective.temperature()));
  sha.le32(greedy || effective.top_k() <= 0 ? 0 : static_cast<uint32_t>(effective.top_k()));
  sha.le32(numerics::float_bits(greedy ? 1.0f : effective.top_p()));
  sha.le32(greedy ? 0 : plain_bits(effective.min_p()));
  sha.le32(plain_bits(effective.repetition_penalty()));
  sha.le32(plain_bits(effective.presence_penalty()));
  sha.le32(plain_bits(effective.frequency_penalty()));
  sha.le64(greedy ? 0 : effective.seed());
  sha.le32(choice);
  state_ = sha.finish();
}

void ResponseChain::append(int32_t token, uint64_t logits_hash) {
  state_ = receipt::Sha256().digest(state_).le32(static_cast<uint32_t>(token)).le64(logits_hash).finish();
}

}  // namespace invar
