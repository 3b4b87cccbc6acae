// What a request must be before any work is done for it, and what its sampling parameters come to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/grammar/grammar_cache.h"
#include "runtime/model_config/model_config.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar::engine {

inline constexpr uint32_t kMaxChoices = 128;
inline constexpr int32_t kMaxLogprobs = 20;
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxBadWords = 1024;
inline constexpr size_t kMaxRequestIdBytes = 256;

struct ValidationLimits {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;  // prompt and answer together
  uint64_t seed = 0;          // of requests that name none
  GenerationDefaults defaults;
  const Tokenizer* tokenizer = nullptr;  // null = token ids only
  std::vector<int32_t> eos_token_ids;
  grammar::GrammarCache* grammars = nullptr;  // null = no structured output
};

struct ValidRequest {
  std::string id;  // may be empty
  std::vector<int32_t> prompt;
  v1::SamplingParams sampling;  // every field set
  std::vector<int32_t> forced;
  uint32_t first_choice = 0;  // choices [first_choice, first_choice + choices) are computed: all n, or the forced one
  uint32_t choices = 1;
  int64_t most_tokens = 0;  // answer tokens at most: max_tokens, what the context leaves, or the forced tokens
  bool return_receipt = false;
  int32_t priority = 0;
  std::vector<int32_t> late_token_ids;          // not drawn before min_tokens
  std::vector<std::vector<int32_t>> bad_words;  // as tokens
  std::shared_ptr<grammar::Grammar> grammar;    // of a guided_* field; null = none
};

// The request's values, else generation_config.json's, else the defaults written in generate.proto. As in vLLM, do_sample of
// generation_config.json decides nothing. Checks nothing.
v1::SamplingParams effective_sampling(const v1::SamplingParams& given, const GenerationDefaults& defaults, uint64_t seed);

// InvalidArgument names field and value. Cheap checks come first, tokenising the prompt last.
absl::StatusOr<ValidRequest> validate_request(const v1::GenerateRequest& request, const ValidationLimits& limits);

}  // namespace invar::engine
