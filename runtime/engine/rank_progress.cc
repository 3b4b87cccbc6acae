#include "runtime/engine/rank_progress.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_format.h"
#include "runtime/model_config/message.h"

namespace invar {
namespace {

// Reports come about once a second; a process that says nothing for longer is stopped, starved or gone.
constexpr std::chrono::seconds kSilence{5};
constexpr size_t kMostOthers = 8;  // a message, not a list

std::string where(const RankProgress& r) {
  return r.phase.empty() ? "none yet" : message(r.phase, " (collective ", r.collective, ")");
}

}  // namespace

std::string describe_stall(const std::vector<RankProgress>& ranks, RankProgress::Clock::time_point now) {
  uint64_t furthest = 0;
  std::map<int, uint64_t> most;  // collectives, by group
  for (const RankProgress& r : ranks) {
    furthest = std::max(furthest, r.steps_begun);
    most[r.group] = std::max(most[r.group], r.collectives_begun);
  }
  const auto under_way = [&](const RankProgress& r) { return r.steps_finished < furthest; };
  const auto silent = [&](const RankProgress& r) { return now - r.heard > kSilence; };
  const auto free = [&](const RankProgress& r) { return under_way(r) && (!r.waiting || silent(r)); };
  const bool some_free = std::any_of(ranks.begin(), ranks.end(), free);
  std::string behind, others;
  size_t listed = 0;
  for (const RankProgress& r : ranks) {
    if (!under_way(r)) continue;
    const std::string name = message("rank ", r.rank, " on host ", r.host);
    if (some_free ? !free(r) : r.collectives_begun == most[r.group]) {
      if (listed++ < kMostOthers) others += message("; ", name, " waits in ", where(r));
      continue;
    }
    behind += message(behind.empty() ? "" : "; ", name);
    if (silent(r)) {
      behind += absl::StrFormat(" has not been heard of for %.0f s", std::chrono::duration<double>(now - r.heard).count());
    } else {
      behind += some_free ? " does not wait for anybody" : " is behind the others of its group";
    }
    behind += r.steps_begun > r.steps_finished ? message(": step ", r.steps_begun, " under way, ")
                                               : message(": step ", r.steps_begun + 1, " not begun, ");
    behind += message(r.collectives_begun, " collectives, ", r.waiting ? "in " : "the last ", where(r));
  }
  if (listed == 0 && behind.empty()) return "";
  if (listed > kMostOthers) others += message("; ", listed - kMostOthers, " more wait");
  return (behind.empty() ? "all ranks wait for each other" : behind) + others;
}

}  // namespace invar
