// How config.json says what rotary embedding a model has, in both spellings.
#pragma once

#include "runtime/model_config/fields.h"
#include "runtime/model_config/model_config.h"

namespace invar {

// Fills config.rope and config.rope_theta from `rope_theta` + `rope_scaling` (older) or `rope_parameters` (newer).
// Needs config.max_position_embeddings. Mistakes go to `fields`.
void read_rope(Fields& fields, ModelConfig& config);

}  // namespace invar
