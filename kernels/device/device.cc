#include "kernels/device/device.h"

#include <unistd.h>

#include <array>
#include <cstring>

#include "absl/status/status.h"
#include "kernels/device/cuda/memory.h"

namespace invar {

namespace {

constexpr std::array kControlArms = {
    ControlArm::kNone,          ControlArm::kRankOrderAllReduce, ControlArm::kFixedSplitCount,
    ControlArm::kSwappedGroups, ControlArm::kReversedTies,       ControlArm::kExpertCapacity,
};

}  // namespace

std::string_view name(Backend backend) { return backend == Backend::kCuda ? "cuda" : "cpu"; }

absl::StatusOr<Backend> parse_backend(std::string_view text) {
  for (Backend backend : {Backend::kCpu, Backend::kCuda})
    if (text == name(backend)) return backend;
  return absl::InvalidArgumentError("device: \"" + std::string(text) + "\" is neither \"cpu\" nor \"cuda\"");
}

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::string_view name(Profile profile) {
  switch (profile) {
    case Profile::kPortable:
      return "portable";
    case Profile::kTc:
      return "tc";
  }
  return "unknown";
}

std::string_view name(ControlArm arm) {
  switch (arm) {
    case ControlArm::kNone:
      return "none";
    case ControlArm::kRankOrderAllReduce:
      return "rank-order-all-reduce";
    case ControlArm::kFixedSplitCount:
      return "fixed-split-count";
    case ControlArm::kSwappedGroups:
      return "swapped-groups";
    case ControlArm::kReversedTies:
      return "reversed-ties";
    case ControlArm::kExpertCapacity:
      return "expert-capacity";
  }
  return "unknown";
}

absl::StatusOr<Profile> parse_profile(std::string_view text) {
  for (Profile profile : {Profile::kPortable, Profile::kTc})
    if (text == name(profile)) return profile;
  return absl::InvalidArgumentError("profile: \"" + std::string(text) + "\" is neither \"portable\" nor \"tc\"");
}

absl::StatusOr<ControlArm> parse_control_arm(std::string_view text) {
  for (ControlArm arm : kControlArms)
    if (text == name(arm)) return arm;
  std::string known;
  for (ControlArm arm : kControlArms) known.append(known.empty() ? "" : ", ").append(name(arm));
  return absl::InvalidArgumentError("control arm: \"" + std::string(text) + "\" is not one of " + known);
}

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The four subsets (and F) that the AVX-512 files are compiled with; also covers operating systems that hide the registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

Device::Device(const DeviceOptions& options) : options_(options), pool_(std::make_unique<ThreadPool>(options.threads)) {
  options_.backend = Backend::kCpu;
}
Device::~Device() = default;
Device::Device(Device&&) noexcept = default;

void Device::CloseCuda::operator()(CudaContext* context) const {
  if constexpr (kCudaBuilt) cuda::close(context);
}

Device::Monitor::Monitor(const Device& device, std::function<void(double)> called)
    : all_(device.monitors_), own_(all_->insert(all_->end(), std::move(called))) {}

Device::Monitor::~Monitor() {
  if (all_) all_->erase(own_);
}

Device::Monitor& Device::Monitor::operator=(Monitor&& other) noexcept {
  if (this == &other) return *this;
  if (all_) all_->erase(own_);
  all_ = std::move(other.all_);
  own_ = other.own_;
  return *this;
}

absl::StatusOr<std::unique_ptr<Device>> Device::open(const DeviceOptions& options) {
  auto device = std::make_unique<Device>(options);
  if (options.backend == Backend::kCpu) return device;
  if constexpr (kCudaBuilt) {
    auto context = cuda::open(options.cuda_device);
    if (!context.ok()) return context.status();
    device->cuda_.reset(*context);
    device->options_.backend = Backend::kCuda;
    return device;
  }
  return absl::FailedPreconditionError("--device cuda: this build has no CUDA backend; configure it with -DINVAR_CUDA=ON");
}

std::string Device::describe() const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::describe(*cuda_);
  return "cpu " + std::string(name(isa())) + ", " + std::to_string(options_.threads) + " threads";
}

int Device::cuda_devices() {
  if constexpr (kCudaBuilt) return cuda::device_count();
  return 0;
}

Device::Memory Device::memory() const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::memory(*this);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return {.free = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * page,
          .total = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page};
}

void Device::upload(void* to, const void* from, size_t bytes) const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::upload(*this, to, from, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

void Device::download(void* to, const void* from, size_t bytes) const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::download(*this, to, from, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

void Device::queue_upload(void* to, const void* from, size_t bytes) const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::copy(*this, to, from, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

void Device::queue_download(void* to, const void* from, size_t bytes) const { queue_upload(to, from, bytes); }

void Device::copy(void* to, const void* from, size_t bytes) const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) return cuda::copy(*this, to, from, bytes);
  if (bytes) std::memcpy(to, from, bytes);
}

RecordedWork Device::record(const std::function<void()>& work) const {
  RecordedWork recorded;
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) recorded.graph_ = cuda::record(*this, work);
  return recorded;
}

void Device::run(const RecordedWork& work) const {
  if constexpr (kCudaBuilt) cuda::run(*this, work.graph_.get());
}

uint64_t Device::allocations() {
  if constexpr (kCudaBuilt) return cuda::allocations();
  return 0;
}

void Device::synchronize() const {
  if constexpr (kCudaBuilt)
    if (backend() == Backend::kCuda) cuda::synchronize(*this);
}

}  // namespace invar
