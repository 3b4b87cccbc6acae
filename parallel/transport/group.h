// Group: a view of some ranks of a transport with collectives built on exchange() alone. Data movement only.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "parallel/transport/transport.h"

namespace invar::parallel {

// Every member calls the same collectives in the same order. Indices below are places in `members`, not transport ranks.
// Copying a Group copies the view, not the ranks; copies count collectives apart.
class Group {
 public:
  // `members` are transport ranks, distinct, the same list on each of them; the transport's rank must be among them.
  Group(Transport& transport, std::vector<int> members, int tag = 0);
  static Group of_all(Transport& transport, int tag);

  int index() const { return index_; }
  int size() const { return static_cast<int>(members_.size()); }
  int member(int index) const { return members_[index]; }
  Transport& transport() const { return *transport_; }
  uint64_t collectives() const { return collectives_; }
  // The same ranks for bytes in host memory. Every rank must mix the calls of both groups in the same order.
  Group on_host() const { return Group(transport_->host_memory(), members_, tag_); }

  // Each member's `mine` (equal sizes) to everybody: all = size() pieces in member order. mine may be its own place in all.
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all, const char* name = "all-gather");
  // The same with sizes that differ: pieces[i] is where member i's bytes go and says how many they are; mine.size() ==
  // pieces[index()].size().
  void all_gather_v(std::span<const std::byte> mine, std::span<const std::span<std::byte>> pieces,
                    const char* name = "all-gather");
  // to[i] goes to member i, from[i] comes from it; sizes agree pairwise, empty ones are skipped.
  void all_to_all_v(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from,
                    const char* name = "all-to-all");
  // root's bytes to all.
  void broadcast(std::span<std::byte> bytes, int root, const char* name = "broadcast");
  // Each member's `mine` (equal sizes) to root; `all` is looked at on root only.
  void gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, const char* name = "gather");
  void barrier(const char* name = "barrier");
  // What the first member that has something to object objects, on all of them (FailedPrecondition, with its rank): for steps
  // that a member can't take alone.
  absl::Status agree(const absl::Status& mine, const char* name = "agreement");
  // Any pattern, peers being indices of this group. For algorithms that need several messages a pair.
  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const char* name);

 private:
  Phase next(const char* name) { return Phase{name, tag_, ++collectives_}; }

  Transport* transport_;
  std::vector<int> members_;
  int tag_;
  int index_ = -1;
  uint64_t collectives_ = 0;
};

}  // namespace invar::parallel
