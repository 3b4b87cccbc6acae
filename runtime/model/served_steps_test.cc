#include "runtime/model/served_steps.h"

#include <algorithm>
#include <map>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace invar {
namespace {

using testing::HasSubstr;

std::vector<Arrival> requests() {
  std::vector<Arrival> all = made_arrivals(40, 3);
  for (Arrival& a : all) cut_to_context(&a, 1024);
  all[5] = {0, 1, 1};  // ends with its first step
  all[6] = {0, 64, 2};
  return all;
}

struct Sums {
  std::map<int32_t, int64_t> rows_of_token;  // the vocabulary is so large that a token tells sequence and position
  int64_t rows = 0, prompt_rows = 0, prompt_tokens = 0, draws = 0;
  explicit Sums(const ServedLoad& load) {
    for (const ServedStep& s : load.steps) {
      for (const int32_t t : s.rows.tokens) ++rows_of_token[t];
      rows += s.rows.size();
      prompt_rows += s.prompt_rows;
      prompt_tokens += s.prompt_tokens;
      draws += static_cast<int64_t>(s.rows.logits.size());
    }
  }
};

const ServedOptions kPlenty{
    .max_num_seqs = 8, .max_num_batched_tokens = 256, .pages = 4096, .page_size = 16, .vocab_size = 2000000011};

TEST(ServedSteps, EveryTokenIsComputedOnce) {
  const std::vector<Arrival> all = requests();
  const auto load = serve(all, kPlenty);
  ASSERT_TRUE(load.ok()) << load.status();
  int64_t prompts = 0, answers = 0;
  for (const Arrival& a : all) prompts += a.prompt_tokens, answers += a.output_tokens;
  const Sums sums(*load);
  EXPECT_EQ(sums.prompt_rows, prompts);
  EXPECT_EQ(sums.prompt_tokens, prompts);
  EXPECT_EQ(sums.draws, answers);
  // The last token of an answer is drawn, but never computed.
  EXPECT_EQ(sums.rows, prompts + answers - static_cast<int64_t>(all.size()));
  EXPECT_EQ(static_cast<int64_t>(sums.rows_of_token.size()), sums.rows) << "a position was computed twice, and another never";
  EXPECT_EQ(load->preemptions, 0u);
}

TEST(ServedSteps, KeepTheSchedulersLimits) {
  const auto load = serve(requests(), kPlenty);
  ASSERT_TRUE(load.ok()) << load.status();
  int64_t decodes = 0, mixed = 0, most_sequences = 0, most_rows = 0;
  for (const ServedStep& s : load->steps) {
    const StepRows& r = s.rows;
    ASSERT_EQ(r.page_tables.size(), s.page_tables.size());
    ASSERT_EQ(r.tokens.size(), r.positions.size());
    most_sequences = std::max(most_sequences, static_cast<int64_t>(r.page_tables.size()));
    most_rows = std::max(most_rows, r.size());
    decodes += s.prompt_rows == 0;
    mixed += s.prompt_rows > 0 && s.prompt_rows < r.size();
    std::set<int64_t> slots;
    for (int64_t i = 0; i < r.size(); ++i) {
      const std::span<const int32_t> pages = r.page_tables[r.sequences[i]];
      EXPECT_EQ(pages.data(), s.page_tables[r.sequences[i]].data()) << "tables live with their step";
      ASSERT_LT(static_cast<size_t>(r.positions[i] / 16), pages.size());
      EXPECT_EQ(r.slots[i], pages[r.positions[i] / 16] * 16 + r.positions[i] % 16);
      EXPECT_TRUE(slots.insert(r.slots[i]).second) << "two rows of a step write slot " << r.slots[i];
    }
  }
  EXPECT_EQ(most_sequences, 8);
  EXPECT_EQ(most_rows, 256);
  EXPECT_GT(decodes, 0);
  EXPECT_GT(mixed, 0);
  EXPECT_TRUE(load->steps.front().crowded);
  EXPECT_FALSE(load->steps.back().crowded);
}

TEST(ServedSteps, TheFirstStepsAreTheSame) {
  ServedOptions first = kPlenty;
  first.most_steps = 20;
  const auto whole = serve(requests(), kPlenty), some = serve(requests(), first);
  ASSERT_TRUE(whole.ok() && some.ok()) << whole.status() << some.status();
  ASSERT_EQ(some->steps.size(), 20u);
  ASSERT_GT(whole->steps.size(), 20u);
  for (size_t i = 0; i < some->steps.size(); ++i) {
    EXPECT_EQ(some->steps[i].rows.slots, whole->steps[i].rows.slots) << i;
    EXPECT_EQ(some->steps[i].rows.positions, whole->steps[i].rows.positions) << i;
    EXPECT_EQ(some->steps[i].rows.logits, whole->steps[i].rows.logits) << i;
  }
}

TEST(ServedSteps, TooFewPagesComputeTokensAgainButServeThemOnce) {
  const std::vector<Arrival> all = requests();
  ServedOptions few = kPlenty;
  few.pages = 80;
  const auto load = serve(all, few);
  ASSERT_TRUE(load.ok()) << load.status();
  int64_t prompts = 0, answers = 0;
  for (const Arrival& a : all) prompts += a.prompt_tokens, answers += a.output_tokens;
  const Sums sums(*load);
  EXPECT_GT(load->preemptions, 0u);
  EXPECT_GT(sums.prompt_rows, prompts);
  EXPECT_EQ(sums.prompt_tokens, prompts);
  EXPECT_EQ(sums.draws, answers);
}

TEST(ServedSteps, RefusesNamingWhatIsWrong) {
  const std::vector<Arrival> one = {{0, 100, 30}};
  const auto message = [&](ServedOptions o, std::span<const Arrival> arrivals) {
    return std::string(serve(arrivals, o).status().message());
  };
  ServedOptions o = kPlenty;
  o.max_num_seqs = 0;
  EXPECT_THAT(message(o, one), HasSubstr("--max-num-seqs 0"));
  o = kPlenty;
  o.max_num_batched_tokens = -1;
  EXPECT_THAT(message(o, one), HasSubstr("--max-num-batched-tokens -1"));
  o = kPlenty;
  o.pages = 8;
  EXPECT_THAT(message(o, one), HasSubstr("request 0: 100 prompt and 30 answer tokens"));
  const std::vector<Arrival> empty = {{0, 100, 30}, {0, 0, 3}};
  EXPECT_THAT(message(kPlenty, empty), HasSubstr("request 1: 0 prompt"));
}

}  // namespace
}  // namespace invar
