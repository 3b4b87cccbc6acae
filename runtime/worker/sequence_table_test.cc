// What a rank makes of the rules of a request: masks, biases, words.
#include "runtime/worker/sequence_table.h"

#include <functional>
#include <limits>
#include <stdexcept>

#include "gtest/gtest.h"

namespace invar {
namespace {

v1::StepPlan plan_of(const std::function<void(v1::SequenceStart*)>& change) {
  v1::StepPlan plan;
  plan.set_step(1);
  v1::SequenceStart* start = plan.add_started();
  start->set_sequence(1);
  for (const int32_t t : {1, 2, 3}) start->add_tokens(t);
  start->set_prompt_length(3);
  change(start);
  return plan;
}

std::vector<std::pair<int32_t, float>> biases(const DrawRules& rules) {
  std::vector<std::pair<int32_t, float>> out;
  for (const LogitBias& b : rules.bias) out.emplace_back(b.token, b.bias);
  return out;
}
constexpr float kNever = -std::numeric_limits<float>::infinity();

TEST(DrawRules, BiasIsSortedAndLateTokensAreBannedAtFirst) {
  SequenceTable table;
  table.apply(plan_of([](auto* s) {
    (*s->mutable_sampling()->mutable_logit_bias())[9] = 1.5f;
    (*s->mutable_sampling()->mutable_logit_bias())[4] = -2.0f;
    s->mutable_sampling()->set_min_tokens(2);
    s->add_late_token_ids(4);
    s->add_late_token_ids(7);
  }));
  const RankSequence& s = table.at(1);
  using Pairs = std::vector<std::pair<int32_t, float>>;
  const std::vector<int32_t> answer = {5, 6, 8};
  const std::span<const int32_t> all(answer);
  EXPECT_EQ(biases(draw_rules(s, all.first(0), {})), (Pairs{{4, kNever}, {9, 1.5f}, {7, kNever}}));
  EXPECT_EQ(biases(draw_rules(s, all.first(1), {})), (Pairs{{4, kNever}, {9, 1.5f}, {7, kNever}}));
  EXPECT_EQ(biases(draw_rules(s, all.first(2), {})), (Pairs{{4, -2.0f}, {9, 1.5f}}));
  const std::vector<uint8_t> mask = {0xff};
  EXPECT_EQ(biases(draw_rules(s, all.first(0), mask)), (Pairs{{4, -2.0f}, {9, 1.5f}}))
      << "a mask has looked at min_tokens itself";
}

TEST(DrawRules, BadWordsBanTheirLastTokenBehindTheOthers) {
  SequenceTable table;
  table.apply(plan_of([](auto* s) {
    s->add_bad_words()->add_ids(20);
    auto* word = s->add_bad_words();
    for (const int32_t t : {2, 3, 30}) word->add_ids(t);
  }));
  const RankSequence& s = table.at(1);
  const auto banned = [&](std::vector<int32_t> answer) {
    std::vector<int32_t> out;
    for (const LogitBias& b : draw_rules(s, answer, {}).bias) out.push_back(b.token);
    return out;
  };
  EXPECT_EQ(banned({}), (std::vector<int32_t>{20})) << "the prompt ends with 2, 3, but only the answer counts";
  EXPECT_EQ(banned({3}), (std::vector<int32_t>{20}));
  EXPECT_EQ(banned({1, 2, 3}), (std::vector<int32_t>{20, 30}));
  EXPECT_EQ(banned({2, 3, 1}), (std::vector<int32_t>{20}));
}

TEST(DrawRules, MasksAreJoined) {
  SequenceTable table;
  table.apply(plan_of([](auto* s) {
    for (const int32_t id : {1, 9, 17}) s->mutable_sampling()->add_allowed_token_ids(id);
  }));
  const RankSequence& s = table.at(1);
  const DrawRules alone = draw_rules(s, {}, {});
  EXPECT_TRUE(token_allowed(alone.allowed, 9) && !token_allowed(alone.allowed, 8) && !token_allowed(alone.allowed, 99));
  const std::vector<uint8_t> mask = {0, 0xff};
  const DrawRules both = draw_rules(s, {}, mask);
  EXPECT_TRUE(token_allowed(both.allowed, 9) && !token_allowed(both.allowed, 1) && !token_allowed(both.allowed, 10) &&
              !token_allowed(both.allowed, 17));
  EXPECT_FALSE(both.allowed.empty());
}

TEST(SequenceTable, DrawsFindTheirMasks) {
  SequenceTable table;
  v1::StepPlan plan = plan_of([](auto*) {});
  v1::Chunk* chunk = plan.add_chunks();
  chunk->set_sequence(1);
  chunk->set_count(3);
  chunk->set_logits_from(1);
  chunk->add_new_pages(0);
  plan.add_token_masks("\xff");
  chunk->add_draw_masks(0);
  chunk->add_draw_masks(1);
  table.apply(plan);
  std::vector<LogitsRow> wanted;
  table.rows_of(plan, 0, 16, wanted);
  ASSERT_EQ(wanted.size(), 2u);
  EXPECT_EQ(wanted[0].mask, 0u);
  EXPECT_EQ(wanted[1].mask, 1u);
  chunk->set_draw_masks(1, 2);
  EXPECT_THROW(table.rows_of(plan, 0, 16, wanted), std::logic_error) << "a mask that the plan does not have";
  chunk->mutable_draw_masks()->RemoveLast();
  EXPECT_THROW(table.rows_of(plan, 0, 16, wanted), std::logic_error) << "a draw without an entry";
}

}  // namespace
}  // namespace invar
