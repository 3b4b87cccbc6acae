// Hopper's instructions that C++ has no words for, one function each. For device code only.
//
// Addresses in shared memory are 32-bit (`shared_address`). A phase of an mbarrier is passed as its parity: wait(barrier, 0)
// waits for the first completion, wait(barrier, 1) for the second, and so on; a fresh barrier lets wait(barrier, 1) through at
// once.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace invar::cuda::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// ---------------------------------------------------------------- threads

// True in one lane of a converged warp. The compiler then knows that one thread runs the code behind it: with `lane == 0` it
// wraps every copy in a loop over lanes.
__device__ __forceinline__ bool elect_one() {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected != 0;
}
// Barrier `id` (1 .. 15; 0 is __syncthreads) among `threads` threads, whole warps, who all wait at this one place of the program.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// The same where warps of other roles wait at places of their own.
__device__ __forceinline__ void named_barrier_sync_roles(int id, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// The same as named_barrier_sync, and whether any of the threads says so.
__device__ __forceinline__ bool named_barrier_any(int id, int threads, bool mine) {
  uint32_t any;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %3, 0;\nbar.red.or.pred q, %1, %2, p;\nselp.b32 %0, 1, 0, q;\n}"
               : "=r"(any)
               : "r"(id), "r"(threads), "r"(static_cast<uint32_t>(mine))
               : "memory");
  return any != 0;
}
// Registers a thread of this warpgroup may use from here on; all its warps execute it, in one branch that is the role's own.
template <int Registers>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

// ---------------------------------------------------------------- dependent launches

// Everything that earlier kernels of the stream wrote is visible behind this. No-op in an ordinary launch.
__device__ __forceinline__ void wait_for_earlier_kernels() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// The next kernel's blocks may start where there is room for them; they see no writes of this kernel before they wait themselves.
__device__ __forceinline__ void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// ---------------------------------------------------------------- clusters

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// The address of the same place in the shared memory of block `rank` of the cluster.
__device__ __forceinline__ uint32_t peer_address(uint32_t address, uint32_t rank) {
  uint32_t peer;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(peer) : "r"(address), "r"(rank));
  return peer;
}
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
// Says only "I am here": what this thread wrote need not be visible to those who wait. Cheaper.
__device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
__device__ __forceinline__ float load_shared_float(uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ float4 load_shared_float4(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ uint4 load_shared_words(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ int load_shared_int(uint32_t address) {
  int v;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared_int(uint32_t address, int v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}
__device__ __forceinline__ int load_shared_uint16(uint32_t address) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared_uint16(uint32_t address, uint16_t v) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(v) : "memory");
}
__device__ __forceinline__ void store_shared_float2(uint32_t address, float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(v.x), "f"(v.y) : "memory");
}
__device__ __forceinline__ void store_shared_float4(uint32_t address, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}

// Sixteen bytes to the shared memory of a block of the cluster (this one too); they complete on `peer_barrier`, which is in the
// same block and expects bytes. Who has waited there (barrier_wait_cluster) sees them.
__device__ __forceinline__ void send_float4(uint32_t peer, float4 v, uint32_t peer_barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(peer),
               "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(peer_barrier)
               : "memory");
}

// ---------------------------------------------------------------- mbarriers

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits and before others (the cluster's blocks, the copy engine) use the barriers.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At a barrier of another block: says that this thread is done reading what the copy engine brought. No fence for ordinary
// writes: a release at cluster scope costs a trip to the second-level cache.
__device__ __forceinline__ void barrier_arrive_peer(uint32_t peer_barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(peer_barrier) : "memory");
}
// Arrives once this thread's copies (copy_16_bytes) so far have come; counts among the arrivals of barrier_init. Who waits there
// sees them; before wgmma reads them it needs fence_async_shared.
__device__ __forceinline__ void barrier_arrive_with_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Arrives and announces `bytes` that copies will bring.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT%=: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT%=;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// For a barrier that other blocks of the cluster arrive at and whose news are their ordinary reads or writes.
__device__ __forceinline__ void barrier_wait_cluster(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT%=: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT%=;\n}" ::"r"(
          barrier),
      "r"(parity)
      : "memory");
}

// ---------------------------------------------------------------- bulk copies

// What this thread wrote to shared memory is visible to the copy engine and to wgmma behind this (then a barrier, if others
// wrote).
__device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Second-level cache policies: weights pass once, activations stay.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// `bytes` (a multiple of 16, both ends 16-byte aligned) from global to shared memory; completes on `barrier`.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
               "r"(bytes), "r"(barrier)
               : "memory");
}
// To the same place in every block of the cluster whose bit of `blocks` is set; completes on each one's own barrier.
__device__ __forceinline__ void copy_bulk_multicast(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                                                    uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1], %2, [%3], "
      "%4, "
      "%5;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void copy_bulk_multicast(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                                                    uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}
// Asks the second-level cache for memory that copy_bulk will fetch.
__device__ __forceinline__ void prefetch_bulk(const void* from, uint32_t bytes, uint64_t policy) {
  asm volatile("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, %2;" ::"l"(from), "r"(bytes), "l"(policy) : "memory");
}
// A box of a tensor map (cuda::tensor_map) whose first element is (row, column).
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int row, int column, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int row, int column, uint32_t barrier,
                                         uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], "
      "%5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}
// Asks the second-level cache for a box that copy_box will fetch.
__device__ __forceinline__ void prefetch_box(const CUtensorMap* map, int row, int column) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map), "r"(column), "r"(row) : "memory");
}
// Of a map [slabs][lines][64]: a box whose first line is `line` of slab `slab`.
__device__ __forceinline__ void copy_slabs(uint32_t to, const CUtensorMap* map, int slab, int line, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(0), "r"(line), "r"(slab), "r"(barrier)
      : "memory");
}
// Stores join a group of this thread; the wait lets the `Left` newest groups still read their source.
__device__ __forceinline__ void store_box(const CUtensorMap* map, int row, int column, uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column), "r"(row),
               "r"(from)
               : "memory");
}
__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int Left = 0>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Left) : "memory");
}
// 16 bytes by one thread, zeros instead where `valid` is false (nothing is read then).
__device__ __forceinline__ void copy_16_bytes(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// numerics::bf of both, `low` in the low half: round to nearest even, every NaN 0x7fff.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// ---------------------------------------------------------------- matrices through registers (mma.sync)

// Four 8x8 bf16 matrices; lane i gives the address of row i mod 8 of matrix i / 8 (16 bytes, 16-byte aligned).
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row_address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&m)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row_address)
               : "memory");
}
__device__ __forceinline__ void store_matrices(uint32_t row_address, const uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address), "r"(m[0]), "r"(m[1]),
               "r"(m[2]), "r"(m[3])
               : "memory");
}
// d[16][8] += a[16][16] * b[16][8]. Lane l, with g = l / 4 and t = l mod 4, holds of a: rows g, g + 8 (a[1], a[3]), k 2t, 2t + 1
// and those + 8 (a[2], a[3]); of b: k 2t, 2t + 1 and + 8 (b1) of column g; of d: rows g, g + 8 (d[2], d[3]), columns 2t, 2t + 1.
__device__ __forceinline__ void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---------------------------------------------------------------- matrices by a warpgroup (wgmma)

// Where a matrix lies in shared memory with the 128-byte swizzle, base 1024-byte aligned (+ 32 bytes a k16 step where k runs
// along the 128-byte lines). `stride`: bytes from one group of 8 lines to the next. `leading`: bytes from one 64-element column
// of lines to the next, for operands whose lines run along M or N; not looked at where they run along k.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t stride = 1024, uint32_t leading = 16) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | 1ull << 62;
}
// Before the first multiplication, and when registers of accumulators or of `a` were touched.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Lets the `Left` newest groups go on.
template <int Left>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
// The values may change here: the compiler keeps reads and writes of them on their side. Goes behind a wait.
template <int Begin, int End, int Size>
__device__ __forceinline__ void pin(float (&values)[Size]) {
#pragma unroll
  for (int i = Begin; i < End; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int Size>
__device__ __forceinline__ void pin(float (&values)[Size]) {
  pin<0, Size>(values);
}
// The values are not read any more: ends their lives, where the compiler would otherwise spill around them.
template <int Size>
__device__ __forceinline__ void forget(float (&values)[Size]) {
#pragma unroll
  for (int i = 0; i < Size; ++i) asm volatile("" : "=f"(values[i]));
}

// d[64][N] = a[64][16] * b[16][N] + (accumulate ? d : 0), d at `d`, N / 2 values a thread: warp w of the group holds rows
// 16 w .. 16 w + 15; value i of lane l is row l / 4 + 8 * (i / 2 mod 2), column i / 4 * 8 + l mod 4 * 2 + i mod 2.
// a, b: descriptors of lines along k. `a` may also be registers, laid out as in multiply_16x8x16 for the warp's 16 rows; then
// `LinesAlongN` says that b's lines run along N.
template <int N>
struct Wgmma;

#define INVAR_F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define INVAR_F16(i) INVAR_F4(i), INVAR_F4(i + 4), INVAR_F4(i + 8), INVAR_F4(i + 12)
#define INVAR_F32(i) INVAR_F16(i), INVAR_F16(i + 16)
#define INVAR_WGMMA(N, LIST, P0, P1, P2, P3, P4, P5, P6, ...)                                                        \
  template <>                                                                                                        \
  struct Wgmma<N> {                                                                                                  \
    static __device__ __forceinline__ void multiply(float* d, uint64_t a, uint64_t b, int accumulate) {              \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N               \
                   "k16.f32.bf16.bf16 {" LIST "}, " P0 ", " P1 ", p, 1, 1, 0, 0;\n}"                                 \
                   : __VA_ARGS__                                                                                     \
                   : "l"(a), "l"(b), "r"(accumulate));                                                               \
    }                                                                                                                \
    template <bool LinesAlongN>                                                                                      \
    static __device__ __forceinline__ void multiply(float* d, const uint32_t (&a)[4], uint64_t b, int accumulate) {  \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N               \
                   "k16.f32.bf16.bf16 {" LIST "}, {" P0 ", " P1 ", " P2 ", " P3 "}, " P4 ", p, 1, 1, " P6 ";\n}"     \
                   : __VA_ARGS__                                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(LinesAlongN ? 1 : 0)); \
    }                                                                                                                \
  };
#define INVAR_TEN(p) "%" #p "0, %" #p "1, %" #p "2, %" #p "3, %" #p "4, %" #p "5, %" #p "6, %" #p "7, %" #p "8, %" #p "9, "
#define INVAR_LIST4 "%0, %1, %2, %3"
#define INVAR_LIST8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define INVAR_LIST16 INVAR_TEN() "%10, %11, %12, %13, %14, %15"
#define INVAR_LIST32 INVAR_TEN() INVAR_TEN(1) INVAR_TEN(2) "%30, %31"
#define INVAR_LIST48 INVAR_TEN() INVAR_TEN(1) INVAR_TEN(2) INVAR_TEN(3) "%40, %41, %42, %43, %44, %45, %46, %47"
#define INVAR_LIST64 INVAR_TEN() INVAR_TEN(1) INVAR_TEN(2) INVAR_TEN(3) INVAR_TEN(4) INVAR_TEN(5) "%60, %61, %62, %63"
#define INVAR_LIST80 \
  INVAR_TEN()        \
  INVAR_TEN(1)       \
  INVAR_TEN(2) INVAR_TEN(3) INVAR_TEN(4) INVAR_TEN(5) INVAR_TEN(6) "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define INVAR_LIST96 \
  INVAR_TEN()        \
  INVAR_TEN(1)       \
  INVAR_TEN(2) INVAR_TEN(3) INVAR_TEN(4) INVAR_TEN(5) INVAR_TEN(6) INVAR_TEN(7) INVAR_TEN(8) "%90, %91, %92, %93, %94, %95"
#define INVAR_LIST128 \
  INVAR_TEN()         \
  INVAR_TEN(1)        \
  INVAR_TEN(2)        \
  INVAR_TEN(3)        \
  INVAR_TEN(4)        \
  INVAR_TEN(5)        \
  INVAR_TEN(6) INVAR_TEN(7) INVAR_TEN(8) INVAR_TEN(9) INVAR_TEN(10) INVAR_TEN(11) "%120, %121, %122, %123, %124, %125, %126, " \
                                                                                  "%127"
// clang-format off
INVAR_WGMMA(8, INVAR_LIST4, "%4", "%5", "%6", "%7", "%8", "%9", "%10", INVAR_F4(0))
INVAR_WGMMA(16, INVAR_LIST8, "%8", "%9", "%10", "%11", "%12", "%13", "%14", INVAR_F4(0), INVAR_F4(4))
INVAR_WGMMA(32, INVAR_LIST16, "%16", "%17", "%18", "%19", "%20", "%21", "%22", INVAR_F16(0))
INVAR_WGMMA(64, INVAR_LIST32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", INVAR_F32(0))
INVAR_WGMMA(96, INVAR_LIST48, "%48", "%49", "%50", "%51", "%52", "%53", "%54", INVAR_F32(0), INVAR_F16(32))
INVAR_WGMMA(128, INVAR_LIST64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", INVAR_F32(0), INVAR_F32(32))
INVAR_WGMMA(160, INVAR_LIST80, "%80", "%81", "%82", "%83", "%84", "%85", "%86", INVAR_F32(0), INVAR_F32(32), INVAR_F16(64))
INVAR_WGMMA(192, INVAR_LIST96, "%96", "%97", "%98", "%99", "%100", "%101", "%102", INVAR_F32(0), INVAR_F32(32), INVAR_F32(64))
INVAR_WGMMA(256, INVAR_LIST128, "%128", "%129", "%130", "%131", "%132", "%133", "%134", INVAR_F32(0), INVAR_F32(32), INVAR_F32(64), INVAR_F32(96))
// clang-format on
#undef INVAR_LIST128
#undef INVAR_LIST96
#undef INVAR_LIST80
#undef INVAR_LIST64
#undef INVAR_LIST48
#undef INVAR_LIST32
#undef INVAR_LIST16
#undef INVAR_LIST8
#undef INVAR_LIST4
#undef INVAR_TEN
#undef INVAR_WGMMA
#undef INVAR_F32
#undef INVAR_F16
#undef INVAR_F4

}  // namespace invar::cuda::ptx
