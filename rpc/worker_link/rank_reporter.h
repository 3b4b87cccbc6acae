// Tells the coordinator how far a rank of this process is, also while it hangs.
#pragma once

#include <functional>
#include <memory>

#include "rpc/worker_link/link_channel.h"
#include "runtime/engine/rank_progress.h"

namespace invar::rpc {

// A thread and a connection of its own; says what `read` gives about once a second until it is destroyed. A coordinator that does
// not answer is asked again later: whether it lives is the link's business.
class RankReporter {
 public:
  // `link`: where, and with what certificates. `read` is called from the thread.
  RankReporter(const LinkOptions& link, int replica, std::function<RankProgress()> read);
  ~RankReporter();  // does not wait for an answer
  RankReporter(const RankReporter&) = delete;
  RankReporter& operator=(const RankReporter&) = delete;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::rpc
