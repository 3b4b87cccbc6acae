// The response digest: a SHA-256 chain over what was answered and the logits it was drawn from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "runtime/proto/generate.pb.h"
#include "runtime/receipt/sha256.h"

namespace invar {

// c0 = SHA-256("invar.receipt.v1", numerics id, model digest, prompt ids, draw parameters, choice);
// c  = SHA-256(c, token le32, logits hash le64) for each token.
//
// Draw parameters are those that can change a draw: temperature, the three penalties, and, unless temperature is 0 (greedy),
// top_k, top_p, min_p and seed; and, where a request has them, guided_*, logit_bias, allowed_token_ids, bad_words and min_tokens
// (with what they say of the end). What only decides when an answer ends (max_tokens, stops) is not in it: the answer is. Hence
// the digest of a greedy answer does not depend on the server's default seed, and a longer answer continues a shorter one's
// chain.
class ResponseChain {
 public:
  // `effective`: sampling parameters with every field set.
  ResponseChain(std::string_view numerics_id, std::string_view model_digest, std::span<const int32_t> prompt,
                const v1::SamplingParams& effective, uint32_t choice);
  void append(int32_t token, uint64_t logits_hash);
  std::string head() const { return receipt::hex(state_); }  // 64 digits

 private:
  receipt::Digest state_;
};

}  // namespace invar
