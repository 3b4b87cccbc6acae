// What generation_config.json adds to a model's configuration.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "runtime/model_config/fields.h"
#include "runtime/model_config/model_config.h"

namespace invar {

// bos_token_id and eos_token_id (a number or a list) where given; ids must lie inside the vocabulary.
void read_stop_tokens(Fields& fields, ModelConfig& config);

// All that counts in generation_config.json: the tokens above win over config.json's, and the sampling defaults.
absl::Status read_generation_config(std::string_view generation_config_json, ModelConfig& config);

}  // namespace invar
