// The load test's own parts: plans made from flags, times of answers, figures at the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "launch/load_plan.h"
#include "launch/load_report.h"
#include "launch/load_run.h"

namespace invar::launch {
namespace {

using testing::HasSubstr;

constexpr LoadLimits kLimits{.vocab_size = 100, .max_model_len = 64};

std::string bytes_of(const LoadPlan& plan) {
  std::string all;
  for (const PlannedRequest& p : plan.requests) all += std::to_string(p.at) + p.request.SerializeAsString();
  return all;
}

TEST(LoadPlan, EqualSeedsMakeEqualLoadsOthersDoNot) {
  LoadOptions o{.num_prompts = 20, .request_rate = "5", .random_input_len = 7, .random_output_len = 3};
  const LoadPlan plan = plan_load(o, kLimits).value();
  ASSERT_EQ(plan.requests.size(), 20u);
  EXPECT_EQ(bytes_of(plan), bytes_of(plan_load(o, kLimits).value()));
  o.seed = 1;
  EXPECT_NE(bytes_of(plan), bytes_of(plan_load(o, kLimits).value()));
  for (const PlannedRequest& p : plan.requests) {
    EXPECT_EQ(p.request.prompt_token_ids().ids_size(), 7);
    EXPECT_EQ(p.request.sampling_params().max_tokens(), 3u);
    EXPECT_TRUE(p.request.sampling_params().ignore_eos());
    for (int32_t id : p.request.prompt_token_ids().ids()) EXPECT_TRUE(id >= 0 && id < 100);
  }
}

TEST(LoadPlan, ArrivalsArePoisson) {
  const LoadPlan plan =
      plan_load({.num_prompts = 20000, .request_rate = "8", .random_input_len = 1, .random_output_len = 1}, kLimits).value();
  std::vector<double> gaps;
  double sum = 0, squares = 0;
  for (size_t i = 1; i < plan.requests.size(); ++i) {
    const double gap = plan.requests[i].at - plan.requests[i - 1].at;
    ASSERT_GE(gap, 0);
    sum += gap;
    squares += gap * gap;
  }
  const double n = static_cast<double>(plan.requests.size() - 1), mean = sum / n;
  EXPECT_EQ(plan.requests.front().at, 0);
  EXPECT_NEAR(mean, 1.0 / 8, 0.004);
  // Exponential gaps: the deviation equals the mean.
  EXPECT_NEAR(std::sqrt(squares / n - mean * mean), mean, 0.006);
}

TEST(LoadPlan, AllAtOnce) {
  const LoadPlan plan = plan_load({.num_prompts = 5, .random_input_len = 1}, kLimits).value();
  for (const PlannedRequest& p : plan.requests) EXPECT_EQ(p.at, 0);
}

TEST(LoadPlan, RefusesNamingTheFlag) {
  const auto message = [](const LoadOptions& o) { return std::string(plan_load(o, kLimits).status().message()); };
  EXPECT_THAT(message({.request_rate = "0"}), HasSubstr("--random-input-len 128 plus"));
  LoadOptions o{.random_input_len = 4, .random_output_len = 4};
  for (const char* rate : {"0", "-1", "fast", "nan", ""}) {
    o.request_rate = rate;
    EXPECT_THAT(message(o), HasSubstr(std::string("--request-rate ") + rate)) << rate;
  }
  o.request_rate = "inf";
  o.trace_speedup = 0;
  EXPECT_THAT(message(o), HasSubstr("--trace-speedup"));
}

class LoadTrace : public testing::Test {
 protected:
  absl::StatusOr<LoadPlan> plan(const std::string& text, double speedup = 1, int64_t prompts = 100) {
    std::ofstream(path_, std::ios::binary) << text;
    return plan_load({.num_prompts = prompts, .trace_file = path_, .trace_speedup = speedup}, kLimits);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "load_test." + std::to_string(getpid()) + ".csv";
};

TEST_F(LoadTrace, ReplaysTimesAndLengths) {
  // As published: carriage returns, a fraction of seven digits, no line end at the end; midnight passes; one line comes early.
  const auto read = plan(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-30 23:59:58.5000000,10,4\r\n2023-12-01 00:00:02.5000000,20,5\r\n"
      "2023-12-01 00:00:00.0000000,500,200",
      2);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->requests.size(), 3u);
  EXPECT_DOUBLE_EQ(read->requests[0].at, 0);
  EXPECT_DOUBLE_EQ(read->requests[1].at, 0.75);
  EXPECT_DOUBLE_EQ(read->requests[2].at, 2);
  EXPECT_EQ(read->requests[0].prompt_tokens, 10);
  EXPECT_EQ(read->requests[0].output_tokens, 4);
  EXPECT_EQ(read->requests[2].request.prompt_token_ids().ids_size(), 20);
  EXPECT_EQ(read->clipped, 1);
  EXPECT_EQ(read->requests[1].output_tokens, 32);
  EXPECT_EQ(read->requests[1].prompt_tokens, 32);
}

TEST_F(LoadTrace, RefusesNamingFlagAndLine) {
  const auto bad = plan("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,one,2\n");
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("--trace-file " + path_ + ":2"));
  EXPECT_TRUE(absl::IsNotFound(plan_load({.trace_file = "/nowhere.csv"}, kLimits).status()));
}

TEST(LoadReport, Percentiles) {
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(percentile({7}, 0.99), 7);
  EXPECT_DOUBLE_EQ(percentile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile({0, 10}, 0.99), 9.9);
}

// Answers request i with `tokens` tokens in two responses, the second of all but one, from a thread of its own.
LoadTarget fake_target(std::vector<std::thread>& threads, int failing) {
  return {.start =
              [&threads, failing, i = 0](const v1::GenerateRequest& request, auto on_response, auto on_done) mutable {
                const bool fails = i == failing;
                threads.emplace_back([=, number = i++] {
                  std::this_thread::sleep_for(std::chrono::milliseconds(5 * (3 - number)));
                  if (fails) return on_done(absl::ResourceExhaustedError("full"));
                  v1::GenerateResponse r;
                  r.add_choices()->add_token_ids(1);
                  on_response(r);
                  std::this_thread::sleep_for(std::chrono::milliseconds(30));
                  v1::ChoiceDelta& d = *r.mutable_choices(0);
                  d.clear_token_ids();
                  for (uint32_t t = 1; t < request.sampling_params().max_tokens(); ++t) d.add_token_ids(2);
                  d.set_response_digest("answer " + std::to_string(number));
                  r.mutable_usage()->set_prompt_tokens(static_cast<uint32_t>(request.prompt_token_ids().ids_size()));
                  r.mutable_usage()->set_cached_tokens(2);
                  r.set_finished(true);
                  on_response(r);
                  on_done(absl::OkStatus());
                });
              },
          .give_up = [] {}};
}

LoadReport run_fake(int failing) {
  const LoadPlan plan = plan_load({.num_prompts = 3, .random_input_len = 5, .random_output_len = 4}, kLimits).value();
  std::vector<std::thread> threads;
  const LoadResult result = run_load(plan, fake_target(threads, failing), 60, "test");
  for (std::thread& t : threads) t.join();
  return report_of(result);
}

TEST(LoadRun, CountsAndTimes) {
  const LoadReport r = run_fake(-1);
  EXPECT_EQ(r.completed, 3);
  EXPECT_EQ(r.failed, 0);
  EXPECT_EQ(r.prompt_tokens, 15);
  EXPECT_EQ(r.output_tokens, 12);
  EXPECT_EQ(r.cached_tokens, 6);
  // Sleeps are never shorter than asked for; three tokens came together 30 ms after the first.
  EXPECT_GE(r.first_token.mean, 10);
  EXPECT_GE(r.between_tokens.median, 10);
  EXPECT_GE(r.whole.mean, r.first_token.mean + 30);
  EXPECT_GE(r.seconds, 0.045);
  EXPECT_NEAR(r.tokens_per_second() * r.seconds, 27, 1e-9);
  EXPECT_EQ(to_json(r)["total_output_tokens"], 12);
}

TEST(LoadRun, TheDigestIsOfTheAnswersNotOfTheirOrder) {
  const LoadReport a = run_fake(-1);  // the last request answers first
  LoadResult same;
  for (int i = 0; i < 3; ++i) same.requests.push_back({.digest = "answer " + std::to_string(i)});
  EXPECT_EQ(a.digest, report_of(same).digest);
  std::swap(same.requests[0].digest, same.requests[1].digest);
  EXPECT_NE(a.digest, report_of(same).digest);
}

TEST(LoadRun, AFailedRequestShows) {
  const LoadReport r = run_fake(1);
  EXPECT_EQ(r.completed, 2);
  EXPECT_EQ(r.failed, 1);
  EXPECT_EQ(r.first_error, "full");
  EXPECT_NE(r.digest, run_fake(-1).digest);
}

TEST(LoadRun, ATargetThatNeverAnswersIsToldToGiveUp) {
  const LoadPlan plan = plan_load({.num_prompts = 2, .random_input_len = 1, .random_output_len = 1}, kLimits).value();
  std::vector<std::function<void(const absl::Status&)>> open;
  const LoadTarget target{.start = [&](const v1::GenerateRequest&, auto, auto on_done) { open.push_back(on_done); },
                          .give_up =
                              [&] {
                                for (const auto& done : open) done(absl::CancelledError("given up"));
                              }};
  const LoadReport r = report_of(run_load(plan, target, 0.05, "test"));
  EXPECT_EQ(r.failed, 2);
  EXPECT_EQ(r.first_error, "given up");
}

TEST(LoadReport, PriceIsThroughputLacking) {
  const auto reports = [](std::vector<double> seconds) {
    std::vector<LoadReport> all;
    for (double s : seconds) all.push_back({.seconds = s, .cpu_seconds = 2 * s, .output_tokens = 100, .digest = "d"});
    return all;
  };
  const Price p = price_of("arm", reports({1.25, 1.25, 2}), reports({1, 1.25, 1}));
  EXPECT_NEAR(p.median, 20, 1e-9);
  EXPECT_NEAR(p.least, 0, 1e-9);
  EXPECT_NEAR(p.most, 50, 1e-9);
  EXPECT_NEAR(p.cpu_median, 20, 1e-9);
  EXPECT_NEAR(p.honest_rate, 80, 1e-9);
  EXPECT_NEAR(p.arm_rate, 100, 1e-9);
}

}  // namespace
}  // namespace invar::launch
