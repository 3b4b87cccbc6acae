// What ranks tell each other once, before the first plan.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/transport/transport.h"

namespace invar {

// What a rank says of itself after loading: the coordinator compares these before any work.
struct RankReport {
  int rank = 0;
  std::string host;
  int pid = 0;
  std::string device;  // "cpu avx512, 2 threads"
  std::string numerics_id;
  std::string model_digest;
  std::string build_id;
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
};

// Collective over the world: the first rank of each host calls `compute` and hands the model digest to the others of its host.
// An error of `compute` reaches them all.
absl::StatusOr<std::string> share_digest(parallel::Transport& transport,
                                         const std::function<absl::StatusOr<std::string>()>& compute);

// Collective over `members`, the leader first: the leader gets every report in member order, the others an empty list. Waits for
// slow loaders up to half an hour.
std::vector<RankReport> gather_reports(parallel::Transport& transport, const std::vector<int>& members, const RankReport& mine);

}  // namespace invar
