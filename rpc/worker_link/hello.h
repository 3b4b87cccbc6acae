// What a worker group says of itself, from the runtime's structs.
#pragma once

#include <vector>

#include "parallel/grid/grid.h"
#include "rpc/proto/worker_link.pb.h"
#include "runtime/engine/executor.h"
#include "runtime/worker/rank_start.h"

namespace invar::rpc {

// `replica`: data-parallel index; `reports`: of all ranks of the replica, the leader first.
v1::Hello make_hello(int replica, const parallel::Layout& layout, const ReplicaFacts& facts,
                     const std::vector<RankReport>& reports);
// The replica for GetServerInfo. `address`: of its leader, empty for ranks in this process.
v1::ReplicaInfo to_info(const v1::Hello& hello, const std::string& address);
v1::Layout to_proto(const parallel::Layout& layout);

}  // namespace invar::rpc
