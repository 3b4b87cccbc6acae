// GET /metrics: Prometheus' text format, with the stems of vLLM's names.
#pragma once

#include <string>

#include "rpc/server/serving_state.h"

namespace invar::http {

// Answers while loading and draining too; then what the engine counts is missing.
std::string metrics_text(const rpc::ServingState& state, const std::string& model_name);

}  // namespace invar::http
