#include "kernels/moe/router.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/lanes/row_split.h"
#include "kernels/moe/cuda/router.h"
#include "kernels/moe/schedules.h"
#include "kernels/norm/norm.h"

namespace invar {
namespace {

const float kNan = numerics::bits_float(0x7fffffffu);
constexpr uint32_t kInfinityKey = 0xff800000u;  // order_key(+inf)
constexpr uint32_t kMinusInfinityKey = ~0xff800000u;

float canonical(float x) { return numerics::bits_float(numerics::canonical_bits(x)); }

void check(const Router& p) {
  if (p.experts < 1 || p.experts > numerics::kSumLanes)
    throw std::invalid_argument("router: experts must be in [1, " + std::to_string(numerics::kSumLanes) + "], got " +
                                std::to_string(p.experts));
  if (p.top_k < 1 || p.top_k > p.experts)
    throw std::invalid_argument("router: top_k must be in [1, experts = " + std::to_string(p.experts) + "], got " +
                                std::to_string(p.top_k));
}

// The largest logit by order_key, NaN counting as the largest of all. Exact, so any order of looking gives it.
uint32_t max_key(const float* z, int64_t count) {
  uint32_t key = 0;
  for (int64_t i = 0; i < count; ++i) key = std::max(key, numerics::order_key(canonical(z[i])));
  return key;
}
// Then the differences z - max would be NaN or meaningless: the whole row's scores are NaN.
bool finite_key(uint32_t key) { return key > kMinusInfinityKey && key < kInfinityKey; }
float value_of_key(uint32_t key) { return numerics::bits_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// Scratch of one range of rows.
struct Scores {
  explicit Scores(int64_t experts)
      : padded((experts + moe_schedule::kPadding - 1) / moe_schedule::kPadding * moe_schedule::kPadding),
        z(padded),
        p(padded),
        keys(experts) {}
  size_t padded;
  std::vector<float> z;
  std::vector<float> p;
  std::vector<uint64_t> keys;
};

void scalar_scores(RouterScore score, const float* z, int64_t count, float* p) {
  if (score == RouterScore::kSigmoid) {
    for (int64_t i = 0; i < count; ++i) p[i] = z[i] != z[i] ? kNan : numerics::sigmoid(z[i]);
    return;
  }
  const uint32_t key = max_key(z, count);
  if (!finite_key(key)) {
    std::fill(p, p + count, kNan);
    return;
  }
  const float max = value_of_key(key);
  for (int64_t i = 0; i < count; ++i) p[i] = numerics::exp2(numerics::mul(numerics::sub(z[i], max), numerics::kLog2e));
  const float total = row_sum_reference(p, count);
  for (int64_t i = 0; i < count; ++i) p[i] = numerics::div(p[i], total);
}

void vector_scores(Isa isa, RouterScore score, const float* logits, int64_t count, Scores& s) {
  std::memcpy(s.z.data(), logits, count * sizeof(float));
  if (score == RouterScore::kSigmoid) {
    (isa == Isa::kAvx512 ? moe_schedule::sigmoid_avx512 : moe_schedule::sigmoid_avx2)(s.z.data(), count, s.p.data());
    for (int64_t i = 0; i < count; ++i) s.p[i] = s.z[i] != s.z[i] ? kNan : s.p[i];
    return;
  }
  const uint32_t key = max_key(logits, count);
  if (!finite_key(key)) {
    std::fill(s.p.begin(), s.p.end(), kNan);
    return;
  }
  (isa == Isa::kAvx512 ? moe_schedule::softmax_avx512 : moe_schedule::softmax_avx2)(s.z.data(), value_of_key(key), count,
                                                                                    s.p.data());
}

// Keys are unique, so every selection algorithm finds the same k.
void choose(const float* p, int64_t experts, int64_t top_k, bool reversed_ties, std::vector<uint64_t>& keys, int32_t* ids) {
  for (int64_t i = 0; i < experts; ++i) {
    const auto id = static_cast<uint32_t>(i);
    keys[i] = uint64_t{numerics::order_key(p[i])} << 32 | (reversed_ties ? id : ~id);
  }
  std::partial_sort(keys.begin(), keys.begin() + top_k, keys.end(), std::greater<>());
  for (int64_t i = 0; i < top_k; ++i) {
    const auto low = static_cast<uint32_t>(keys[i]);
    ids[i] = static_cast<int32_t>(reversed_ties ? low : ~low);
  }
  std::sort(ids, ids + top_k);
}

// `ids` ascending. The weights are p itself, or p over the fold of the chosen ones.
void weigh(const float* p, const int32_t* ids, int64_t top_k, bool renormalise, float* weights) {
  for (int64_t i = 0; i < top_k; ++i) weights[i] = p[ids[i]];
  if (renormalise) {
    float total = weights[0];
    for (int64_t i = 1; i < top_k; ++i) total = numerics::add(total, weights[i]);
    for (int64_t i = 0; i < top_k; ++i) weights[i] = numerics::div(weights[i], total);
  }
  for (int64_t i = 0; i < top_k; ++i) weights[i] = canonical(weights[i]);
}

void combine_scalar(const Combine& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    for (int64_t i = 0; i < p.width; ++i) {
      float acc = 0;
      for (int64_t t = 0; t < p.top_k; ++t) {
        const int64_t row = p.row_of[r * p.top_k + t];
        if (row < 0) continue;
        acc = numerics::fma(p.weights[r * p.top_k + t], numerics::widen(p.expert_rows[row * p.width + i]), acc);
      }
      if (p.shared) acc = numerics::fma(1.0f, numerics::widen(p.shared[r * p.width + i]), acc);
      p.y[r * p.width + i] = numerics::bf(acc);
    }
}

}  // namespace

// The plainest reading of the clause: sort every expert, keep the first k.
void route_reference(const Router& problem) {
  check(problem);
  std::vector<float> p(problem.experts);
  std::vector<int32_t> order(problem.experts);
  for (int64_t r = 0; r < problem.rows; ++r) {
    scalar_scores(problem.score, problem.logits + r * problem.experts, problem.experts, p.data());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return numerics::order_key(p[a]) > numerics::order_key(p[b]); });
    int32_t* ids = problem.ids + r * problem.top_k;
    std::copy_n(order.begin(), problem.top_k, ids);
    std::sort(ids, ids + problem.top_k);
    weigh(p.data(), ids, problem.top_k, problem.renormalise, problem.weights + r * problem.top_k);
  }
}

void route(const Device& device, const Router& problem) {
  check(problem);
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::route(device, problem);
  const bool reversed_ties = device.control_arm() == ControlArm::kReversedTies;
  split_rows(device.pool(), problem.rows, problem.experts * 4, [&](int64_t begin, int64_t end) {
    Scores scores(problem.experts);
    for (int64_t r = begin; r < end; ++r) {
      const float* logits = problem.logits + r * problem.experts;
      int32_t* ids = problem.ids + r * problem.top_k;
      if (device.isa() == Isa::kScalar)
        scalar_scores(problem.score, logits, problem.experts, scores.p.data());
      else
        vector_scores(device.isa(), problem.score, logits, problem.experts, scores);
      choose(scores.p.data(), problem.experts, problem.top_k, reversed_ties, scores.keys, ids);
      weigh(scores.p.data(), ids, problem.top_k, problem.renormalise, problem.weights + r * problem.top_k);
    }
  });
}

void combine_reference(const Combine& problem) { combine_scalar(problem, 0, problem.rows); }

void combine(const Device& device, const Combine& problem) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::combine(device, problem);
  const auto schedule = device.isa() == Isa::kAvx512 ? moe_schedule::combine_avx512
                        : device.isa() == Isa::kAvx2 ? moe_schedule::combine_avx2
                                                     : combine_scalar;
  split_rows(device.pool(), problem.rows, problem.width * (problem.top_k + 1),
             [&](int64_t begin, int64_t end) { schedule(problem, begin, end); });
}

}  // namespace invar
