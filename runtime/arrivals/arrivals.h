// When requests come, and how long they are: recorded, or made from a seed. No text: whoever replays them makes the prompts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace invar {

struct Arrival {
  double at = 0;  // seconds after the first
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// The first `most` requests of a CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, in any order and among others
// (Azure's LLM traces), ascending in time. InvalidArgument or NotFound, naming file and line.
absl::StatusOr<std::vector<Arrival>> read_arrivals(const std::string& path, int64_t most);

// All at once, of lengths that scatter as those of a chat service do (about log-normal): prompts of 512 tokens in the median and
// 4 to 8192 at the most, answers of 128 and 4 to 1024. Integers only, so that every machine makes the same.
std::vector<Arrival> made_arrivals(int64_t count, uint64_t seed);

// Too long for a model: the answer gets half of its context at most, the prompt the rest; both at least one token. True if that
// made the request shorter.
bool cut_to_context(Arrival* arrival, int64_t max_model_len);

}  // namespace invar
