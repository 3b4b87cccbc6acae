#include "kernels/logits/sample_rows.h"

#include <gtest/gtest.h>

#include "kernels/logits/random_problems.h"

namespace invar {
namespace {

using namespace random_problems;

TEST(SampleRows, EachRowIsSampledAsAlone) {
  for (const int64_t vocabulary : {1, 300, 4099}) {
    const Batch batch = make_batch(vocabulary, 60, static_cast<uint32_t>(vocabulary));
    for (const int threads : {1, 3}) {
      const Device device({.threads = threads});
      const std::vector<SampledRow> got = RowSampler(device).run(batch.logits.data(), vocabulary, batch.problems);
      std::vector<uint64_t> hashes(60);
      hash_rows(device, batch.logits.data(), 60, vocabulary, 0, hashes.data());
      ASSERT_EQ(got.size(), 60u);
      for (size_t r = 0; r < got.size(); ++r) {
        const SampleProblem problem = batch.with_logits(r);
        EXPECT_EQ(difference(got[r].sample, sample_reference(problem)), "") << describe(problem);
        EXPECT_EQ(got[r].hash, hash_logits(device, problem.logits.data(), vocabulary, 0));
        EXPECT_EQ(hashes[r], got[r].hash);
      }
    }
  }
}

}  // namespace
}  // namespace invar
