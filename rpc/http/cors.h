// Cross-origin requests of browsers. Internal to this folder.
#pragma once

#include <memory>

#include "rpc/http/api.h"

namespace invar::http {

// The exchange itself, or one that adds the headers which let the page's origin read the answer.
std::shared_ptr<Exchange> with_cors(std::shared_ptr<Exchange> exchange, const CorsOptions& options);
// True: it was a preflight, and is answered.
bool answer_preflight(Exchange& exchange, const CorsOptions& options);

}  // namespace invar::http
