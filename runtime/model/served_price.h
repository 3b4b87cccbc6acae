// What the contract's order of adding costs a server: the steps of a load with our linears and with free ones. For benches only.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "runtime/model/decoder.h"
#include "runtime/model/free_linears.h"
#include "runtime/model/served_steps.h"
#include "runtime/model/step_parts.h"

namespace invar {

// Prints tokens a second of both, the shares of decode, mixed and prompt steps, ours / free - 1 of the whole and of each, and
// what the kinds of operations of a mixed step cost on either side. `load` fits the decoder's pages and positions.
absl::Status price_serving(const Device& device, Decoder& decoder, FreeLinears& linears, StepParts& parts,
                           const std::string& name, const ServedLoad& load);

}  // namespace invar
