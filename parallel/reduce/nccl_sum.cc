#include "parallel/reduce/nccl_sum.h"

#include <dlfcn.h>
#include <nccl.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda/context.h"
#include "kernels/device/device_array.h"

namespace invar::parallel {

struct NcclSum::Communicator {
  ncclComm_t handle = nullptr;
  decltype(&ncclGetUniqueId) get_id = nullptr;
  decltype(&ncclCommInitRank) init = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;

  absl::Status load() {
    setenv("NCCL_NVLS_ENABLE", "0", 0);  // NVLink multicast stays unused
    void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return absl::FailedPreconditionError(dlerror());
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    if (find(get_id, "ncclGetUniqueId") && find(init, "ncclCommInitRank") && find(all_reduce, "ncclAllReduce") &&
        find(abort, "ncclCommAbort"))
      return absl::OkStatus();
    return absl::FailedPreconditionError("libnccl.so.2 lacks a call that is wanted");
  }
  void sum(const Device& device, const void* from, void* to, int64_t count, ncclDataType_t type) const {
    const ncclResult_t result = all_reduce(from, to, static_cast<size_t>(count), type, ncclSum, handle, device.cuda().stream);
    if (result != ncclSuccess) throw DeviceFailure(absl::StrCat("ncclAllReduce: error ", static_cast<int>(result)));
  }
};

NcclSum::NcclSum(const Device& device, std::unique_ptr<Communicator> communicator)
    : device_(device), communicator_(std::move(communicator)) {}

NcclSum::~NcclSum() {
  if (communicator_->handle) communicator_->abort(communicator_->handle);
}

absl::StatusOr<std::unique_ptr<NcclSum>> NcclSum::start(const Device& device, const Group& group) {
  auto communicator = std::make_unique<Communicator>();
  Group host = group.on_host();
  const absl::Status loaded = host.agree(communicator->load(), "NCCL");
  if (!loaded.ok()) return loaded;
  ncclUniqueId id{};
  if (host.index() == 0) communicator->get_id(&id);
  host.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  absl::Status begun;
  cuda::check(cudaSetDevice(device.cuda().index));
  const ncclResult_t result = communicator->init(&communicator->handle, host.size(), id, host.index());
  if (result != ncclSuccess)
    begun = absl::FailedPreconditionError(absl::StrCat("ncclCommInitRank: error ", static_cast<int>(result)));
  begun = host.agree(begun, "NCCL");
  if (!begun.ok()) return begun;
  auto all = std::unique_ptr<NcclSum>(new NcclSum(device, std::move(communicator)));
  // Of many sizes: each of NCCL's ways makes its connections when it is first taken.
  constexpr int64_t kMost = 32 << 20;
  const DeviceArray<Bf16> values(device, kMost);
  for (int64_t count = 4096; count <= kMost; count *= 2) all->sum(values.data(), values.data(), count);
  device.synchronize();
  return all;
}

void NcclSum::sum(const float* from, float* to, int64_t count) const {
  communicator_->sum(device_, from, to, count, ncclFloat32);
}
void NcclSum::sum(const Bf16* from, Bf16* to, int64_t count) const { communicator_->sum(device_, from, to, count, ncclBfloat16); }

}  // namespace invar::parallel
