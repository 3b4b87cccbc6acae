#include "parallel/transport/gpu_tenant.h"

#include <map>
#include <mutex>
#include <utility>

namespace invar::parallel {
namespace {

struct Tenants {
  std::mutex mutex;
  std::multimap<int, const void*> ranks;  // by GPU
};
Tenants& tenants() {
  static auto* all = new Tenants;  // never destroyed: ranks of static objects may outlive it
  return *all;
}

}  // namespace

GpuTenant::GpuTenant(int gpu, const void* rank, Bears bears) {
  Tenants& all = tenants();
  const std::lock_guard lock(all.mutex);
  const auto [begin, end] = all.ranks.equal_range(gpu);
  if (bears != Bears::kEverybody)
    for (auto i = begin; i != end; ++i)
      if (bears == Bears::kNobody || i->second != rank) return;
  all.ranks.emplace(gpu, rank);
  gpu_ = gpu;
  rank_ = rank;
}

GpuTenant& GpuTenant::operator=(GpuTenant&& other) noexcept {
  if (this == &other) return *this;
  leave();
  gpu_ = std::exchange(other.gpu_, -1);
  rank_ = std::exchange(other.rank_, nullptr);
  return *this;
}

void GpuTenant::leave() {
  if (!there()) return;
  Tenants& all = tenants();
  const std::lock_guard lock(all.mutex);
  const auto [begin, end] = all.ranks.equal_range(gpu_);
  for (auto i = begin; i != end; ++i)
    if (i->second == rank_) {
      all.ranks.erase(i);
      break;
    }
  gpu_ = -1;
}

}  // namespace invar::parallel
