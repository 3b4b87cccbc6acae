// Which GPUs of this process have kernels on them that wait for kernels of other GPUs.
//
// Two such groups of ranks on the same GPUs can stop each other for good: a call that waits for all of a GPU's work (cudaFree,
// say) waits for the other group's kernel, that one for its peer on another GPU, and that peer's rank stands in such a call
// itself.
#pragma once

namespace invar::parallel {

class GpuTenant {
 public:
  GpuTenant() = default;
  // `whose`: the same for all that may be on the GPU together, which is one rank's, or of ranks that agreed to take turns. Not a
  // tenant (!there()) if somebody else is there. Any thread.
  GpuTenant(int gpu, const void* whose);
  ~GpuTenant() { leave(); }
  GpuTenant(GpuTenant&& other) noexcept { *this = static_cast<GpuTenant&&>(other); }
  GpuTenant& operator=(GpuTenant&& other) noexcept;

  bool there() const { return gpu_ >= 0; }

 private:
  void leave();
  int gpu_ = -1;
};

}  // namespace invar::parallel
