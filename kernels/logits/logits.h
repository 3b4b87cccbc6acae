// From fp32 logits to a token: order-free digest, exact softmax masses, log-probabilities, sampling (clauses 12 and 13).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/device.h"

namespace invar {

// Everything in this header works on host memory, whatever the backend: sample_rows.h is for rows on a device.

// Sum over i of hash_element(first + i, canonical bits of z[i]) mod 2^64: a vocabulary shard adds its part.
uint64_t hash_logits(const Device& device, const float* z, int64_t count, int64_t first);

struct SamplingControls {
  float temperature = 1;  // 0 = greedy
  int32_t top_k = 0;      // 0 or -1 = off
  float top_p = 1;        // (0, 1]
  float min_p = 0;        // [0, 1]
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
  uint32_t choice = 0;  // which of the n answers of a request
};

// Added to the logit of one token; 0 is off.
struct LogitBias {
  int32_t token = 0;
  float bias = 0;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  int32_t rank = 0;  // 1 = the likeliest
};

struct SampleProblem {
  std::span<const float> logits;  // whole vocabulary, raw
  SamplingControls controls;
  std::span<const int32_t> prompt;  // for the repetition penalty
  std::span<const int32_t> output;  // tokens so far, for all three penalties
  // Bit id % 8 of byte id / 8: the token may be drawn. Empty = every token may; ids behind its end may not.
  std::span<const uint8_t> allowed;
  std::span<const LogitBias> bias;  // no token twice
  int32_t position = 0;             // absolute position of the token being drawn
  int32_t top_logprobs = -1;        // -1 = no log-probabilities at all; n = also the n likeliest
  int32_t force = -1;               // >= 0: report this token's log-probability too (teacher forcing); the draw is still made
};
struct SampleResult {
  int32_t token = 0;              // the draw
  bool finite = true;             // false: a logit is NaN or +inf, or all allowed ones are -inf; the rest then means nothing
  TokenLogprob chosen;            // of the draw
  TokenLogprob forced;            // of `force`
  std::vector<TokenLogprob> top;  // by (logit descending, id ascending)
};
// Log-probabilities are of the raw logits: RN(double(z - max) - ln(S * 2^-40)) with S the exact sum of masses.
// Both run on the calling thread, so that rows can be handed to the threads of a device. Ids outside the vocabulary in prompt,
// output, bias or force are passed over.
SampleResult sample(const Device& device, const SampleProblem& problem);
SampleResult sample_reference(const SampleProblem& problem);

inline bool token_allowed(std::span<const uint8_t> allowed, int64_t token) {
  return allowed.empty() || (token / 8 < static_cast<int64_t>(allowed.size()) && (allowed[token / 8] >> token % 8 & 1));
}

}  // namespace invar
