#include "parallel/transport/gpu_tenant.h"

#include <map>
#include <mutex>
#include <utility>

namespace invar::parallel {
namespace {

struct Tenants {
  const void* whose = nullptr;
  int count = 0;
};
struct Gpus {
  std::mutex mutex;
  std::map<int, Tenants> tenants;
};
Gpus& gpus() {
  static auto* all = new Gpus;  // never destroyed: ranks of static objects may outlive it
  return *all;
}

}  // namespace

GpuTenant::GpuTenant(int gpu, const void* whose) {
  const std::lock_guard lock(gpus().mutex);
  Tenants& tenants = gpus().tenants[gpu];
  if (tenants.count > 0 && tenants.whose != whose) return;
  tenants.whose = whose;
  ++tenants.count;
  gpu_ = gpu;
}

GpuTenant& GpuTenant::operator=(GpuTenant&& other) noexcept {
  if (this == &other) return *this;
  leave();
  gpu_ = std::exchange(other.gpu_, -1);
  return *this;
}

void GpuTenant::leave() {
  if (!there()) return;
  const std::lock_guard lock(gpus().mutex);
  --gpus().tenants[gpu_].count;
  gpu_ = -1;
}

}  // namespace invar::parallel
