// Which GPUs of this process have kernels on them that wait for kernels of other GPUs.
//
// Two such groups of ranks on the same GPUs can stop each other for good: a call that waits for all of a GPU's work (cudaFree,
// say) waits for the other group's kernel, that one for its peer on another GPU, and that peer's rank stands in such a call
// itself.
#pragma once

namespace invar::parallel {

class GpuTenant {
 public:
  enum class Bears {
    kNobody,     // one rank a GPU, its kernels queued ahead
    kOwnRank,    // the same, beside what else this rank has there
    kEverybody,  // ranks that share a GPU: they meet on the host before each operation
  };

  GpuTenant() = default;
  // `rank`: anything of the rank's own, the same for all that it has on the GPU. Not a tenant (!there()) if somebody is there
  // whom it does not bear. Any thread.
  GpuTenant(int gpu, const void* rank, Bears bears);
  ~GpuTenant() { leave(); }
  GpuTenant(GpuTenant&& other) noexcept { *this = static_cast<GpuTenant&&>(other); }
  GpuTenant& operator=(GpuTenant&& other) noexcept;

  bool there() const { return gpu_ >= 0; }

 private:
  void leave();
  int gpu_ = -1;
  const void* rank_ = nullptr;
};

}  // namespace invar::parallel
