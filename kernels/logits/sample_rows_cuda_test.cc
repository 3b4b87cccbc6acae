// Sampling on a GPU against sample() and the reference, bit for bit.
#include <gtest/gtest.h>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/logits/random_problems.h"
#include "kernels/logits/sample_rows.h"

namespace invar {
namespace {

using namespace random_problems;
using SampleRowsCuda = CudaTest;

void expect_equal(const Device& device, RowSampler& sampler, const Batch& batch, bool against_reference) {
  const DeviceArray<float> logits(device, batch.logits);
  const std::vector<SampledRow> got = sampler.run(logits.data(), batch.vocabulary, batch.problems);
  ASSERT_EQ(got.size(), batch.problems.size());
  const Device cpu({.control_arm = device.control_arm()});
  for (size_t r = 0; r < got.size(); ++r) {
    const SampleProblem problem = batch.with_logits(r);
    const SampleResult want = against_reference ? sample_reference(problem) : sample(cpu, problem);
    ASSERT_EQ(difference(got[r].sample, want), "")
        << "row " << r << " of " << got.size() << ", vocabulary " << batch.vocabulary << ", " << describe(problem);
    ASSERT_EQ(got[r].hash, hash_logits(cpu, problem.logits.data(), batch.vocabulary, 0)) << "row " << r;
  }
}

TEST_F(SampleRowsCuda, RandomProblems_GetTheReferenceAnswer) {
  RowSampler sampler(device());
  uint32_t seed = 0;
  for (const int64_t vocabulary : {1, 2, 5, 17, 300, 1000, 4099, 20000})
    for (const int64_t rows : {1, 7, 64})
      ASSERT_NO_FATAL_FAILURE(expect_equal(device(), sampler, make_batch(vocabulary, rows, ++seed), true));
}

TEST_F(SampleRowsCuda, LargeVocabularies_GetTheHostsAnswer) {
  RowSampler sampler(device());
  uint32_t seed = 100;
  for (const int64_t vocabulary : {49152, 128256, 151936, 151937})
    for (const int64_t rows : {1, 33})
      ASSERT_NO_FATAL_FAILURE(expect_equal(device(), sampler, make_batch(vocabulary, rows, ++seed), false));
}

// Every filter that the device narrows, one at a time, without and with log-probabilities.
void set_each_filter(Batch& batch) {
  const SamplingControls plain{};
  std::vector<SamplingControls> all(12, plain);
  all[1].temperature = 0;
  all[2].top_k = 20;
  all[3].top_p = 0.9f;
  all[4].min_p = 0.05f;
  all[5].top_k = 50, all[5].top_p = 0.95f, all[5].temperature = 0.6f;
  all[6].repetition_penalty = 1.2f;
  all[7].frequency_penalty = 0.5f, all[7].presence_penalty = 0.5f, all[7].top_k = 20;
  all[8].temperature = 1e-39f;
  all[9].min_p = 0.1f, all[9].top_k = 5;
  all[10].top_p = 0.999999f;  // its nucleus does not end among the candidates
  all[11].temperature = 2.0f, all[11].top_p = 0.1f;
  for (float& z : batch.logits) z = std::isfinite(z) ? z : -1.0f;
  for (size_t r = 0; r < batch.problems.size(); ++r) {
    SampleProblem& p = batch.problems[r];
    const SamplingControls old = p.controls;
    p.controls = all[r % all.size()];
    p.controls.seed = old.seed, p.controls.choice = old.choice;
    p.top_logprobs = static_cast<int32_t>(r / 12) * 5 - 5;
    p.allowed = {}, p.bias = {};
  }
}

TEST_F(SampleRowsCuda, EachFilter_GetsTheHostsAnswer) {
  RowSampler sampler(device());
  Batch batch = make_batch(50000, 48, 77);
  set_each_filter(batch);
  expect_equal(device(), sampler, batch, false);
}

TEST_F(SampleRowsCuda, MaskedRows_GetTheHostsAnswer) {
  RowSampler sampler(device());
  for (const int share : {0, 1, 30, 255}) {
    Batch batch = make_batch(151936, 48, 78);
    set_each_filter(batch);
    const std::vector<uint8_t> mask = random_mask(151936, share, 5);
    for (size_t r = 0; r < batch.problems.size(); r += 1 + r % 2) batch.problems[r].allowed = mask;
    ASSERT_NO_FATAL_FAILURE(expect_equal(device(), sampler, batch, false)) << "share " << share;
  }
}

TEST_F(SampleRowsCuda, MaskAndBiasOfARow_LeaveItsNeighboursAlone) {
  RowSampler sampler(device());
  Batch batch = make_batch(151936, 24, 79);
  set_each_filter(batch);
  const DeviceArray<float> logits(device(), batch.logits);
  const std::vector<SampledRow> before = sampler.run(logits.data(), batch.vocabulary, batch.problems);
  const std::vector<uint8_t> mask = random_mask(151936, 3, 6);
  const std::vector<LogitBias> bias = {{17, 100.0f}, {151935, -50.0f}};
  for (size_t r = 0; r < batch.problems.size(); r += 3) batch.problems[r].allowed = mask, batch.problems[r].bias = bias;
  const std::vector<SampledRow> after = sampler.run(logits.data(), batch.vocabulary, batch.problems);
  int moved = 0;
  for (size_t r = 0; r < before.size(); ++r) {
    EXPECT_EQ(before[r].hash, after[r].hash) << "the hash is of the raw logits, row " << r;
    if (r % 3 == 0) {
      moved += before[r].sample.token != after[r].sample.token;
    } else {
      EXPECT_EQ(difference(before[r].sample, after[r].sample), "") << "row " << r;
    }
  }
  EXPECT_GT(moved, 0) << "the control: masked rows must draw something else";
}

TEST_F(SampleRowsCuda, ReversedTies_AreTheControlArmAndDiffer) {
  const auto reversed = open(Profile::kPortable, ControlArm::kReversedTies);
  RowSampler sampler(*reversed), plain(device());
  for (const int64_t vocabulary : {300, 20000}) {
    const Batch batch = make_batch(vocabulary, 40, 500);
    expect_equal(*reversed, sampler, batch, false);
  }
  const std::vector<float> ties = {1, 5, 5, 2};
  const DeviceArray<float> logits(device(), ties), other(*reversed, ties);
  const SampleProblem greedy{.controls = {.temperature = 0}};
  EXPECT_EQ(plain.run(logits.data(), 4, {&greedy, 1})[0].sample.token, 1);
  EXPECT_EQ(sampler.run(other.data(), 4, {&greedy, 1})[0].sample.token, 2);
}

TEST_F(SampleRowsCuda, HashRows_GivesTheHostHashes) {
  const Device cpu({});
  for (const int64_t count : {1, 5, 1000, 151936})
    for (const int64_t rows : {1, 40}) {
      const Batch batch = make_batch(count, rows, 9);
      const DeviceArray<float> logits(device(), batch.logits);
      const DeviceArray<uint64_t> hashes(device(), rows);
      hash_rows(device(), logits.data(), rows, count, 7, hashes.data());
      const std::vector<uint64_t> got = hashes.to_host(device());
      for (int64_t r = 0; r < rows; ++r)
        ASSERT_EQ(got[r], hash_logits(cpu, batch.logits.data() + r * count, count, 7)) << "row " << r;
    }
}

}  // namespace
}  // namespace invar
