// A rank that did not come, came with the wrong size, or was told to stop: ends the worker group (parallel/README.md).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace invar::parallel {

class PeerFailure : public std::runtime_error {
 public:
  enum class Cause : uint8_t {
    kTimeout,       // nothing moved for the transport's timeout
    kInterrupted,   // interrupt() from another thread of this rank, or a peer's abort()
    kSizeMismatch,  // the peer sent another number of bytes than was waited for: a bug in this program
    kLost,          // the transport itself reported an error
  };
  struct Facts {
    Cause cause = Cause::kTimeout;
    int rank = -1;            // who waited
    std::string host;         // where
    std::string phase;        // in what
    uint64_t collective = 0;  // number of the collective in its group, from 1; 0 = not part of one
    int peer = -1;            // for whom; the first one, should there be several; -1 = none in particular
    bool sending = false;     // true: waited for the peer to take bytes; false: to send them
    uint64_t expected = 0;    // bytes
    uint64_t got = 0;         // bytes
    double waited_seconds = 0;
    std::string detail;  // the transport's own words, other peers waited for
  };
  explicit PeerFailure(Facts facts);
  const Facts& facts() const { return facts_; }

 private:
  Facts facts_;
};

}  // namespace invar::parallel
