#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/logits/cuda/sample_rows.h"
#include "kernels/logits/cuda/vocabulary.h"

namespace invar::cuda {
namespace {

namespace nm = numerics;

constexpr int kBlock = 256;
constexpr int kSearchBlock = 512;
constexpr int kGroup = 4;  // logits of a thread and step: those that share a Philox block
constexpr int kStep = kBlock * kGroup;

__device__ inline unsigned long long packed(uint32_t key, uint32_t id, bool reversed) {
  return static_cast<unsigned long long>(key) << 32 | (reversed ? id : ~id);
}
__device__ inline uint32_t packed_key(unsigned long long v) { return static_cast<uint32_t>(v >> 32); }
__device__ inline uint32_t packed_id(unsigned long long v, bool reversed) {
  return reversed ? static_cast<uint32_t>(v) : ~static_cast<uint32_t>(v);
}

// numerics::gumbel from one of the four words of its Philox block.
__device__ inline float gumbel_of(uint32_t word) {
  const float u = nm::mul(nm::add(static_cast<float>(word >> 9), 0.5f), 0x1p-23f);
  return -nm::ln(-nm::ln(u));
}

template <class T>
__device__ inline T larger(T a, T b) {
  return a > b ? a : b;
}
template <class T>
__device__ inline T largest_of_warp(T v) {
#pragma unroll
  for (int stride = 16; stride > 0; stride /= 2) v = larger(v, __shfl_xor_sync(~0u, v, stride));
  return v;
}
template <class T>
__device__ inline T sum_of_warp(T v) {
#pragma unroll
  for (int stride = 16; stride > 0; stride /= 2) v += __shfl_xor_sync(~0u, v, stride);
  return v;
}

// Four logits from `id` on; those behind the end are not there.
struct Group {
  float z[kGroup];
  int count;
};
__device__ inline Group load_group(const float* row, int64_t id, int64_t vocabulary, bool aligned) {
  Group g;
  g.count = id >= vocabulary ? 0 : static_cast<int>(min(vocabulary - id, int64_t{kGroup}));
  if (aligned && g.count == kGroup) {
    const FloatPiece<kGroup> piece = load_piece<kGroup>(row + id);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) g.z[k] = piece.v[k];
  } else {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) g.z[k] = k < g.count ? row[id + k] : 0.0f;
  }
  return g;
}

// blockIdx.y: the task. A block walks `steps` steps of 1024 logits.
__global__ void __launch_bounds__(kBlock) scan(const __grid_constant__ VocabularyPass p, int steps) {
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask t = p.task[blockIdx.y];
  const bool aligned = reinterpret_cast<uintptr_t>(t.z) % 16 == 0, scaled = t.temperature > 0.0f;
  const int64_t blocks = (p.vocabulary + kVocabularyBlock - 1) / kVocabularyBlock;
  unsigned long long largest = 0, noisy = 0, hash = 0;
  uint32_t lowest_flipped = 0, scaled_lowest_flipped = 0, scaled_highest = 0;
  for (int step = 0; step < steps; ++step) {
    const int64_t id = (int64_t{blockIdx.x} * steps + step) * kStep + threadIdx.x * kGroup;
    const Group g = load_group(t.z, id, p.vocabulary, aligned);
    nm::Philox random;
    if (t.noise)
      random = nm::philox(static_cast<uint32_t>(id >> 2), t.position, static_cast<uint32_t>(nm::Draw::kGumbel), t.choice, t.seed);
    uint32_t highest = 0;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (k >= g.count) continue;
      const float z = g.z[k];
      const uint32_t key = nm::order_key(z), at = static_cast<uint32_t>(id) + k;
      highest = larger(highest, key);
      lowest_flipped = larger(lowest_flipped, ~key);
      largest = larger(largest, packed(key, at, p.reversed_ties));
      if (t.hash) hash += nm::hash_element(at, nm::canonical_bits(z));
      if (!scaled) continue;
      const float y = nm::div(z, t.temperature);
      const uint32_t y_key = nm::order_key(y);
      scaled_highest = larger(scaled_highest, y_key);
      scaled_lowest_flipped = larger(scaled_lowest_flipped, ~y_key);
      if (t.noise) noisy = larger(noisy, packed(nm::order_key(nm::add(y, gumbel_of(random.v[k]))), at, p.reversed_ties));
    }
    if (p.block_keys) {
      constexpr int kThreads = kVocabularyBlock / kGroup;
#pragma unroll
      for (int stride = kThreads / 2; stride > 0; stride /= 2) highest = larger(highest, __shfl_xor_sync(~0u, highest, stride));
      if (threadIdx.x % kThreads == 0 && g.count > 0) p.block_keys[blockIdx.y * blocks + id / kVocabularyBlock] = highest;
    }
  }
  // A warp at a time: a block's eight atomics of each kind are few beside its logits.
  largest = largest_of_warp(largest);
  lowest_flipped = largest_of_warp(lowest_flipped);
  if (t.hash) hash = sum_of_warp(hash);
  if (scaled) {
    scaled_highest = largest_of_warp(scaled_highest);
    scaled_lowest_flipped = largest_of_warp(scaled_lowest_flipped);
    if (t.noise) noisy = largest_of_warp(noisy);
  }
  if (threadIdx.x % 32 != 0) return;
  VocabularyTally& tally = p.tally[blockIdx.y];
  atomicMax(&tally.largest, largest);
  atomicMax(&tally.lowest_flipped, lowest_flipped);
  if (t.hash) atomicAdd(&tally.hash, hash);
  if (!scaled) return;
  atomicMax(&tally.scaled_highest, scaled_highest);
  atomicMax(&tally.scaled_lowest_flipped, scaled_lowest_flipped);
  if (t.noise) atomicMax(&tally.largest_noisy, noisy);
}

// The n-th largest of the block keys, all threads of the block; 0 if there are fewer. No less than n logits reach it.
__device__ inline uint32_t nth_largest(const uint32_t* keys, int64_t count, int32_t n) {
  __shared__ unsigned total;
  uint32_t found = 0;
  for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
    const uint32_t candidate = found | bit;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    unsigned reach = 0;
    for (int64_t i = threadIdx.x; i < count; i += kSearchBlock) reach += keys[i] >= candidate;
    reach = __reduce_add_sync(~0u, reach);
    if (threadIdx.x % 32 == 0 && reach) atomicAdd(&total, reach);
    __syncthreads();
    if (total >= static_cast<unsigned>(n)) found = candidate;
    __syncthreads();
  }
  return found;
}

__global__ void __launch_bounds__(kBlock) bin(const __grid_constant__ VocabularyPass p, int steps) {
  __shared__ unsigned long long bins[kVocabularyBins];
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask t = p.task[blockIdx.y];
  const VocabularyTally& tally = p.tally[blockIdx.y];
  if (!(t.nucleus > 0.0) || !finite_range(~tally.scaled_lowest_flipped, tally.scaled_highest)) return;
  const float max_y = float_of_key(tally.scaled_highest);
  for (int i = threadIdx.x; i < kVocabularyBins; i += kBlock) bins[i] = 0;
  __syncthreads();
  const bool aligned = reinterpret_cast<uintptr_t>(t.z) % 16 == 0;
  for (int step = 0; step < steps; ++step) {
    const int64_t id = (int64_t{blockIdx.x} * steps + step) * kStep + threadIdx.x * kGroup;
    const Group g = load_group(t.z, id, p.vocabulary, aligned);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (k >= g.count) continue;
      const float y = nm::div(g.z[k], t.temperature);
      const uint64_t mass = nm::mass(y, max_y);
      if (mass) atomicAdd(bins + (nm::order_key(y) >> 20), static_cast<unsigned long long>(mass));
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kVocabularyBins; i += kBlock)
    if (bins[i]) atomicAdd(p.bins + int64_t{blockIdx.y} * kVocabularyBins + i, bins[i]);
}

// The highest bin from which on upward a share of all masses lies, and their sum in `total`; all threads of the block. The share
// is met with a margin far above the rounding of the comparison; the host decides exactly.
__device__ inline uint32_t nucleus_bin(const unsigned long long* bins, double share, unsigned long long* total) {
  constexpr int kBins = kVocabularyBins / kSearchBlock;  // of a thread; thread 0 has the highest
  __shared__ unsigned long long above[kSearchBlock];
  __shared__ unsigned found;
  unsigned long long mine[kBins], sum = 0;
#pragma unroll
  for (int i = 0; i < kBins; ++i) sum += mine[i] = bins[kVocabularyBins - 1 - (static_cast<int>(threadIdx.x) * kBins + i)];
  above[threadIdx.x] = sum;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();
  for (int stride = 1; stride < kSearchBlock; stride *= 2) {  // prefix sums
    const unsigned long long other = threadIdx.x >= stride ? above[threadIdx.x - stride] : 0;
    __syncthreads();
    above[threadIdx.x] += other;
    __syncthreads();
  }
  const unsigned long long all = above[kSearchBlock - 1];
  const double wanted = static_cast<double>(all) * share * (1 + 1e-9);
  unsigned long long reached = above[threadIdx.x] - sum;
  uint32_t highest = 0;
#pragma unroll
  for (int i = kBins - 1; i >= 0; --i) {
    // Mass of this bin and those above it, from the thread's last bin on.
    unsigned long long upto = reached;
#pragma unroll
    for (int j = 0; j <= i; ++j) upto += mine[j];
    if (static_cast<double>(upto) >= wanted) highest = kVocabularyBins - 1 - (threadIdx.x * kBins + i);
  }
  if (highest) atomicMax(&found, highest);
  __syncthreads();
  *total = all;
  return found;
}

// A block a task.
__global__ void __launch_bounds__(kSearchBlock) thresholds(const __grid_constant__ VocabularyPass p) {
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask t = p.task[blockIdx.x];
  VocabularyTally& tally = p.tally[blockIdx.x];
  const int64_t blocks = (p.vocabulary + kVocabularyBlock - 1) / kVocabularyBlock;
  const uint32_t* keys = p.block_keys + blockIdx.x * blocks;
  uint32_t threshold = 0, scaled_threshold = 0;
  unsigned long long scaled_mass = 0;
  if (t.best > 0) threshold = max(nth_largest(keys, blocks, t.best), 1u);
  if (t.best_scaled > 0) {
    // Division keeps the order, so the key of the quotient is reached by as many quotients.
    scaled_threshold = max(nm::order_key(nm::div(float_of_key(nth_largest(keys, blocks, t.best_scaled)), t.temperature)), 1u);
  } else if (t.by_mass) {
    // The margin is far above the rounding of the exponential (candidates.cc); the host decides exactly.
    const double bound = static_cast<double>(float_of_key(tally.scaled_highest)) + t.least;
    scaled_threshold = max(nm::order_key(static_cast<float>(bound - max(1.0, fabs(bound)) / 64)), 1u);
  } else if (t.nucleus > 0.0) {
    const uint32_t lowest = nucleus_bin(p.bins + int64_t{blockIdx.x} * kVocabularyBins, t.nucleus, &scaled_mass);
    scaled_threshold = max(lowest << 20, 1u);
  }
  // Entries of -inf have no mass and no draw takes them; listed, those of a masked row would fill the list.
  if (scaled_threshold) scaled_threshold = max(scaled_threshold, kMinusInfinityKey + 1);
  if (threadIdx.x != 0) return;
  tally.threshold = threshold;
  tally.scaled_threshold = scaled_threshold;
  tally.scaled_mass = scaled_mass;
}

__global__ void __launch_bounds__(kBlock) weigh(const __grid_constant__ VocabularyPass p, int steps) {
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask t = p.task[blockIdx.y];
  VocabularyTally& tally = p.tally[blockIdx.y];
  const uint32_t max_key = packed_key(tally.largest);
  if (!finite_range(~tally.lowest_flipped, max_key)) return;
  if (!t.mass && tally.threshold == 0 && tally.scaled_threshold == 0) return;
  const bool scaled = t.temperature > 0.0f && finite_range(~tally.scaled_lowest_flipped, tally.scaled_highest);
  const float max_z = float_of_key(max_key);
  const uint32_t threshold = tally.threshold, scaled_threshold = scaled ? tally.scaled_threshold : 0;
  int32_t drawn = -1;
  if (t.drawn_by >= 0) {
    const VocabularyTally& by = p.tally[t.drawn_by];
    const bool noisy = p.task[t.drawn_by].noise && finite_range(~by.scaled_lowest_flipped, by.scaled_highest);
    drawn = static_cast<int32_t>(packed_id(noisy ? by.largest_noisy : by.largest, p.reversed_ties));
    if (drawn >= p.vocabulary) drawn = -1;  // that row is not finite
  }
  const uint32_t drawn_key = drawn >= 0 ? nm::order_key(t.z[drawn]) : 0,
                 forced_key = t.forced >= 0 ? nm::order_key(t.z[t.forced]) : 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    if (drawn >= 0) tally.drawn_logit = t.z[drawn];
    if (t.forced >= 0) tally.forced_logit = t.z[t.forced];
  }
  const bool aligned = reinterpret_cast<uintptr_t>(t.z) % 16 == 0;
  unsigned long long mass = 0;
  unsigned drawn_before = 0, forced_before = 0;
  for (int step = 0; step < steps; ++step) {
    const int64_t id = (int64_t{blockIdx.x} * steps + step) * kStep + threadIdx.x * kGroup;
    const Group g = load_group(t.z, id, p.vocabulary, aligned);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (k >= g.count) continue;
      const float z = g.z[k];
      const uint32_t key = nm::order_key(z);
      const auto at = static_cast<int32_t>(id) + k;
      if (t.mass) {
        mass += nm::mass(z, max_z);
        drawn_before += drawn >= 0 && (key > drawn_key || (key == drawn_key && at < drawn));
        forced_before += t.forced >= 0 && (key > forced_key || (key == forced_key && at < t.forced));
      }
      bool candidate = threshold && key >= threshold;
      if (scaled_threshold) candidate |= nm::order_key(nm::div(z, t.temperature)) >= scaled_threshold;
      if (candidate) {
        const unsigned place = atomicAdd(&tally.candidates, 1u);
        if (place < kMostCandidates) p.candidates[int64_t{blockIdx.y} * kMostCandidates + place] = {at, z};
      }
    }
  }
  if (t.mass) {
    mass = sum_of_warp(mass);
    drawn_before = __reduce_add_sync(~0u, drawn_before);
    forced_before = __reduce_add_sync(~0u, forced_before);
  }
  if (threadIdx.x % 32 != 0) return;
  if (t.mass) {
    atomicAdd(&tally.mass, mass);
    if (drawn_before) atomicAdd(&tally.drawn_before, drawn_before);
    if (forced_before) atomicAdd(&tally.forced_before, forced_before);
  }
}

__global__ void __launch_bounds__(kBlock) copy_masked(const __grid_constant__ VocabularyPass p) {
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask& t = p.task[blockIdx.y];
  if (!t.raw) return;
  auto* z = const_cast<float*>(t.z);
  const int64_t first = int64_t{blockIdx.x} * kStep + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kGroup; ++i)
    if (const int64_t id = first + i * kBlock; id < p.vocabulary) {
      const bool stays = !t.allowed || (id / 8 < t.allowed_bytes && (t.allowed[id / 8] >> id % 8 & 1));
      z[id] = stays ? t.raw[id] : nm::bits_float(0xff800000u);
    }
}

__global__ void __launch_bounds__(kBlock)
    apply_penalties(const __grid_constant__ VocabularyPass p, const VocabularyPenalty* penalties) {
  let_successor_start();
  wait_for_predecessors();
  const VocabularyTask& t = p.task[blockIdx.y];
  const int64_t i = t.first_penalty + int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= t.last_penalty) return;
  const VocabularyPenalty penalty = penalties[i];
  float* z = const_cast<float*>(t.z) + penalty.id;
  float x = *z;
  if (penalty.bias != 0.0f) x = nm::add(x, penalty.bias);
  if (t.repetition != 1.0f && penalty.count >= 0) x = x < 0 ? nm::mul(x, t.repetition) : nm::div(x, t.repetition);
  if (penalty.count > 0) {
    if (t.frequency != 0.0f) x = nm::sub(x, nm::mul(t.frequency, static_cast<float>(penalty.count)));
    if (t.presence != 0.0f) x = nm::sub(x, t.presence);
  }
  *z = x;
}

__global__ void __launch_bounds__(kBlock) hash_values(const float* z, int64_t count, int64_t first, unsigned long long* hashes) {
  let_successor_start();
  wait_for_predecessors();
  const float* row = z + blockIdx.y * count;
  unsigned long long hash = 0;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < count; i += int64_t{gridDim.x} * kBlock)
    hash += nm::hash_element(static_cast<uint64_t>(first + i), nm::canonical_bits(row[i]));
  hash = sum_of_warp(hash);
  if (threadIdx.x % 32 == 0) atomicAdd(hashes + blockIdx.y, hash);
}

// Enough blocks to fill the device, and no more than there are steps.
struct Shape {
  unsigned across;
  int steps;
};
Shape shape_of(const Device& device, const VocabularyPass& p) {
  const int64_t steps = (p.vocabulary + kStep - 1) / kStep;
  const int64_t wanted = std::max<int64_t>(1, steps * p.tasks / (int64_t{device.cuda().multiprocessors} * 8));
  const int64_t each = std::min<int64_t>(wanted, 8);
  return {static_cast<unsigned>((steps + each - 1) / each), static_cast<int>(each)};
}

}  // namespace

void penalise(const Device& device, const VocabularyPass& p, const VocabularyPenalty* penalties, int64_t most) {
  const auto tasks = static_cast<unsigned>(p.tasks);
  const auto across = static_cast<unsigned>((p.vocabulary + kStep - 1) / kStep);
  launch(device, {.grid = dim3(across, tasks), .block = kBlock, .dependent = true}, copy_masked, p);
  if (most == 0) return;
  const auto blocks = static_cast<unsigned>((most + kBlock - 1) / kBlock);
  launch(device, {.grid = dim3(blocks, tasks), .block = kBlock, .dependent = true}, apply_penalties, p, penalties);
}

void scan_vocabulary(const Device& device, const VocabularyPass& p) {
  const Shape shape = shape_of(device, p);
  launch(device, {.grid = dim3(shape.across, static_cast<unsigned>(p.tasks)), .block = kBlock, .dependent = true}, scan, p,
         shape.steps);
}

void bin_masses(const Device& device, const VocabularyPass& p) {
  constexpr int kSteps = 8;  // a block's bins are cleared and added once
  check(cudaMemsetAsync(p.bins, 0, static_cast<size_t>(p.tasks) * kVocabularyBins * sizeof(*p.bins), device.cuda().stream));
  const auto across = static_cast<unsigned>((p.vocabulary + int64_t{kSteps} * kStep - 1) / (int64_t{kSteps} * kStep));
  launch(device, {.grid = dim3(across, static_cast<unsigned>(p.tasks)), .block = kBlock, .dependent = true}, bin, p, kSteps);
}

void find_thresholds(const Device& device, const VocabularyPass& p) {
  launch(device, {.grid = static_cast<unsigned>(p.tasks), .block = kSearchBlock, .dependent = true}, thresholds, p);
}

void weigh_vocabulary(const Device& device, const VocabularyPass& p) {
  const Shape shape = shape_of(device, p);
  launch(device, {.grid = dim3(shape.across, static_cast<unsigned>(p.tasks)), .block = kBlock, .dependent = true}, weigh, p,
         shape.steps);
}

void download_candidates(const Device& device, const VocabularyPass& p, int64_t each, VocabularyCandidate* to) {
  check(cudaMemcpy2DAsync(to, each * sizeof(*to), p.candidates, kMostCandidates * sizeof(*to), each * sizeof(*to),
                          static_cast<size_t>(p.tasks), cudaMemcpyDeviceToHost, device.cuda().stream));
  device.synchronize();
}

void hash_rows(const Device& device, const float* logits, int64_t rows, int64_t count, int64_t first, uint64_t* hashes) {
  if (rows == 0) return;
  check(cudaMemsetAsync(hashes, 0, static_cast<size_t>(rows) * sizeof(uint64_t), device.cuda().stream));
  const int64_t blocks = std::max<int64_t>(
      1, std::min<int64_t>((count + kBlock - 1) / kBlock, int64_t{device.cuda().multiprocessors} * 16 / rows + 1));
  launch(device, {.grid = dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows)), .block = kBlock, .dependent = true},
         hash_values, logits, count, first, reinterpret_cast<unsigned long long*>(hashes));
}

}  // namespace invar::cuda
