#include "parallel/transport/peer_memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda/context.h"
#include "parallel/transport/gpu_tenant.h"

namespace invar::parallel {
namespace {

// All kernels are loaded when a GPU is first used. By default the driver loads each at its first launch and waits for the GPU's
// work meanwhile: for good, if that is a kernel that waits for a peer whose own kernel is what is to be loaded (ranks that share
// a GPU, ranks of one process). Before main(), because the driver reads it at its first call, and because other threads may not
// read the environment while it is written. Who has set it otherwise has his reasons.
[[maybe_unused]] const bool loads_at_once = setenv("CUDA_MODULE_LOADING", "EAGER", 0) == 0;

constexpr size_t kQuickBytes = size_t{8} << 20, kRowsBytes = size_t{8} << 20;
constexpr std::chrono::seconds kTrial{20};  // of a first meeting over the mapped memory

const char* name_of(uint32_t phase) {
  switch (static_cast<PeerPhase>(phase)) {
    case PeerPhase::kGreeting:
      return "a first word";
    case PeerPhase::kValues:
      return "tree all-reduce (gather, peer memory)";
    case PeerPhase::kSlices:
      return "tree all-reduce (scatter, peer memory)";
    case PeerPhase::kResults:
      return "tree all-reduce (gather of slices, peer memory)";
    case PeerPhase::kRows:
      return "embedding rows (peer memory)";
    case PeerPhase::kShards:
      return "logits (peer memory)";
    case PeerPhase::kArrivals:
      return "tree all-reduce (values sent by linears, peer memory)";
    case PeerPhase::kNone:
      break;
  }
  return "peer memory";
}

// What members tell each other.
struct Offer {
  std::byte* window;  // for threads of one process
  cudaIpcMemHandle_t handle;
};

absl::Status failed(const char* call, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("--exchange peer: ", call, ": ", why));
}
absl::Status failed(const char* call, cudaError_t error) {
  cudaGetLastError();  // not sticky: clear it
  return failed(call, absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

// Memory of one GPU that the named GPUs of this process reach, by the driver's mapping calls: cudaDeviceEnablePeerAccess would
// open every allocation of the process to all, and make each later one slower.
struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemAddressFree) free = nullptr;

  absl::Status load() {
    absl::Status status;
    const auto find = [&](auto& function, const char* name) {
      cudaDriverEntryPointQueryResult result;
      const cudaError_t error =
          cudaGetDriverEntryPointByVersion(name, reinterpret_cast<void**>(&function), 12000, cudaEnableDefault, &result);
      if (error != cudaSuccess)
        status = failed(name, error);
      else if (result != cudaDriverEntryPointSuccess)
        status = failed(name, "the driver has no such call");
    };
    find(granularity, "cuMemGetAllocationGranularity");
    find(create, "cuMemCreate");
    find(reserve, "cuMemAddressReserve");
    find(map, "cuMemMap");
    find(set_access, "cuMemSetAccess");
    find(unmap, "cuMemUnmap");
    find(release, "cuMemRelease");
    find(free, "cuMemAddressFree");
    return status;
  }
};

PeerLayout layout_of(const PeerSizes& sizes, bool first_member) {
  const auto whole_pages = [](size_t bytes) { return (bytes + 4095) / 4096 * 4096; };
  return {.quick_bytes = kQuickBytes,
          .rows_bytes = kRowsBytes,
          .values_bytes = whole_pages(sizes.values),
          .results_bytes = whole_pages(sizes.results),
          .arrival_bytes = whole_pages(sizes.arrivals),
          .whole_bytes = first_member ? sizes.whole : 0};
}

}  // namespace

size_t peer_window_bytes(const PeerSizes& sizes) { return layout_of(sizes, true).bytes(); }

struct PeerMemory::Mapping {
  Driver driver;
  bool threads = false;  // of one process, else processes
  GpuTenant tenant;
  bool kept = false;
  std::byte* own = nullptr;
  size_t reserved = 0;  // bytes mapped by the driver's calls; 0: own is an ordinary allocation
  CUmemGenericAllocationHandle handle{};
  std::vector<void*> opened;  // peers' windows in other processes

  // `readers`: GPUs of this process that will write there.
  absl::Status allocate(const Device& device, const PeerLayout& layout, const std::vector<int>& readers) {
    const size_t bytes = layout.bytes();
    if (readers.empty()) {
      const cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&own), bytes);
      if (error != cudaSuccess) return failed("the window's memory", error);
    } else {
      absl::Status status = driver.load();
      if (!status.ok()) return status;
      CUmemAllocationProp what{};
      what.type = CU_MEM_ALLOCATION_TYPE_PINNED;
      what.location = {CU_MEM_LOCATION_TYPE_DEVICE, device.cuda().index};
      size_t unit = 0;
      const auto ok = [&](CUresult result, const char* call) {
        if (result != CUDA_SUCCESS && status.ok()) status = failed(call, absl::StrCat("driver error ", static_cast<int>(result)));
        return result == CUDA_SUCCESS;
      };
      if (!ok(driver.granularity(&unit, &what, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED), "cuMemGetAllocationGranularity"))
        return status;
      const size_t rounded = (bytes + unit - 1) / unit * unit;
      if (!ok(driver.create(&handle, rounded, &what, 0), "cuMemCreate")) return status;
      CUdeviceptr at = 0;
      if (!ok(driver.reserve(&at, rounded, unit, 0, 0), "cuMemAddressReserve")) return status;
      if (!ok(driver.map(at, rounded, 0, handle, 0), "cuMemMap")) return status;
      own = reinterpret_cast<std::byte*>(at);
      reserved = rounded;
      std::vector<CUmemAccessDesc> access;
      for (const int reader : readers)
        access.push_back({{CU_MEM_LOCATION_TYPE_DEVICE, reader}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE});
      if (!ok(driver.set_access(at, rounded, access.data(), access.size()), "cuMemSetAccess")) return status;
    }
    static_assert(kAbsentWord == 0xffffffffu);
    cudaError_t error = cudaMemset(own, 0, bytes);
    if (error == cudaSuccess) error = cudaMemset(own + layout.arrivals(0), 0xff, 2 * layout.arrival_bytes);
    if (error != cudaSuccess) return failed("clearing the window", error);
    const cudaError_t done = cudaDeviceSynchronize();
    return done == cudaSuccess ? absl::OkStatus() : failed("clearing the window", done);
  }
  // Errors are not looked at: the process may be ending because the device failed.
  ~Mapping() {
    if (kept) return;
    for (void* p : opened) cudaIpcCloseMemHandle(p);
    if (reserved) {
      driver.unmap(reinterpret_cast<CUdeviceptr>(own), reserved);
      driver.free(reinterpret_cast<CUdeviceptr>(own), reserved);
    } else if (own) {
      cudaFree(own);
    }
    if (handle) driver.release(handle);
  }
};

PeerMemory::PeerMemory(Transport& inner, const Device& device, const std::vector<int>& members, const TransportOptions& options)
    : inner_(inner), device_(device), members_(members), options_(options), hosts_(inner.host_memory(), members, kMaxTag - 1) {
  view_.rank = hosts_.index();
  view_.ranks = hosts_.size();
}

absl::StatusOr<std::unique_ptr<PeerMemory>> PeerMemory::open(Transport& inner, const Device& device,
                                                             const std::vector<int>& members, const PeerSizes& sizes,
                                                             const TransportOptions& options, SharedGpus shared) {
  auto memory = std::unique_ptr<PeerMemory>(new PeerMemory(inner, device, members, options));
  const absl::Status status = memory->connect(sizes, shared);
  if (!status.ok()) return status;
  return memory;
}

absl::Status PeerMemory::agree(const absl::Status& mine) {
  return Group::of_all(inner_.host_memory(), kMaxTag - 1).agree(mine, "peer memory");
}

absl::Status PeerMemory::connect(const PeerSizes& sizes, SharedGpus shared) {
  absl::Status status;
  if (device_.backend() != Backend::kCuda)
    status = absl::InvalidArgumentError("--exchange peer: moves GPU memory only; this rank runs on a CPU");
  else if (view_.ranks > kMostPeers)
    status = absl::FailedPreconditionError(absl::StrCat("--exchange peer: a group of ", view_.ranks, " ranks; 8 at most"));
  status = agree(status);
  if (!status.ok()) return status;
  return try_connect(sizes, shared);
}

// Each step ends with an agreement: a rank that went on alone would wait for one that left.
absl::Status PeerMemory::try_connect(const PeerSizes& sizes, SharedGpus shared) {
  PeerSeat mine;
  inner_.host().copy(mine.host, sizeof mine.host - 1);
  cudaDeviceProp properties;
  cuda::check(cudaSetDevice(device_.cuda().index));
  cuda::check(cudaGetDeviceProperties(&properties, device_.cuda().index));
  std::memcpy(mine.gpu, properties.uuid.bytes, sizeof mine.gpu);
  mine.pid = getpid();
  mine.index = device_.cuda().index;
  mine.owner = &inner_;
  std::vector<PeerSeat> seats(static_cast<size_t>(inner_.size()));
  Group::of_all(inner_.host_memory(), kMaxTag - 1)
      .all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(seats)), "peer memory: who is where");

  auto mapping = std::make_unique<Mapping>();
  mapping->threads = true;
  for (const int member : members_) mapping->threads &= seats[member].same_process(mine);
  view_.crowded = gpus_are_shared(seats);
  absl::Status status = check_shared_gpus(seats, members_, shared);
  std::vector<int> readers;
  for (const int member : members_) {
    const PeerSeat& seat = seats[member];
    const auto refuse = [&](const std::string& why) {
      status = absl::FailedPreconditionError(absl::StrCat("--exchange peer: ranks ", inner_.rank(), " and ", member, " ", why));
    };
    if (!seat.same_host(mine)) refuse(absl::StrCat("are on different hosts, ", mine.host, " and ", seat.host));
    if (!mapping->threads) continue;
    if (std::find(readers.begin(), readers.end(), seat.index) == readers.end()) readers.push_back(seat.index);
    if (seat.index == mine.index) continue;
    int can = 0;
    if (cudaDeviceCanAccessPeer(&can, mine.index, seat.index) != cudaSuccess || !can)
      refuse(absl::StrCat("have GPUs ", mine.index, " and ", seat.index, " without peer access"));
  }
  if (status.ok()) mapping->tenant = GpuTenant(mine.index, first_on_gpu(seats, inner_.rank()));
  if (status.ok() && !mapping->tenant.there())
    status = absl::FailedPreconditionError(absl::StrCat("--exchange peer: another replica of this process has GPU ", mine.index,
                                                        "; use --exchange host, or a GPU for each rank"));
  status = agree(status);
  if (!status.ok()) return status;

  view_.layout = layout_of(sizes, view_.rank == 0);
  if (readers.size() < 2) readers.clear();
  status = mapping->allocate(device_, view_.layout, readers);
  Offer offer{.window = mapping->own};
  if (status.ok() && !mapping->threads) {
    const cudaError_t error = cudaIpcGetMemHandle(&offer.handle, mapping->own);
    if (error != cudaSuccess) status = failed("cudaIpcGetMemHandle", error);
  }
  status = agree(status);
  if (!status.ok()) return status;

  std::vector<Offer> offers(view_.ranks);
  hosts_.all_gather(std::as_bytes(std::span(&offer, 1)), std::as_writable_bytes(std::span(offers)), "peer memory: windows");
  for (int i = 0; i < view_.ranks && status.ok(); ++i) {
    view_.window[i] = offers[i].window;
    if (i == view_.rank || mapping->threads) continue;
    void* opened = nullptr;
    const cudaError_t error = cudaIpcOpenMemHandle(&opened, offers[i].handle, cudaIpcMemLazyEnablePeerAccess);
    if (error != cudaSuccess)
      status = failed("cudaIpcOpenMemHandle", error);
    else
      mapping->opened.push_back(opened);
    view_.window[i] = static_cast<std::byte*>(opened);
  }
  status = agree(status);
  if (!status.ok()) return status;

  mapping_ = std::move(mapping);
  record_ = Buffer::staging(device_, sizeof(PeerRecord));
  view_.record = record_.as<PeerRecord>();
  const auto nanoseconds = [](auto time) {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
  };
  monitor_ = Device::Monitor(device_, [this](double waited) { watch(waited); });
  // Memory that can be mapped may still not carry a word: some virtual machines say yes to everything.
  view_.deadline_ns = nanoseconds(kTrial);
  try {
    hosts_.barrier("peer memory: first meeting");
    run([&] { cuda::peer_greeting(device_, view_); });
    device_.synchronize();
  } catch (const PeerFailure& e) {
    status = failed("first meeting", e.what());
  } catch (const DeviceFailure& e) {
    status = failed("first meeting", e.what());
  }
  view_.deadline_ns = nanoseconds(options_.timeout);
  return agree(status);
}

PeerMemory::~PeerMemory() {
  if (!mapping_) return;
  stop();
  cudaSetDevice(device_.cuda().index);
  cudaStreamSynchronize(device_.cuda().stream);  // its waits have been told to end
}

void PeerMemory::keep_window() { mapping_->kept = true; }

float* PeerMemory::whole() const {
  return view_.rank == 0 ? reinterpret_cast<float*>(view_.window[0] + view_.layout.whole()) : nullptr;
}

void PeerMemory::run(const std::function<void()>& queue) {
  if (!view_.crowded) return queue();
  device_.synchronize();
  hosts_.barrier("before an operation on a shared GPU");
  queue();
  device_.synchronize();
}

void PeerMemory::stop() { std::atomic_ref<uint32_t>(view_.record->stop).store(1, std::memory_order_release); }

// Called while the host waits for the stream.
void PeerMemory::watch(double waited) {
  PeerRecord& record = *view_.record;
  const uint32_t state = std::atomic_ref<uint32_t>(record.state).load(std::memory_order_acquire);
  if (state != PeerRecord::kWaiting) {
    const bool expired = state == PeerRecord::kExpired;
    throw PeerFailure({.cause = expired ? PeerFailure::Cause::kTimeout : PeerFailure::Cause::kInterrupted,
                       .rank = inner_.rank(),
                       .host = inner_.host(),
                       .phase = name_of(record.phase),
                       .collective = record.operation,
                       .peer = members_[record.peer],
                       .waited_seconds = static_cast<double>(record.waited_ns) * 1e-9});
  }
  if (waited < asked_) asked_ = 0;  // another wait
  if (waited - asked_ > 0.02) {
    asked_ = waited;
    // Only to be told of an interrupt: nobody sends such a message.
    std::vector<std::byte> none;
    try {
      inner_.host_memory().try_receive_message(inner_.rank(), kMaxTag - 1, none, std::chrono::milliseconds(0));
    } catch (const PeerFailure&) {
      stop();
      throw;
    }
  }
}

}  // namespace invar::parallel
