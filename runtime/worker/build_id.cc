#include "runtime/worker/build_id.h"

namespace invar {

std::string_view build_id() { return INVAR_BUILD_ID; }

}  // namespace invar
