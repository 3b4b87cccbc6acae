#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/device/cuda/memory.h"
#include "kernels/device/device.h"

namespace invar {

namespace {

constexpr size_t kLine = 64;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSharedBytes = size_t{32} << 20;
constexpr size_t kMostShared = kSharedBytes / 4;  // larger ones fill huge pages well enough alone

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Straight from the kernel: zero without being touched, so a rank's memory is what it uses, and on a huge-page boundary, so that
// streaming weights does not pay for address translation. `bytes` in whole pages.
std::byte* map(size_t bytes) {
  void* p = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::byte*>(p);
  const size_t front = round_up(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (front) munmap(begin, front);
  munmap(begin + front + bytes, kHugePage - front);
  madvise(begin + front, bytes, MADV_HUGEPAGE);  // advice only: a kernel without huge pages is slower, not wrong
  return begin + front;
}

}  // namespace

// Huge pages that lasting buffers share. Space is handed out once and never again, so it is zero; the pages go back to the kernel
// when the last of their buffers goes.
struct Buffer::SharedPages {
  std::byte* begin;
  size_t used = 0;
  size_t buffers = 0;

  static std::mutex& mutex() {
    static auto* m = new std::mutex;  // never destroyed: buffers of static objects may outlive it
    return *m;
  }
  static SharedPages* open;

  static Pointer take(size_t bytes) {
    const std::lock_guard lock(mutex());
    if (!open || open->used + bytes > kSharedBytes) open = new SharedPages{map(kSharedBytes)};
    std::byte* p = open->begin + open->used;
    open->used += round_up(bytes, kLine);
    ++open->buffers;
    return Pointer(p, Free{.origin = Origin::kSharedPages, .pages = open});
  }

  void give_back() {
    const std::lock_guard lock(mutex());
    if (--buffers) return;
    if (open == this) open = nullptr;
    munmap(begin, kSharedBytes);
    delete this;
  }
};
Buffer::SharedPages* Buffer::SharedPages::open = nullptr;

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  if (bytes < kHugePage) {
    void* p = std::aligned_alloc(kLine, round_up(bytes, kLine));
    if (!p) throw std::bad_alloc();
    std::memset(p, 0, bytes);
    data_ = Pointer(static_cast<std::byte*>(p), Free{});
  } else {
    const size_t mapped = round_up(bytes, kPage);
    data_ = Pointer(map(mapped), Free{.origin = Origin::kMapped, .mapped = mapped});
  }
}

Buffer::Buffer(const Device& device, size_t bytes) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) {
      if (bytes == 0) return;
      data_ = Pointer(cuda::allocate(device, bytes), Free{.origin = Origin::kCuda});
      size_ = bytes;
      return;
    }
  *this = Buffer(bytes);
}

Buffer Buffer::lasting(const Device& device, size_t bytes) {
  if (device.backend() != Backend::kCpu) return Buffer(device, bytes);
  if (bytes < kPage || bytes > kMostShared) return Buffer(bytes);
  Buffer buffer;
  buffer.data_ = SharedPages::take(bytes);
  buffer.size_ = bytes;
  return buffer;
}

Buffer Buffer::staging(const Device& device, size_t bytes) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda && bytes > 0) {
      Buffer buffer;
      buffer.data_ = Pointer(cuda::allocate_host(device, bytes), Free{.origin = Origin::kCudaHost});
      buffer.size_ = bytes;
      return buffer;
    }
  return Buffer(bytes);
}

void Buffer::Free::operator()(std::byte* p) const {
  switch (origin) {
    case Origin::kHeap:
      return std::free(p);
    case Origin::kMapped:
      munmap(p, mapped);
      return;
    case Origin::kSharedPages:
      return pages->give_back();
    case Origin::kCuda:
      if constexpr (kCudaBuilt) cuda::release(p);
      return;
    case Origin::kCudaHost:
      if constexpr (kCudaBuilt) cuda::release_host(p);
      return;
  }
}

}  // namespace invar
