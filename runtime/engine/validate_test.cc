#include "runtime/engine/validate.h"

#include <cmath>
#include <functional>
#include <limits>

#include "gtest/gtest.h"

namespace invar::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

ValidationLimits limits() {
  ValidationLimits l;
  l.vocab_size = 100;
  l.max_model_len = 16;
  l.seed = 77;
  return l;
}

v1::GenerateRequest good() {
  v1::GenerateRequest r;
  for (const int id : {1, 2, 3}) r.mutable_prompt_token_ids()->add_ids(id);
  return r;
}

struct Bad {
  const char* names;  // what the message must contain
  const char* value;
  std::function<void(v1::GenerateRequest&)> apply;
};

TEST(Validate, BadInputNamesFieldAndValue) {
  const auto params = [](v1::GenerateRequest& r) { return r.mutable_sampling_params(); };
  const std::vector<Bad> table = {
      {"prompt", "neither", [](auto& r) { r.clear_prompt_token_ids(); }},
      {"prompt_token_ids", "empty", [](auto& r) { r.mutable_prompt_token_ids()->clear_ids(); }},
      {"prompt_token_ids[1]", "100", [](auto& r) { r.mutable_prompt_token_ids()->set_ids(1, 100); }},
      {"prompt_token_ids[2]", "-1", [](auto& r) { r.mutable_prompt_token_ids()->set_ids(2, -1); }},
      {"prompt_token_ids", "16", [](auto& r) { r.mutable_prompt_token_ids()->mutable_ids()->Resize(16, 1); }},
      {"prompt_token_ids", "1000", [](auto& r) { r.mutable_prompt_token_ids()->mutable_ids()->Resize(1000, 1); }},
      {"prompt", "no", [](auto& r) { r.set_prompt("text without a tokenizer"); }},
      {"request_id", "257", [](auto& r) { r.set_request_id(std::string(257, 'x')); }},
      {"request_id", "0xff", [](auto& r) { r.set_request_id("a\xff"); }},
      {"n", "0", [&](auto& r) { params(r)->set_n(0); }},
      {"n", "129", [&](auto& r) { params(r)->set_n(129); }},
      {"temperature", "-0.5", [&](auto& r) { params(r)->set_temperature(-0.5f); }},
      {"temperature", "nan", [&](auto& r) { params(r)->set_temperature(kNan); }},
      {"temperature", "inf", [&](auto& r) { params(r)->set_temperature(kInf); }},
      {"top_k", "-2", [&](auto& r) { params(r)->set_top_k(-2); }},
      {"top_p", "0", [&](auto& r) { params(r)->set_top_p(0); }},
      {"top_p", "1.5", [&](auto& r) { params(r)->set_top_p(1.5f); }},
      {"top_p", "nan", [&](auto& r) { params(r)->set_top_p(kNan); }},
      {"min_p", "-0.25", [&](auto& r) { params(r)->set_min_p(-0.25f); }},
      {"min_p", "1.25", [&](auto& r) { params(r)->set_min_p(1.25f); }},
      {"min_p", "nan", [&](auto& r) { params(r)->set_min_p(kNan); }},
      {"repetition_penalty", "0", [&](auto& r) { params(r)->set_repetition_penalty(0); }},
      {"repetition_penalty", "-1", [&](auto& r) { params(r)->set_repetition_penalty(-1); }},
      {"repetition_penalty", "nan", [&](auto& r) { params(r)->set_repetition_penalty(kNan); }},
      {"repetition_penalty", "inf", [&](auto& r) { params(r)->set_repetition_penalty(kInf); }},
      {"presence_penalty", "2.5", [&](auto& r) { params(r)->set_presence_penalty(2.5f); }},
      {"presence_penalty", "nan", [&](auto& r) { params(r)->set_presence_penalty(kNan); }},
      {"frequency_penalty", "-2.5", [&](auto& r) { params(r)->set_frequency_penalty(-2.5f); }},
      {"max_tokens", "0", [&](auto& r) { params(r)->set_max_tokens(0); }},
      {"min_tokens", "17", [&](auto& r) { params(r)->set_min_tokens(17); }},
      {"logprobs", "21", [&](auto& r) { params(r)->set_logprobs(21); }},
      {"logprobs", "-1", [&](auto& r) { params(r)->set_logprobs(-1); }},
      {"prompt_logprobs", "21", [&](auto& r) { params(r)->set_prompt_logprobs(21); }},
      {"prompt_logprobs", "-2", [&](auto& r) { params(r)->set_prompt_logprobs(-2); }},
      {"stop[0]", "tokenizer", [&](auto& r) { params(r)->add_stop("x"); }},
      {"stop[1]", "empty", [&](auto& r) { params(r)->add_stop("x"), params(r)->add_stop(""); }},
      {"stop[0]", "0xc3", [&](auto& r) { params(r)->add_stop("\xc3"); }},
      {"stop", "17",
       [&](auto& r) {
         for (int i = 0; i < 17; ++i) params(r)->add_stop("x");
       }},
      {"stop_token_ids[0]", "100", [&](auto& r) { params(r)->add_stop_token_ids(100); }},
      {"stop_token_ids[1]", "-3", [&](auto& r) { params(r)->add_stop_token_ids(1), params(r)->add_stop_token_ids(-3); }},
      {"forced_token_ids", "empty", [](auto& r) { r.mutable_forced_token_ids(); }},
      {"forced_token_ids[0]", "-1", [](auto& r) { r.mutable_forced_token_ids()->add_ids(-1); }},
      {"forced_choice", "0", [](auto& r) { r.set_forced_choice(0); }},
      {"forced_choice", "2",
       [&](auto& r) { r.mutable_forced_token_ids()->add_ids(1), params(r)->set_n(2), r.set_forced_choice(2); }},
      {"forced_token_ids", "14", [](auto& r) { r.mutable_forced_token_ids()->mutable_ids()->Resize(14, 1); }},
  };
  ASSERT_TRUE(validate_request(good(), limits()).ok());
  for (const Bad& bad : table) {
    v1::GenerateRequest r = good();
    bad.apply(r);
    const absl::Status s = validate_request(r, limits()).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << bad.names << " " << bad.value;
    EXPECT_NE(std::string(s.message()).find(bad.names), std::string::npos) << s;
    EXPECT_NE(std::string(s.message()).find(bad.value), std::string::npos) << s;
  }
}

TEST(Validate, TheEdgesAreAllowed) {
  v1::GenerateRequest r = good();
  v1::SamplingParams* p = r.mutable_sampling_params();
  p->set_n(128);
  p->set_temperature(0);
  p->set_top_k(-1);
  p->set_top_p(1);
  p->set_min_p(1);
  p->set_presence_penalty(-2);
  p->set_frequency_penalty(2);
  p->set_logprobs(20);
  p->set_prompt_logprobs(0);
  p->set_max_tokens(1);
  p->set_min_tokens(1);
  p->add_stop_token_ids(99);
  EXPECT_TRUE(validate_request(r, limits()).ok()) << validate_request(r, limits()).status();
  r.mutable_prompt_token_ids()->mutable_ids()->Resize(15, 1);
  const auto longest = validate_request(r, limits());
  ASSERT_TRUE(longest.ok());
  EXPECT_EQ(longest->most_tokens, 1);
  v1::GenerateRequest forced = good();
  forced.mutable_forced_token_ids()->mutable_ids()->Resize(13, 1);
  EXPECT_EQ(validate_request(forced, limits())->most_tokens, 13);
  forced.mutable_sampling_params()->set_n(3);
  EXPECT_EQ(validate_request(forced, limits())->choices, 3u);
  forced.set_forced_choice(2);
  EXPECT_EQ(validate_request(forced, limits())->first_choice, 2u);
  EXPECT_EQ(validate_request(forced, limits())->choices, 1u);
  EXPECT_EQ(validate_request(forced, limits())->sampling.n(), 3u) << "n stays what the receipt says";
}

TEST(Validate, TheContextBoundsTheAnswer) {
  v1::GenerateRequest r = good();
  r.mutable_sampling_params()->set_max_tokens(1000);
  EXPECT_EQ(validate_request(r, limits())->most_tokens, 13);
  r.mutable_sampling_params()->clear_max_tokens();
  ValidationLimits wide = limits();
  wide.max_model_len = 1000;
  EXPECT_EQ(validate_request(r, wide)->most_tokens, 16);
}

TEST(EffectiveSampling, RequestThenModelThenDefault) {
  GenerationDefaults model;
  model.do_sample = false;  // decides nothing
  model.temperature = 0.6f;
  model.top_k = 20;
  model.top_p = 0.95f;
  model.min_p = 0.1f;
  model.repetition_penalty = 1.05f;
  v1::SamplingParams given;
  v1::SamplingParams s = effective_sampling(given, model, 5);
  EXPECT_EQ(s.temperature(), 0.6f);
  EXPECT_EQ(s.top_k(), 20);
  EXPECT_EQ(s.top_p(), 0.95f);
  EXPECT_EQ(s.min_p(), 0.1f);
  EXPECT_EQ(s.repetition_penalty(), 1.05f);
  EXPECT_EQ(s.seed(), 5u);
  given.set_temperature(0);
  given.set_top_k(0);
  given.set_top_p(1);
  given.set_min_p(0);
  given.set_repetition_penalty(1);
  given.set_seed(0);
  s = effective_sampling(given, model, 5);
  EXPECT_EQ(s.temperature(), 0);
  EXPECT_EQ(s.top_k(), 0);
  EXPECT_EQ(s.top_p(), 1);
  EXPECT_EQ(s.min_p(), 0);
  EXPECT_EQ(s.repetition_penalty(), 1);
  EXPECT_EQ(s.seed(), 0u);
  s = effective_sampling({}, {}, 9);
  EXPECT_EQ(s.n(), 1u);
  EXPECT_EQ(s.temperature(), 1);
  EXPECT_EQ(s.top_k(), 0);
  EXPECT_EQ(s.max_tokens(), 16u);
  EXPECT_TRUE(s.skip_special_tokens());
  for (const bool has : {s.has_n(), s.has_temperature(), s.has_top_k(), s.has_top_p(), s.has_min_p(), s.has_repetition_penalty(),
                         s.has_presence_penalty(), s.has_frequency_penalty(), s.has_seed(), s.has_max_tokens(),
                         s.has_ignore_eos(), s.has_skip_special_tokens(), s.has_include_stop_str_in_output(), s.has_min_tokens()})
    EXPECT_TRUE(has);
  EXPECT_FALSE(s.has_logprobs());
  EXPECT_FALSE(s.has_prompt_logprobs());
}

}  // namespace
}  // namespace invar::engine
