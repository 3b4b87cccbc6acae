// Transport: moves bytes between ranks, never adds. Two implementations: threads of one process, and MPI.
//
// One thread per rank uses its transport; only interrupt() may come from another. No wait is without a deadline.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "parallel/transport/peer_failure.h"

namespace invar::parallel {

struct Send {
  int peer;
  std::span<const std::byte> bytes;
};
struct Receive {
  int peer;
  std::span<std::byte> bytes;
};
// What an exchange is for. The tag keeps unrelated streams between the same two ranks apart; name and collective are for errors.
struct Phase {
  const char* name;
  int tag = 0;  // 0 .. kMaxTag
  uint64_t collective = 0;
};
inline constexpr int kMaxTag = 4095;

struct TransportOptions {
  // A wait in which nothing moves for this long ends with PeerFailure. Must exceed the longest computation between two
  // exchanges of any rank.
  std::chrono::milliseconds timeout{60000};
  // Of threads only: ranks of this host that other groups of the same launch have, those before this group's among them.
  int local_before = 0, local_others = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;  // never communicates

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& host() const = 0;
  // Place among the ranks of this host, and how many they are.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  // Posts everything, then waits for all of it. Matching is first in, first out per (source, destination, tag), so several
  // entries for one peer match in order; a rank may be its own peer. Both sides must name the same number of bytes; entries of
  // zero bytes move nothing and match nothing. May return only when every peer has taken its bytes: a ring of exchanges that
  // each send before any receives may hang until the deadline. Throws PeerFailure; the group is then unusable.
  virtual void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) = 0;

  // The transport for bytes in host memory: this one, unless it moves the memory of a device.
  virtual Transport& host_memory() { return *this; }

  // Messages of a size only the sender knows; first in, first out per (source, destination, tag), apart from exchanges of the
  // same tag. Sending copies, posts and returns: a message not taken within the timeout fails a later call of the sender.
  virtual void send_message(int peer, int tag, std::span<const std::byte> bytes) = 0;
  // Waits up to `wait` for a message to begin to arrive (false: none did, call again), then takes all of it under the
  // transport's own timeout. Idle ranks wait here for the next plan, renewing the wait as long as they are meant to live.
  virtual bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) = 0;

  // From any thread: every wait of this rank, present and future, throws PeerFailure. Not undone.
  virtual void interrupt() = 0;
  // After a failure, to spare the peers their deadlines: threads - interrupts every rank and returns; MPI - ends the job with
  // this exit code and does not return.
  virtual void abort(int exit_code) = 0;
  // The last call on a healthy transport, by every rank: waits until sent messages are taken and leaves the group.
  virtual void finalize() = 0;
};

// Ranks that are threads of this process: one transport for each, sharing state that lives as long as any of them.
std::vector<std::unique_ptr<Transport>> start_threads(int size, const TransportOptions& options = {});

// This process as one rank of the MPI job that mpirun or srun started. Call once, on the thread that will use it.
// Unimplemented in a build without MPI.
absl::StatusOr<std::unique_ptr<Transport>> start_mpi(const TransportOptions& options = {});

// Exchanges of memory that `device` owns: through page-locked host memory and `inner`, which carries everything else as it is.
// Both outlive it. With a CPU there is nothing to stage.
std::unique_ptr<Transport> staged(Transport& inner, const Device& device);

// The same over NCCL, GPU to GPU; messages and host memory still go through `inner`. A collective over all of inner's ranks: the
// same verdict on each. FailedPrecondition where two ranks share a GPU or NCCL is not installed; throws PeerFailure. An exchange
// returns when it is queued on the device's stream; a peer that never comes is noticed while the device is waited for.
absl::StatusOr<std::unique_ptr<Transport>> start_nccl(Transport& inner, const Device& device,
                                                      const TransportOptions& options = {});

// For tests: waits a seeded random time in [0, most] before each exchange or message, and posts the sends of an exchange in a
// random order (that of one peer's entries is kept), so that arrival orders differ from run to run.
struct Delays {
  uint64_t seed = 0;
  std::chrono::microseconds most{500};
};
std::unique_ptr<Transport> delayed(std::unique_ptr<Transport> inner, const Delays& delays);

}  // namespace invar::parallel
