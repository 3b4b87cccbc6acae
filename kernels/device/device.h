// A device: where kernels of one rank run, and with which rules. Backend is chosen at start, never per call.
//
// With Backend::kCuda every pointer of a Problem struct is device memory unless its comment says "host", work is queued on the
// device's one stream, and results are there after synchronize() or download().
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/numerics.h"

namespace invar {

using numerics::Bf16;
using numerics::Profile;

enum class Backend : uint8_t { kCpu, kCuda };
// Is the CUDA backend part of this build? Code of the backend is reached through `if constexpr (kCudaBuilt)` only, so that a
// build without it links.
inline constexpr bool kCudaBuilt = INVAR_CUDA;
// Vector paths of the CPU backend. Equal bits on each; kScalar is the reference and works on any machine.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512 };

std::string_view name(Backend backend);
absl::StatusOr<Backend> parse_backend(std::string_view text);  // "cpu" | "cuda"
std::string_view name(Isa isa);
std::string_view name(Profile profile);
absl::StatusOr<Profile> parse_profile(std::string_view text);  // "portable" | "tc"
// The widest path this machine can run.
Isa detect_isa();

class Device;
struct CudaContext;  // kernels/device/cuda/context.h

// The device failed under a call that no input can make fail: a lost GPU, memory that is gone, a launch out of bounds. The rank
// cannot go on.
class DeviceFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Memory of a device: at least 64-byte aligned (CUDA: 256), zeroed, freed with the object. Sizes in bytes. Throws std::bad_alloc
// on the host, DeviceFailure with the sizes on a GPU.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // host
  Buffer(const Device& device, size_t bytes);
  // For what stays as long as the model: smaller host buffers share huge pages, which makes streaming them a fifth faster. Their
  // memory is not used again before all their neighbours are gone, so nothing that comes and goes belongs here.
  static Buffer lasting(const Device& device, size_t bytes);
  // Host memory that the device's copy engine reaches by itself; plain host memory on the CPU backend.
  static Buffer staging(const Device& device, size_t bytes);
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct SharedPages;
  enum class Origin : uint8_t { kHeap, kMapped, kSharedPages, kCuda, kCudaHost };
  struct Free {
    Origin origin;
    size_t mapped;       // kMapped: bytes to give back to the kernel
    SharedPages* pages;  // kSharedPages: where a lasting buffer lives
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
  Backend backend = Backend::kCpu;
  int cuda_device = 0;  // index among the devices this process sees
};

// Work that was queued once and can be queued again at the cost of one launch. Kernels get the very arguments they had: what
// changes from time to time they must read from memory. Empty on the CPU backend.
class RecordedWork {
 public:
  RecordedWork() = default;
  explicit operator bool() const { return static_cast<bool>(graph_); }

 private:
  friend class Device;
  std::shared_ptr<void> graph_;
};

// Called with the seconds waited so far (Device::Monitor).
using DeviceMonitors = std::list<std::function<void(double)>>;

// One rank's device. Used by one thread at a time; several devices of a process may share a GPU.
class Device {
 public:
  explicit Device(const DeviceOptions& options);  // CPU
  // Either backend. NotFound / FailedPrecondition name the device and what is missing.
  static absl::StatusOr<std::unique_ptr<Device>> open(const DeviceOptions& options);
  ~Device();
  Device(Device&&) noexcept;

  Backend backend() const { return options_.backend; }
  Profile profile() const { return options_.profile; }
  Isa isa() const { return options_.isa; }
  ControlArm control_arm() const { return options_.control_arm; }
  ThreadPool& pool() const { return *pool_; }
  const CudaContext& cuda() const { return *cuda_; }  // kCuda only
  std::string describe() const;                       // "cpu avx512, 2 threads", "cuda:0 NVIDIA H100 80GB HBM3"

  // GPUs that this process can use; 0 in a build without CUDA, or without a driver.
  static int cuda_devices();

  // Bytes of the device's memory, and what of it is free now; of the host with Backend::kCpu.
  struct Memory {
    size_t free, total;
  };
  Memory memory() const;

  // Bytes move in the order of the calls and of the kernels queued between them. `from` of an upload may be changed when the
  // call returns. A download has happened when it returns.
  void upload(void* to, const void* from, size_t bytes) const;
  void download(void* to, const void* from, size_t bytes) const;
  void copy(void* to, const void* from, size_t bytes) const;  // within the device, ranges apart
  // The same without waiting, for staging buffers: the host's bytes must be left alone until synchronize().
  void queue_upload(void* to, const void* from, size_t bytes) const;
  void queue_download(void* to, const void* from, size_t bytes) const;
  // Waits for all that was queued. Throws DeviceFailure if the device failed, or did not finish within the deadline.
  void synchronize() const;
  // kCuda: what `work` queues, recorded instead of run. It must neither wait nor allocate.
  RecordedWork record(const std::function<void()>& work) const;
  void run(const RecordedWork& work) const;
  // How often memory was taken of any CUDA device so far. Recorded work is stale when buffers it uses have moved.
  static uint64_t allocations();

  // Called while synchronize() waits, from time to time and when all has ended, with the seconds waited so far; may throw: what
  // was queued is then no result. For whoever queued work that depends on other ranks, as long as this lives. Several stand side
  // by side, and all are asked: each knows of its own waits only.
  class Monitor {
   public:
    Monitor() = default;
    Monitor(const Device& device, std::function<void(double)> called);
    ~Monitor();
    Monitor(Monitor&& other) noexcept : all_(std::move(other.all_)), own_(other.own_) {}
    Monitor& operator=(Monitor&& other) noexcept;

   private:
    std::shared_ptr<DeviceMonitors> all_;
    DeviceMonitors::iterator own_;
  };
  void ask_monitors(double waited_seconds) const {
    for (const auto& called : *monitors_) called(waited_seconds);
  }

 private:
  struct CloseCuda {
    void operator()(CudaContext* context) const;
  };
  DeviceOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<CudaContext, CloseCuda> cuda_;
  std::shared_ptr<DeviceMonitors> monitors_ = std::make_shared<DeviceMonitors>();
};

}  // namespace invar
