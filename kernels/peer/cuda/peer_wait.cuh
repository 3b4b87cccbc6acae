// Words in peers' windows: how they are written, and how a kernel waits for one without waiting for ever.
#pragma once

#include <cstdint>

#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/peer/peer.h"

namespace invar::cuda {

__device__ inline PeerControl* control_of(const PeerView& v) { return reinterpret_cast<PeerControl*>(v.window[v.rank]); }

// ---------------------------------------------------------------- waiting

// One thread's wait. Looks at the clock and at the host's word once in a while only.
struct PeerPatience {
  uint32_t polls = 0;
  uint64_t began = 0;
};

__device__ inline uint64_t device_clock_ns() {
  uint64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}

// When the wait began, or 0: it has ended.
static __device__ __noinline__ uint64_t patience_since(const PeerView& v, uint32_t polls, uint64_t began, int peer,
                                                       PeerPhase phase, uint64_t operation) {
  PeerControl* control = control_of(v);
  // Somebody of this GPU has given up: whatever is queued behind it ends at once, with values that nobody may use.
  if (*static_cast<volatile uint32_t*>(&control->gave_up)) return 0;
  const uint64_t now = device_clock_ns();
  if (began == 0) began = now;
  const uint64_t waited = now - began;
  // The host's word lies across the bus; so many threads may not ask for it all the time.
  const bool stopped = polls % (1u << 14) == 0 && *static_cast<volatile uint32_t*>(&v.record->stop);
  if (!stopped && waited < v.deadline_ns) return began;
  if (atomicExch(&control->gave_up, 1u) == 0) {
    volatile PeerRecord* record = v.record;
    record->phase = static_cast<uint32_t>(phase);
    record->peer = peer;
    record->operation = operation;
    record->waited_ns = waited;
    __threadfence_system();
    record->state = stopped ? PeerRecord::kStopped : PeerRecord::kExpired;
  }
  return 0;
}

// After a look that found nothing: look again?
__device__ inline bool patient(const PeerView& v, PeerPatience& patience, int peer, PeerPhase phase, uint64_t operation) {
  if (++patience.polls % 1024 != 0) return true;
  patience.began = patience_since(v, patience.polls, patience.began, peer, phase, operation);
  return patience.began != 0;
}

// ---------------------------------------------------------------- units: 8 bytes and the number of the operation, in one access

// 16 bytes are written and read whole, so a unit that shows the number has the bytes that came with it: no fence, no flag.
__device__ inline void store_unit(std::byte* to, uint64_t bytes, uint64_t operation) {
  asm volatile("{\n.reg .b128 unit;\nmov.b128 unit, {%1, %2};\nst.relaxed.sys.global.b128 [%0], unit;\n}" ::"l"(to), "l"(bytes),
               "l"(operation)
               : "memory");
}
__device__ inline uint64_t load_unit(const std::byte* from, uint64_t& operation) {
  uint64_t bytes;
  asm volatile("{\n.reg .b128 unit;\nld.relaxed.sys.global.b128 unit, [%2];\nmov.b128 {%0, %1}, unit;\n}"
               : "=l"(bytes), "=l"(operation)
               : "l"(from)
               : "memory");
  return bytes;
}
__device__ inline uint64_t pack(float first, float second) {
  return uint64_t{numerics::float_bits(second)} << 32 | numerics::float_bits(first);
}
__device__ inline float first_of(uint64_t bytes) { return numerics::bits_float(static_cast<uint32_t>(bytes)); }
__device__ inline float second_of(uint64_t bytes) { return numerics::bits_float(static_cast<uint32_t>(bytes >> 32)); }

__device__ inline uint64_t wait_for_unit(const PeerView& v, const std::byte* from, int peer, PeerPhase phase,
                                         uint64_t operation) {
  PeerPatience patience;
  for (;;) {
    uint64_t number;
    const uint64_t bytes = load_unit(from, number);
    if (number == operation || !patient(v, patience, peer, phase, operation)) return bytes;
  }
}

// ---------------------------------------------------------------- flags: one word for all that a block wrote

enum class PeerFlag : int { kGreeting, kFirst, kSecond };

__device__ inline uint64_t* flag_of(const PeerView& v, int at, int from, PeerFlag kind, int block) {
  return reinterpret_cast<uint64_t*>(v.window[at] + PeerLayout::kFlags) +
         (static_cast<int>(kind) * kMostPeers + from) * kMostPeerBlocks + block;
}
// By one thread, behind a barrier of those whose writes it speaks for.
__device__ inline void post(uint64_t* flag, uint64_t operation) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(operation) : "memory");
}
__device__ inline void wait_for(const PeerView& v, const uint64_t* flag, int peer, PeerPhase phase, uint64_t operation) {
  PeerPatience patience;
  for (;;) {
    uint64_t number;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(number) : "l"(flag) : "memory");
    if (number >= operation || !patient(v, patience, peer, phase, operation)) return;
  }
}
__device__ inline void post_flag(const PeerView& v, int peer, PeerFlag kind, int block, uint64_t operation) {
  post(flag_of(v, peer, v.rank, kind, block), operation);
}
__device__ inline void wait_for_flag(const PeerView& v, int peer, PeerFlag kind, int block, PeerPhase phase, uint64_t operation) {
  wait_for(v, flag_of(v, v.rank, peer, kind, block), peer, phase, operation);
}

// ---------------------------------------------------------------- operations

// Behind wait_for_predecessors(), by every thread that needs it.
__device__ inline uint64_t this_operation(const PeerView& v) { return control_of(v)->operations + 1; }

// By one thread of each block, once no thread of the block will ask for this_operation() any more.
__device__ inline void end_operation(const PeerView& v, uint64_t operation) {
  PeerControl* control = control_of(v);
  const unsigned blocks = gridDim.x * gridDim.y;
  if (blocks > 1) {
    if (atomicAdd(&control->ticket, 1u) != blocks - 1) return;
    control->ticket = 0;
  }
  control->operations = operation;
}

// An area may be written again two operations later, because a rank that has ended one knows that every peer has begun it. Where
// the values themselves do not show that, block 0 does: its first threads write to all at the beginning and wait for all at
// the end.
__device__ inline void greet(const PeerView& v, uint64_t operation) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < v.ranks && peer != v.rank) post_flag(v, peer, PeerFlag::kGreeting, 0, operation);
}
__device__ inline void await_greetings(const PeerView& v, uint64_t operation) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < v.ranks && peer != v.rank) wait_for_flag(v, peer, PeerFlag::kGreeting, 0, PeerPhase::kGreeting, operation);
}

}  // namespace invar::cuda
