// Structured output, logit_bias and their like over layouts, schedules and company: the same bits everywhere, neighbours as if
// alone, receipts that recompute.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>

#include "nlohmann/json.hpp"
#include "runtime/receipt/receipt.h"
#include "support/arrangement.h"

namespace invar::tests {
namespace {

constexpr const char* kSchema =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":10},"n":{"type":"integer","minimum":-5,"maximum":999},
        "tags":{"type":"array","items":{"enum":["red","green","blue"]},"maxItems":4}},"required":["name","n","tags"]})";

std::vector<v1::GenerateRequest> bound_requests(int64_t vocab_size) {
  std::vector<v1::GenerateRequest> all;
  const auto add = [&](const char* name, float temperature, uint32_t most,
                       const std::function<void(v1::SamplingParams&)>& change) {
    v1::GenerateRequest& r = all.emplace_back();
    r.set_request_id(name);
    for (int32_t i = 0; i < 20 + static_cast<int32_t>(all.size()) * 7; ++i)
      r.mutable_prompt_token_ids()->add_ids(static_cast<int32_t>((i * 37 + static_cast<int32_t>(all.size())) % vocab_size));
    v1::SamplingParams& s = *r.mutable_sampling_params();
    s.set_temperature(temperature);
    s.set_max_tokens(most);
    s.set_seed(7 + all.size());
    change(s);
  };
  add("schema", 1.0f, 120, [](auto& s) { s.set_guided_json(kSchema), s.set_n(2); });
  add("schema-greedy", 0, 120, [](auto& s) { s.set_guided_json(kSchema), s.set_logprobs(3); });
  add("json", 0.9f, 40, [](auto& s) { s.set_guided_json_object(true), s.set_top_k(20), s.set_top_p(0.9f); });
  add("regex", 1.0f, 60, [](auto& s) {
    s.set_guided_regex("([a-z]{2,7} ){3}[0-9]{2}\\.");
    s.set_repetition_penalty(1.3f);
  });
  add("choice", 1.0f, 20,
      [](auto& s) { s.add_guided_choice("north"), s.add_guided_choice("south by east"), s.set_prompt_logprobs(1); });
  add("grammar", 1.0f, 60, [](auto& s) {
    s.set_guided_grammar("root ::= e \";\"\ne ::= e [-+] t | t\nt ::= [a-z]{1,6} | \"(\" e \")\"");
    s.set_n(2);
  });
  add("bias", 1.0f, 30, [=](auto& s) {
    for (int32_t id = 0; id < 40; ++id)
      (*s.mutable_logit_bias())[id * 3 % static_cast<int32_t>(vocab_size)] = id % 2 ? 4.5f : -100.0f;
  });
  add("allowed", 1.0f, 30, [](auto& s) {
    for (const int32_t id : {5, 17, 40, 41, 99}) s.add_allowed_token_ids(id);
  });
  add("bad-words", 0, 30, [](auto& s) {
    for (const char* word : {"the", "and", "of", ",", "."}) s.add_bad_words(word);
  });
  add("late-end", 1.0f, 30, [=](auto& s) {
    s.set_min_tokens(20);
    for (int32_t id = 0; id < vocab_size; id += 2) s.add_stop_token_ids(id);
  });
  return all;
}

std::vector<v1::GenerateRequest> all_requests(const Model& m) {
  std::vector<v1::GenerateRequest> requests = bound_requests(m.loaded().config.vocab_size);
  for (const v1::GenerateRequest& r : mixed_requests(m.loaded().config.vocab_size, 150)) requests.push_back(r);
  return requests;
}

TEST(StructuredOutput, SameBitsOnEveryLayoutAndSchedule) {
  for (const char* name : {"demo-moe", "demo-dense"}) {
    const Model& m = Model::get(name);
    const std::vector<v1::GenerateRequest> requests = all_requests(m);
    const Answers expected = ask(m, {}, requests).answers;
    std::vector<Arrangement> all = {
        {.name = "tp3", .layout = {.tp = 3}},
        {.name = "tp2 pp2", .layout = {.tp = 2, .pp = 2}},
        {.name = "dp2", .layout = {.dp = 2}, .order = 2},
        {.name = "chunks of 17, company", .long_prefill_token_threshold = 17, .company = 12, .order = 3},
        {.name = "preemption", .pages = 60, .company = 16, .order = 4},
        {.name = "four plans in flight", .plans_in_flight = 4},
        {.name = "one by one, hot", .one_by_one = true, .warm = Arrangement::Warm::kHot},
        {.name = "avx2", .isa = Isa::kAvx2}};
    if (std::string(name) == "demo-moe") all.push_back({.name = "ep2 tp2", .layout = {.tp = 2, .ep = 2}});
    for (const Arrangement& a : all) {
      const Outcome run = ask(m, a, requests);
      for (const auto& [key, answer] : expected)
        EXPECT_EQ(run.answers.at(key), answer) << name << ": " << key << " under " << a.name;
    }
  }
}

TEST(StructuredOutput, NeighboursAreAsIfAlone) {
  const Model& m = Model::get("demo-moe");
  const std::vector<v1::GenerateRequest> free = mixed_requests(m.loaded().config.vocab_size, 150);
  const Answers alone = ask(m, {}, free).answers, beside = ask(m, {}, all_requests(m)).answers;
  for (const auto& [key, answer] : alone) EXPECT_EQ(beside.at(key), answer) << key;
}

TEST(StructuredOutput, AnswersAreWhatWasAskedForAndDifferFromFreeOnes) {
  const Model& m = Model::get("demo-dense");
  const std::vector<v1::GenerateRequest> requests = bound_requests(m.loaded().config.vocab_size);
  std::vector<v1::GenerateRequest> free = requests;
  for (v1::GenerateRequest& r : free) {
    v1::SamplingParams& s = *r.mutable_sampling_params();
    s.clear_guided_json(), s.clear_guided_json_object(), s.clear_guided_regex(), s.clear_guided_choice(),
        s.clear_guided_grammar();
    s.clear_logit_bias();
    s.clear_allowed_token_ids(), s.clear_bad_words(), s.clear_min_tokens();
  }
  const Answers got = ask(m, {}, requests).answers, control = ask(m, {}, free).answers;
  for (const auto& [key, answer] : got) {
    // Greedy text that holds no bad word is the same with and without them.
    if (key != "bad-words/0") {
      EXPECT_NE(answer.tokens, control.at(key).tokens) << key;
    }
    EXPECT_NE(answer.digest, control.at(key).digest) << key;
    // What is seen of the logits is not masked: the first position has the same ones.
    EXPECT_EQ(answer.logits_hashes[0], control.at(key).logits_hashes[0]) << key;
  }
  for (const char* key : {"schema/0", "schema/1", "schema-greedy/0"}) {
    const Answer& a = got.at(key);
    if (a.finish_reason != v1::FINISH_REASON_STOP) continue;
    const auto json = nlohmann::json::parse(a.text, nullptr, false);
    ASSERT_FALSE(json.is_discarded()) << a.text;
    EXPECT_TRUE(json.at("n").is_number_integer() && json.at("name").is_string() && json.at("tags").size() <= 4) << a.text;
  }
  for (const char* key : {"grammar/0", "grammar/1"}) {
    const Answer& a = got.at(key);
    int depth = 0;
    for (const char c : a.text) {
      depth += c == '(' ? 1 : c == ')' ? -1 : 0;
      EXPECT_TRUE(std::islower(static_cast<unsigned char>(c)) || std::string("()+-;").find(c) != std::string::npos) << a.text;
      ASSERT_GE(depth, 0) << a.text;
    }
    EXPECT_TRUE(a.finish_reason != v1::FINISH_REASON_STOP || (depth == 0 && a.text.back() == ';')) << a.text;
  }
  const std::string& choice = got.at("choice/0").text;
  EXPECT_TRUE(choice == "north" || choice == "south by east") << choice;
  for (const int32_t t : got.at("allowed/0").tokens) EXPECT_TRUE(std::set<int32_t>({5, 17, 40, 41, 99}).contains(t)) << t;
  const Answer& late = got.at("late-end/0");
  ASSERT_GE(late.tokens.size(), 20u);
  for (size_t i = 0; i + 1 < late.tokens.size() && i < 20; ++i) EXPECT_EQ(late.tokens[i] % 2, 1) << "a stop id before min_tokens";
  for (const char* word : {"the", "and", "of", ",", "."})
    EXPECT_EQ(m.tokenizer()->encode(word, false)->size() == 1 &&
                  std::count(got.at("bad-words/0").tokens.begin(), got.at("bad-words/0").tokens.end(),
                             m.tokenizer()->encode(word, false)->front()) > 0,
              false)
        << word;
}

// The rules are part of what a receipt says: recomputed on another layout, with many masked draws in one prefill, it holds;
// without the constraint it does not.
TEST(StructuredOutput, ReceiptsRecomputeElsewhere) {
  const Model& m = Model::get("demo-moe");
  const std::vector<v1::GenerateRequest> requests = bound_requests(m.loaded().config.vocab_size);
  const Answers first = ask(m, {}, requests).answers;
  std::vector<v1::GenerateRequest> replay, without;
  for (const v1::GenerateRequest& r : requests) {
    v1::GenerateRequest again = r;
    again.set_forced_choice(0);
    const Answer& a = first.at(r.request_id() + "/0");
    again.mutable_forced_token_ids()->mutable_ids()->Add(a.tokens.begin(), a.tokens.end());
    replay.push_back(again);
  }
  const Answers second = ask(m, {.name = "tp3, chunks", .layout = {.tp = 3}, .long_prefill_token_threshold = 33}, replay).answers;
  for (const v1::GenerateRequest& r : requests) {
    const std::string key = r.request_id() + "/0";
    EXPECT_EQ(second.at(key).draws, first.at(key).tokens) << key;
    EXPECT_EQ(second.at(key).logits_hashes, first.at(key).logits_hashes) << key;
    EXPECT_EQ(second.at(key).digest, first.at(key).digest) << key;
  }
  for (v1::GenerateRequest r : replay) {
    r.mutable_sampling_params()->clear_guided_json();
    r.mutable_sampling_params()->clear_guided_grammar();
    r.mutable_sampling_params()->clear_logit_bias();
    without.push_back(r);
  }
  const Answers third = ask(m, {}, without).answers;
  EXPECT_NE(third.at("schema/0").draws, first.at("schema/0").tokens);
  EXPECT_NE(third.at("grammar/0").draws, first.at("grammar/0").tokens);
  EXPECT_NE(third.at("bias/0").draws, first.at("bias/0").tokens);
}

TEST(StructuredOutput, TheCheckNoticesArithmeticThatDependsOnTheLayout) {
  const Model& m = Model::get("demo-moe");
  const std::vector<v1::GenerateRequest> requests = bound_requests(m.loaded().config.vocab_size);
  const Answers one = ask(m, {.arm = ControlArm::kRankOrderAllReduce}, requests).answers;
  const Answers three = ask(m, {.layout = {.tp = 3}, .arm = ControlArm::kRankOrderAllReduce}, requests).answers;
  int different = 0;
  for (const auto& [key, answer] : one) different += three.at(key).logits_hashes != answer.logits_hashes;
  EXPECT_GT(different, 0);
}

}  // namespace
}  // namespace invar::tests
