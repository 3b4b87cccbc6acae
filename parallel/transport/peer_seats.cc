#include "parallel/transport/peer_seats.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace invar::parallel {
namespace {

template <typename Pair>  // bool (int earlier, int later); true ends the search
bool any_on_one_gpu(std::span<const PeerSeat> seats, const Pair& pair) {
  for (int later = 0; later < static_cast<int>(seats.size()); ++later)
    for (int earlier = 0; earlier < later; ++earlier)
      if (seats[earlier].same_gpu(seats[later]) && pair(earlier, later)) return true;
  return false;
}

absl::Status refused(int earlier, int later, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("--exchange peer: ranks ", earlier, " and ", later, " ", what,
                                                    "; give each one of its own, or use --exchange host"));
}

}  // namespace

bool gpus_are_shared(std::span<const PeerSeat> seats) {
  return any_on_one_gpu(seats, [](int, int) { return true; });
}

absl::Status check_shared_gpus(std::span<const PeerSeat> seats, const std::vector<int>& members, SharedGpus shared) {
  const auto member = [&](int rank) { return std::find(members.begin(), members.end(), rank) != members.end(); };
  absl::Status status;
  any_on_one_gpu(seats, [&](int earlier, int later) {
    if (shared == SharedGpus::kRefused)
      status = refused(earlier, later, "share a GPU");
    else if (!seats[earlier].same_process(seats[later]))
      status = refused(earlier, later, "are processes that share a GPU");
    else if (member(earlier) && member(later))
      for (int other = 0; other < static_cast<int>(seats.size()) && status.ok(); ++other)
        if (!member(other) && seats[other].same_gpu(seats[later]))
          status = refused(earlier, later, absl::StrCat("share a GPU with rank ", other, ", who is of another group"));
    return !status.ok();
  });
  return status;
}

const void* first_on_gpu(std::span<const PeerSeat> seats, int rank) {
  return std::find_if(seats.begin(), seats.end(),
                      [&](const PeerSeat& seat) { return seat.same_gpu(seats[rank]) && seat.same_process(seats[rank]); })
      ->owner;
}

}  // namespace invar::parallel
