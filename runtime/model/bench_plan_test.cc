#include "runtime/model/bench_plan.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace invar {
namespace {

using testing::HasSubstr;

constexpr int64_t kMemory = int64_t{80} << 30;

class BenchPlanTest : public testing::Test {
 protected:
  BenchPlanTest() {
    options_.model = INVAR_SOURCE_DIR "/configs/shapes/qwen3-8b.json";
    options_.page_size = 16;
  }
  std::string refusal(int64_t memory = kMemory) { return std::string(plan_bench(options_, memory).status().message()); }
  // With the lines as its trace.
  void trace(const std::string& lines) {
    std::ofstream(path_) << "TIMESTAMP,ContextTokens,GeneratedTokens\n" << lines;
    options_.traces = {path_};
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "bench_plan_test." + std::to_string(getpid()) + ".csv";
  BenchOptions options_;
};

TEST_F(BenchPlanTest, ATraceIsServedWithTheEnginesDefaults) {
  options_.traces = {"default"};
  const auto plan = plan_bench(options_, kMemory);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->served.size(), 1u);
  const ServedLoad& load = plan->served[0];
  EXPECT_EQ(load.options.max_num_seqs, 256);
  EXPECT_EQ(load.options.max_num_batched_tokens, 2048);
  EXPECT_EQ(static_cast<int64_t>(load.steps.size()), options_.trace_steps);
  // 0.9 of 80 GiB less 16.4 GB of weights: 8 KV heads of 128, keys and values, bf16, 36 layers.
  EXPECT_NEAR(static_cast<double>(load.options.pages) * 16 * 147456, 59e9, 2e9);
  for (const ServedStep& step : load.steps)
    for (const int64_t slot : step.rows.slots) ASSERT_LT(slot, plan->tokens);
}

TEST_F(BenchPlanTest, RequestsAreTakenAtEvenDistancesAndCutToTheModel) {
  trace(
      "2024-01-01 00:00:00,10,1\n2024-01-01 00:00:01,999,1\n2024-01-01 00:00:02,30,1\n2024-01-01 00:00:03,999,1\n"
      "2024-01-01 00:00:04,50,1\n2024-01-01 00:00:05,1000000,1\n");
  options_.trace_requests = 3;
  const auto plan = plan_bench(options_, kMemory);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->served[0].steps.size(), 1u);  // 10 + 30 + 50 tokens
  EXPECT_EQ(plan->served[0].steps[0].rows.size(), 90);
  options_.trace_requests = 6;
  const auto all = plan_bench(options_, kMemory);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->longest, all->config.max_position_embeddings);
}

TEST_F(BenchPlanTest, StepsOfSeveralRanksHaveAPriceToo) {
  options_ = {.model = options_.model, .decode = {"1x16"}, .tp = 2, .price = true};
  const auto plan = plan_bench(options_, kMemory);
  EXPECT_TRUE(plan.ok()) << plan.status();
}

TEST_F(BenchPlanTest, RefusesNamingTheFlag) {
  trace("2024-01-01 00:00:00,10,1\n2024-01-01 00:00:00,ten,1\n");
  EXPECT_THAT(refusal(), HasSubstr("--price-trace " + path_ + ":3"));
  options_.traces = {"/nowhere.csv"};
  EXPECT_THAT(refusal(), HasSubstr("--price-trace /nowhere.csv"));
  options_.traces = {"default"};
  EXPECT_THAT(refusal(int64_t{8} << 30), HasSubstr("--gpu-memory-utilization 0.9"));
  options_.tp = 2;
  EXPECT_THAT(refusal(), HasSubstr("--tp 2"));
  options_ = {.model = options_.model, .decode = {"64"}};
  EXPECT_THAT(refusal(), HasSubstr("--decode 64"));
}

}  // namespace
}  // namespace invar
