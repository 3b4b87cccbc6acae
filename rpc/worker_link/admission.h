// Who may join: a pure check of a worker's Hello against what the coordinator expects.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "parallel/grid/grid.h"
#include "rpc/proto/worker_link.pb.h"
#include "runtime/engine/executor.h"

namespace invar::rpc {

struct Expected {
  parallel::Layout layout;
  std::string build_id, numerics_id, model_digest;  // an empty one is not checked here
};

// What a refused worker would have computed with, where that is why.
enum class Mismatch : uint8_t { kNone, kBuild, kNumericsId, kModelDigest };

// FailedPrecondition whose message is the reason a worker is refused, by name: "rank 3 on host h1: numerics id X, expected Y".
// InvalidArgument when the Hello itself makes no sense (ranks that do not fill the layout, no pages).
absl::Status check_hello(const v1::Hello& hello, const Expected& expected, Mismatch* mismatch = nullptr);

ReplicaFacts to_facts(const v1::Hello& hello);      // of a Hello that passed check_hello
std::string layout_name(const v1::Layout& layout);  // "tp2 pp1 ep1 dp2"

}  // namespace invar::rpc
