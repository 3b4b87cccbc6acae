#include "runtime/arrivals/arrivals.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace invar {
namespace {

using testing::HasSubstr;

class ReadArrivals : public testing::Test {
 protected:
  absl::StatusOr<std::vector<Arrival>> read(const std::string& text, int64_t most = 100) {
    std::ofstream(path_, std::ios::binary) << text;
    return read_arrivals(path_, most);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "arrivals_test." + std::to_string(getpid()) + ".csv";
};

TEST_F(ReadArrivals, TimesAndLengths) {
  // As published: carriage returns, a fraction of seven digits, no line end at the end; midnight passes; one line comes early.
  const auto all = read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-30 23:59:58.5000000,10,4\r\n2023-12-01 00:00:02.5000000,20,5\r\n"
      "\r\n2023-12-01 00:00:00.0000000,500,200");
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 3u);
  EXPECT_DOUBLE_EQ((*all)[0].at, 0);
  EXPECT_DOUBLE_EQ((*all)[1].at, 1.5);
  EXPECT_DOUBLE_EQ((*all)[2].at, 4);
  EXPECT_EQ((*all)[0].prompt_tokens, 10);
  EXPECT_EQ((*all)[0].output_tokens, 4);
  EXPECT_EQ((*all)[1].prompt_tokens, 500);
  EXPECT_EQ((*all)[2].output_tokens, 5);
}

TEST_F(ReadArrivals, TakesTheFirstRequestsAndAnyColumnOrder) {
  const auto one = read("ContextTokens,x,GeneratedTokens,TIMESTAMP\n3,?,2,2024-02-29 10:00:00\n4,?,2,2024-02-29 10:00:01\n", 1);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_EQ(one->size(), 1u);
  EXPECT_EQ((*one)[0].prompt_tokens, 3);
}

TEST_F(ReadArrivals, RefusesNamingTheLine) {
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n", good = "2023-11-16 18:15:46.68,1,2\n";
  for (const char* bad : {"2023-11-16 18:15:46.68,1\n", "2023-13-16 18:15:46,1,2\n", "2023-02-29 18:15:46,1,2\n",
                          "2023-11-16 24:00:00,1,2\n", "2023-11-16 18:15:46x,1,2\n", "2023-11-16 18:15:46,-1,2\n",
                          "2023-11-16 18:15:46,one,2\n", "2023-11-16 18:15:46,99999999999999999999,2\n"})
    EXPECT_THAT(std::string(read(header + good + bad).status().message()), HasSubstr(path_ + ":3")) << bad;
  EXPECT_THAT(std::string(read("a,b\n1,2\n").status().message()), HasSubstr(path_ + ":1"));
  EXPECT_THAT(std::string(read("").status().message()), HasSubstr(path_ + ":1"));
  EXPECT_THAT(std::string(read(header).status().message()), HasSubstr("no request"));
  EXPECT_TRUE(absl::IsNotFound(read_arrivals("/nowhere.csv", 1).status()));
}

TEST(MadeArrivals, ScatterAroundTheirMediansAndAreThoseOfTheSeed) {
  constexpr int64_t kCount = 4096;
  std::vector<Arrival> all = made_arrivals(kCount, 0);
  ASSERT_EQ(static_cast<int64_t>(all.size()), kCount);
  const auto quantile = [&](int64_t Arrival::*field, int64_t percent) {
    std::vector<int64_t> values;
    for (const Arrival& a : all) values.push_back(a.*field);
    std::nth_element(values.begin(), values.begin() + kCount * percent / 100, values.end());
    return static_cast<double>(values[kCount * percent / 100]);
  };
  // A deviation is five quarters of an octave of the prompts, one of the answers: 84 % lie below one above the median.
  EXPECT_NEAR(quantile(&Arrival::prompt_tokens, 50) / 512, 1, 0.08);
  EXPECT_NEAR(quantile(&Arrival::prompt_tokens, 84) / 1218, 1, 0.10);
  EXPECT_NEAR(quantile(&Arrival::output_tokens, 50) / 128, 1, 0.08);
  EXPECT_NEAR(quantile(&Arrival::output_tokens, 16) / 64, 1, 0.10);
  for (const Arrival& a : all) {
    EXPECT_GE(a.prompt_tokens, 4);
    EXPECT_LE(a.prompt_tokens, 8192);
    EXPECT_GE(a.output_tokens, 4);
    EXPECT_LE(a.output_tokens, 1024);
  }
  EXPECT_EQ(made_arrivals(3, 7)[2].prompt_tokens, made_arrivals(9, 7)[2].prompt_tokens);
  EXPECT_NE(made_arrivals(3, 7)[2].prompt_tokens, made_arrivals(3, 8)[2].prompt_tokens);
}

TEST(CutToContext, AnswersGetHalfAtMost) {
  Arrival fits{0, 40, 24}, long_answer{0, 10, 200}, long_prompt{0, 500, 20}, empty{0, 0, 0};
  EXPECT_FALSE(cut_to_context(&fits, 64));
  EXPECT_EQ(fits.prompt_tokens, 40);
  EXPECT_EQ(fits.output_tokens, 24);
  EXPECT_TRUE(cut_to_context(&long_answer, 64));
  EXPECT_EQ(long_answer.output_tokens, 32);
  EXPECT_EQ(long_answer.prompt_tokens, 10);
  EXPECT_TRUE(cut_to_context(&long_prompt, 64));
  EXPECT_EQ(long_prompt.prompt_tokens, 44);
  EXPECT_EQ(long_prompt.output_tokens, 20);
  EXPECT_FALSE(cut_to_context(&empty, 64));
  EXPECT_EQ(empty.prompt_tokens, 1);
  EXPECT_EQ(empty.output_tokens, 1);
}

}  // namespace
}  // namespace invar
