#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "kernels/device/device.h"

namespace invar {

namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

// Large buffers come straight from the kernel: they are zero without being touched, so a rank's memory is what it uses, and they
// start on a huge-page boundary so that streaming weights does not pay for address translation.
Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes < kHugePage) {
    void* p = std::aligned_alloc(kLine, round_up(bytes, kLine));
    if (!p) throw std::bad_alloc();
    std::memset(p, 0, bytes);
    data_ = Pointer(static_cast<std::byte*>(p), Free{0});
    return;
  }
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  const size_t mapped = round_up(bytes, 4096);
  void* p = mmap(nullptr, mapped + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::byte*>(p);
  const size_t front = round_up(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (front) munmap(begin, front);
  munmap(begin + front + mapped, kHugePage - front);
  madvise(begin + front, mapped, MADV_HUGEPAGE);  // advice only: a kernel without huge pages is slower, not wrong
  data_ = Pointer(begin + front, Free{mapped});
}

void Buffer::Free::operator()(std::byte* p) const {
  if (mapped) {
    munmap(p, mapped);
  } else {
    std::free(p);
  }
}

}  // namespace invar
