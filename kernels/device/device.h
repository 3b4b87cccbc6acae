// A device: where kernels of one rank run, and with which rules. Backend is chosen at start, never per call.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/numerics.h"

namespace invar {

using numerics::Bf16;
using numerics::Profile;

enum class Backend : uint8_t { kCpu };
// Vector paths of the CPU backend. Equal bits on each; kScalar is the reference and works on any machine.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512 };

std::string_view name(Isa isa);
std::string_view name(Profile profile);
absl::StatusOr<Profile> parse_profile(std::string_view text);  // "portable" | "tc"
// The widest path this machine can run.
Isa detect_isa();

// Memory of a device: 64-byte aligned, zeroed, freed with the object. Sizes in bytes.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  // For what stays as long as the model: smaller buffers share huge pages, which makes streaming them a fifth faster. Their
  // memory is not used again before all their neighbours are gone, so nothing that comes and goes belongs here.
  static Buffer lasting(size_t bytes);
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct SharedPages;
  struct Free {
    size_t mapped;       // bytes to give back to the kernel; 0 = not one's own mapping
    SharedPages* pages;  // where a lasting buffer lives; null and mapped == 0 = from the heap
    void operator()(std::byte* p) const;
  };
  using Pointer = std::unique_ptr<std::byte, Free>;
  Pointer data_;
  size_t size_ = 0;
};

// Fixed worker threads of one rank. `run(n, f)` calls f(i) for i in [0, n) once each, in any order on any thread, and returns
// when all are done; the caller works too. One caller at a time; a run inside f is serial. If f throws, the other items
// may or may not run and one exception comes out of run(). Idle workers sleep. Results never depend on the thread count:
// kernels hand out whole outputs.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1, counting the caller
  ~ThreadPool();
  int threads() const;
  void run(int64_t n, const std::function<void(int64_t)>& f);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Deliberate breaks of the contract, one a test each: every determinism test has a twin that runs under one of these and
// must differ. Never part of a served answer's promise: the numerics id names the arm.
enum class ControlArm : uint8_t {
  kNone,
  kRankOrderAllReduce,  // partial sums are added in rank order, as an ordinary all-reduce does
  kFixedSplitCount,     // K is cut into a count of pieces chosen by the batch size, as split-K heuristics do
  kSwappedGroups,       // the first two k16 groups of each leaf change places
  kReversedTies,        // equal values: the highest id wins, in the router and the sampler
  kExpertCapacity,      // an expert takes a bounded number of rows a step and drops the rest
};
std::string_view name(ControlArm arm);
absl::StatusOr<ControlArm> parse_control_arm(std::string_view text);  // "none", "rank-order-all-reduce", ...

struct DeviceOptions {
  Profile profile = Profile::kPortable;
  int threads = 1;
  Isa isa = detect_isa();
  ControlArm control_arm = ControlArm::kNone;
};

class Device {
 public:
  explicit Device(const DeviceOptions& options) : options_(options), pool_(std::make_unique<ThreadPool>(options.threads)) {}
  Backend backend() const { return Backend::kCpu; }
  Profile profile() const { return options_.profile; }
  Isa isa() const { return options_.isa; }
  ControlArm control_arm() const { return options_.control_arm; }
  ThreadPool& pool() const { return *pool_; }

 private:
  DeviceOptions options_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace invar
