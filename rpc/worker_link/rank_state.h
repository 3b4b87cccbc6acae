// RankProgress on its way from a rank's process to the coordinator.
#pragma once

#include "rpc/proto/worker_link.pb.h"
#include "runtime/engine/rank_progress.h"

namespace invar::rpc {

v1::RankState to_proto(int replica, const RankProgress& progress);
// As heard now. Texts are cut to 256 bytes.
RankProgress to_progress(const v1::RankState& state);

}  // namespace invar::rpc
