// cuBLASLt as an oracle: a column's order is what it computes without a split of K, so those of its algorithms give the bits of
// our schedules.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/linear.h"

namespace invar {
namespace {

struct Shape {
  int64_t rows, outputs, inputs;
};

class BlasOracle : public CudaTest {
 protected:
  // How many of cuBLASLt's algorithms give our bits for every output; `of`: how many ran.
  int equal_algorithms(const Device& tc, const Shape& s, int* of) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    const auto drawn = [&](int64_t count) {
      std::vector<Bf16> values(static_cast<size_t>(count));
      for (Bf16& v : values) v = numerics::bf(normal(random));
      return values;
    };
    const std::vector<Bf16> weights = drawn(s.outputs * s.inputs);
    PackedWeights packed(tc, s.outputs, s.inputs);
    packed.pack_rows(0, weights.data(), s.outputs, s.inputs);
    const DeviceArray<Bf16> x(tc, drawn(s.rows * s.inputs)), plain(tc, weights);
    const DeviceArray<float> ours(tc, std::vector<float>(static_cast<size_t>(s.rows * s.outputs)));
    linear_column(
        tc,
        {.rows = s.rows, .x = x.data(), .x_stride = s.inputs, .weights = &packed, .y_fp32 = ours.data(), .y_stride = s.outputs});
    const std::vector<float> want = ours.to_host(tc);
    const ceilings::BlasProduct product(tc, {.rows = s.rows, .outputs = s.outputs, .inputs = s.inputs, .fp32_result = true}, 32);
    int equal = 0;
    *of = 0;
    for (size_t algorithm = 0; algorithm < product.algorithms(); ++algorithm) {
      const DeviceArray<float> theirs(tc, std::vector<float>(want.size(), 77.0f));
      if (!product.run(algorithm, plain.data(), x.data(), theirs.data())) continue;
      ++*of;
      const std::vector<float> got = theirs.to_host(tc);
      bool same = true;
      for (size_t i = 0; i < want.size() && same; ++i)
        same = numerics::canonical_bits(got[i]) == numerics::canonical_bits(want[i]);
      equal += same;
    }
    return equal;
  }
};

TEST_F(BlasOracle, ItsOrderWithoutSplitsIsOurs) {
  const auto tc = open(Profile::kTc);
  for (const Shape& s : {Shape{8, 256, 64}, Shape{8, 768, 2048}, Shape{64, 512, 1024}, Shape{128, 384, 2048},
                         Shape{300, 768, 2048}, Shape{1024, 1536, 2048}, Shape{1024, 768, 4096}, Shape{512, 1280, 8192}}) {
    int of = 0;
    const int equal = equal_algorithms(*tc, s, &of);
    const std::string where = std::to_string(s.rows) + " rows, " + std::to_string(s.outputs) + " x " + std::to_string(s.inputs);
    RecordProperty(where, std::to_string(equal) + " of " + std::to_string(of));
    EXPECT_GE(equal, 1) << where << ": none of " << of << " algorithms";
  }
}

TEST_F(BlasOracle, SwappedGroupsAreAnotherOrder) {
  const auto tc = open(Profile::kTc, ControlArm::kSwappedGroups);
  int of = 0;
  EXPECT_EQ(equal_algorithms(*tc, {300, 768, 2048}, &of), 0);
  EXPECT_GE(of, 1);
}

}  // namespace
}  // namespace invar
