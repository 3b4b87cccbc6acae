// The attention's weights and references on the GPU: the host's bits. attention_weight_test.cc has what the host's must be.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention/attention_order.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"

namespace invar {
namespace {

constexpr uint32_t kFirstInside = 0x40000000u, kInside = 1u << 22;  // the floats of [2, 3)
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using AttentionWeightCuda = CudaTest;

__global__ void inside_kernel(float* p) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < kInside; i += gridDim.x * blockDim.x)
    p[i] = numerics::attention_weight_inside(numerics::bits_float(kFirstInside + i));
}

TEST_F(AttentionWeightCuda, EveryFloatInside) {
  const DeviceArray<float> p(device(), kInside);
  cuda::launch(device(), {.grid = 1024, .block = 256}, inside_kernel, p.data());
  const std::vector<float> got = p.to_host(device());
  for (uint32_t i = 0; i < kInside; ++i) {
    const float t = numerics::bits_float(kFirstInside + i);
    ASSERT_EQ(numerics::float_bits(got[i]), numerics::float_bits(numerics::attention_weight_inside(t))) << t;
  }
  EXPECT_EQ(numerics::float_bits(got[1000]) & 0x7f800000u, 0u) << "subnormal weights are to be kept";
  EXPECT_NE(got[1000], 0.0f);
}

// Counts the bit patterns whose weight is not what the order says, given that it is right inside; of `form`, or of the form for
// floats inside if its one condition lets it (everywhere if there were none).
enum class Form { kTotal, kInsideWhereSeen, kInsideEverywhere };
__global__ void compare_kernel(Form form, unsigned long long* count, uint32_t* example) {
  const uint64_t stride = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < (uint64_t{1} << 32); i += stride) {
    const auto bits = static_cast<uint32_t>(i);
    const float t = numerics::bits_float(bits);
    const bool subnormal = (bits & 0x7f800000u) == 0 && (bits & 0x7fffffffu) != 0;
    if (form == Form::kInsideWhereSeen && ((bits & numerics::kAttentionOutside) != 0 || subnormal)) continue;
    const float got = form == Form::kTotal ? numerics::attention_weight(t) : numerics::attention_weight_inside(t);
    const bool inside = bits - kFirstInside < kInside;
    const float want = inside ? numerics::attention_weight_inside(t) : t != t ? t : t >= 3.0f ? 2.0f : 0.0f;
    if (numerics::float_bits(got) == numerics::float_bits(want)) continue;
    atomicAdd(count, 1ull);
    *example = bits;
  }
}

TEST_F(AttentionWeightCuda, EveryFloat) {
  for (const Form form : {Form::kTotal, Form::kInsideWhereSeen, Form::kInsideEverywhere}) {
    const DeviceArray<unsigned long long> count(device(), 1);
    const DeviceArray<uint32_t> where(device(), 1);
    cuda::launch(device(), {.grid = 1024, .block = 256}, compare_kernel, form, count.data(), where.data());
    const float example = numerics::bits_float(where.to_host(device())[0]);
    if (form == Form::kInsideEverywhere)
      EXPECT_GT(count.to_host(device())[0], 0u);
    else
      EXPECT_EQ(count.to_host(device())[0], 0u) << "one is " << example;
  }
}

struct Moved {
  float reference, offset, rescale, t;
};
INVAR_HD Moved move(float score, float c, float before) {
  const float step = attention_order::exponent_step(c), r = attention_order::moved_reference(score, c, before);
  const float offset = numerics::attention_offset(r);
  return {r, offset, attention_order::rescale(before, r), numerics::fma(score, step, offset)};
}
__global__ void move_kernel(const float* score, const float* c, const float* before, Moved* to, int count) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count; i += static_cast<int>(gridDim.x * blockDim.x))
    to[i] = move(score[i], c[i], before[i]);
}

TEST_F(AttentionWeightCuda, References) {
  constexpr int kCount = 1 << 20;
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> score, c, before;
  for (int i = 0; i < kCount; ++i) {
    score.push_back(rng() % 8 ? std::ldexp(normal(rng), static_cast<int>(rng() % 34)) : numerics::bits_float(rng()));
    c.push_back(attention_order::exponent_scale(std::ldexp(1 + std::fabs(normal(rng)), -static_cast<int>(rng() % 12))));
    before.push_back(rng() % 4 ? std::rint(std::ldexp(normal(rng), static_cast<int>(rng() % 26))) : -kInfinity);
  }
  const DeviceArray<float> scores(device(), score), cs(device(), c), befores(device(), before);
  const DeviceArray<Moved> to(device(), kCount);
  cuda::launch(device(), {.grid = 256, .block = 256}, move_kernel, static_cast<const float*>(scores.data()),
               static_cast<const float*>(cs.data()), static_cast<const float*>(befores.data()), to.data(), kCount);
  const std::vector<Moved> got = to.to_host(device());
  for (int i = 0; i < kCount; ++i) {
    const Moved want = move(score[i], c[i], before[i]);
    const auto same = [](float a, float b) { return numerics::canonical_bits(a) == numerics::canonical_bits(b); };
    ASSERT_TRUE(same(got[i].reference, want.reference) && same(got[i].offset, want.offset) &&
                same(got[i].rescale, want.rescale) && same(got[i].t, want.t))
        << score[i] << " " << c[i] << " " << before[i];
  }
}

}  // namespace
}  // namespace invar
