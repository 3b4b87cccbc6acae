// Device memory moved by NCCL between GPUs: ncclSend and ncclRecv only, which carry bytes and add nothing. The library is opened
// at run time, so that a program built with it starts on a machine that has none.
#include <dlfcn.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda/context.h"
#include "parallel/transport/gpu_tenant.h"
#include "parallel/transport/group.h"
#include "parallel/transport/transport.h"

namespace invar::parallel {
namespace {

using Clock = std::chrono::steady_clock;

struct Library {
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) init_rank;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
  decltype(&ncclGetErrorString) error_text;
  std::string missing;  // why it cannot be used
};

const Library& library() {
  static const Library loaded = [] {
    Library l{};
    // NVLink multicast is never used here, and its objects are a scarce resource of the whole host.
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      l.missing = dlerror();
      return l;
    }
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      if (!function) l.missing = absl::StrCat("libnccl.so.2 has no ", name);
    };
    find(l.get_unique_id, "ncclGetUniqueId");
    find(l.init_rank, "ncclCommInitRankConfig");
    find(l.async_error, "ncclCommGetAsyncError");
    find(l.abort, "ncclCommAbort");
    find(l.group_start, "ncclGroupStart");
    find(l.group_end, "ncclGroupEnd");
    find(l.send, "ncclSend");
    find(l.receive, "ncclRecv");
    find(l.error_text, "ncclGetErrorString");
    return l;
  }();
  return loaded;
}

class NcclTransport final : public Transport {
 public:
  NcclTransport(Transport& inner, const Device& device, const TransportOptions& options, GpuTenant tenant)
      : tenant_(std::move(tenant)), inner_(inner), device_(device), options_(options) {}
  ~NcclTransport() override {
    monitor_ = {};
    if (communicator_) library().abort(communicator_);  // local only: tells no peer, waits for none
  }

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& host() const override { return inner_.host(); }
  int local_rank() const override { return inner_.local_rank(); }
  int local_size() const override { return inner_.local_size(); }
  Transport& host_memory() override { return inner_.host_memory(); }

  // Collective over all ranks.
  void connect() {
    ncclUniqueId id{};
    if (rank() == 0) check(library().get_unique_id(&id), "NCCL id");
    Group::of_all(inner_.host_memory(), kMaxTag).broadcast(std::as_writable_bytes(std::span(&id, 1)), 0, "NCCL id");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    phase_ = {"NCCL start", 0, 0};
    const ncclResult_t begun = library().init_rank(&communicator_, size(), id, rank(), &config);
    if (begun != ncclInProgress) check(begun, "NCCL start");
    wait();
    monitor_ = Device::Monitor(device_, [this](double waited) { watch(waited); });
  }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) override {
    phase_ = phase;
    check(library().group_start(), phase.name);
    for (const Send& s : sends)
      if (!s.bytes.empty())
        check_begun(library().send(s.bytes.data(), s.bytes.size(), ncclUint8, s.peer, communicator_, device_.cuda().stream));
    for (const Receive& r : receives)
      if (!r.bytes.empty())
        check_begun(library().receive(r.bytes.data(), r.bytes.size(), ncclUint8, r.peer, communicator_, device_.cuda().stream));
    check_begun(library().group_end());
    wait();
  }

  void send_message(int peer, int tag, std::span<const std::byte> bytes) override { inner_.send_message(peer, tag, bytes); }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override {
    return inner_.try_receive_message(peer, tag, out, wait);
  }
  void interrupt() override { inner_.interrupt(); }
  void abort(int exit_code) override { inner_.abort(exit_code); }
  void finalize() override { inner_.finalize(); }

 private:
  [[noreturn]] void fail(PeerFailure::Cause cause, double waited, std::string detail) {
    // Kernels that wait for a peer on the device end only so; whoever destroys buffers would wait for them.
    if (communicator_) library().abort(std::exchange(communicator_, nullptr));
    throw PeerFailure({.cause = cause,
                       .rank = rank(),
                       .host = host(),
                       .phase = absl::StrCat(phase_.name, " (NCCL)"),
                       .collective = phase_.collective,
                       .waited_seconds = waited,
                       .detail = std::move(detail)});
  }
  void check(ncclResult_t result, const char* what) {
    if (result != ncclSuccess) fail(PeerFailure::Cause::kLost, 0, absl::StrCat(what, ": ", library().error_text(result)));
  }
  void check_begun(ncclResult_t result) {
    if (result != ncclInProgress) check(result, phase_.name);
  }
  double limit() const { return std::chrono::duration<double>(options_.timeout).count(); }

  // Until the communicator has taken what it was given. The bytes move later, on the stream.
  void wait() {
    const auto begin = Clock::now();
    for (;;) {
      ncclResult_t state = ncclInProgress;
      check(library().async_error(communicator_, &state), phase_.name);
      if (state == ncclSuccess) return;
      if (state != ncclInProgress) check(state, phase_.name);
      const double waited = std::chrono::duration<double>(Clock::now() - begin).count();
      if (waited > limit()) fail(PeerFailure::Cause::kTimeout, waited, "");
      std::this_thread::yield();
    }
  }
  // Called while the host waits for the stream.
  void watch(double waited) {
    ncclResult_t state = ncclSuccess;
    check(library().async_error(communicator_, &state), phase_.name);
    if (state != ncclInProgress) check(state, phase_.name);
    if (waited > limit()) fail(PeerFailure::Cause::kTimeout, waited, "the device still waits for a peer");
  }

  GpuTenant tenant_;
  Transport& inner_;
  const Device& device_;
  TransportOptions options_;
  ncclComm_t communicator_ = nullptr;
  Device::Monitor monitor_;
  Phase phase_{"", 0, 0};
};

// NCCL wants a GPU for each rank.
absl::Status each_has_a_gpu(Transport& transport, const Device& device) {
  constexpr size_t kName = 80;
  std::vector<char> names(kName * static_cast<size_t>(transport.size()));
  std::array<char, kName> mine{};
  const std::string name = absl::StrCat(transport.host().substr(0, kName - 8), "/", device.cuda().index);
  std::memcpy(mine.data(), name.data(), std::min(name.size(), kName - 1));
  Group::of_all(transport.host_memory(), kMaxTag)
      .all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(names)), "GPUs");
  std::set<std::string> distinct;
  for (size_t r = 0; r < names.size() / kName; ++r)
    if (!distinct.insert(&names[r * kName]).second)
      return absl::FailedPreconditionError(absl::StrCat("--exchange nccl: two ranks share GPU ", &names[r * kName],
                                                        "; NCCL needs one each. Use --exchange host, or fewer ranks a host"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> start_nccl(Transport& inner, const Device& device, const TransportOptions& options) {
  if (device.backend() != Backend::kCuda)
    return absl::InvalidArgumentError("--exchange nccl: moves GPU memory only; this rank runs on a CPU");
  absl::Status status = each_has_a_gpu(inner, device);
  if (!status.ok()) return status;  // the same on all ranks
  GpuTenant tenant(device.cuda().index, &inner);
  if (!tenant.there())
    status = absl::FailedPreconditionError(absl::StrCat("--exchange nccl: another replica of this process has GPU ",
                                                        device.cuda().index, "; use --exchange host, or a GPU for each rank"));
  if (!library().missing.empty()) status = absl::FailedPreconditionError(absl::StrCat("--exchange nccl: ", library().missing));
  status = Group::of_all(inner.host_memory(), kMaxTag).agree(status, "NCCL start");
  if (!status.ok()) return status;
  auto transport = std::make_unique<NcclTransport>(inner, device, options, std::move(tenant));
  transport->connect();
  return transport;
}

}  // namespace invar::parallel
