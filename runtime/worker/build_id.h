// Which build this program is: ranks of different builds do not work together.
#pragma once

#include <string_view>

namespace invar {

std::string_view build_id();  // "0.1.0-<commit>"

}  // namespace invar
