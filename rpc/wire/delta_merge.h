// Responses of one request that wait for a slow reader are made one.
#pragma once

#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

// Appends `next` to `waiting`: per choice text, ids, log-probabilities, hashes and draws are concatenated, what comes once
// (finish reason, digest, receipt, usage) is taken over. Whoever concatenates responses sees no difference.
void merge_response(const v1::GenerateResponse& next, v1::GenerateResponse& waiting);

}  // namespace invar::rpc
