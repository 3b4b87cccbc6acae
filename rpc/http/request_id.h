// Names of requests in logs and answers.
#pragma once

#include <string>

#include "rpc/http/message.h"

namespace invar::http {

// 32 hex digits, not seen before.
std::string new_request_id();
// The client's X-Request-Id where it is 1 to 128 printable characters without spaces and quotes; otherwise a new one.
std::string request_id_of(const Request& request);

}  // namespace invar::http
