// The numerics id: which arithmetic an answer was computed with. Equal id + equal model + equal request = equal bits.
#pragma once

#include <string>

#include "kernels/device/device.h"

namespace invar {

// Every constant of kernels/numerics.h that decides bits, one "name=value" a line, floats as bit patterns, and the values its
// functions give at fixed arguments: a changed function body changes the text even where no constant moved.
std::string numerics_text(Profile profile, ControlArm arm);

// "invar-v0-portable-<first 16 hexadecimal digits of SHA-256 of the text>"; with a control arm
// "invar-v0-portable+rank-order-all-reduce-<16 digits>", so that nobody takes a broken run for an honest one.
std::string numerics_id(Profile profile, ControlArm arm = ControlArm::kNone);

}  // namespace invar
