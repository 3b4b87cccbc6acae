#include "runtime/receipt/response_chain.h"

#include <cmath>
#include <functional>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace invar {
namespace {

v1::SamplingParams sampled() {
  v1::SamplingParams s;
  s.set_n(2);
  s.set_temperature(0.7f);
  s.set_top_k(40);
  s.set_top_p(0.9f);
  s.set_min_p(0.05f);
  s.set_repetition_penalty(1.1f);
  s.set_presence_penalty(0.25f);
  s.set_frequency_penalty(-0.5f);
  s.set_seed(0x123456789abcdefull);
  s.set_max_tokens(8);
  return s;
}

std::string head(const v1::SamplingParams& s, uint32_t choice = 0, std::vector<int32_t> prompt = {1, 2, 3}, const char* id = "n",
                 const char* model = "m") {
  return ResponseChain(id, model, prompt, s, choice).head();
}

TEST(ResponseChain, TheWrittenDefinition) {
  receipt::Sha256 sha;
  sha.text("invar.receipt.v1").text("n").text("m").le32(3).le32(1).le32(2).le32(3);
  for (const float f : {0.7f}) sha.bytes(&f, 4);
  sha.le32(40);
  for (const float f : {0.9f, 0.05f, 1.1f, 0.25f, -0.5f}) sha.bytes(&f, 4);
  const receipt::Digest start = sha.le64(0x123456789abcdefull).le32(1).finish();
  ResponseChain chain("n", "m", std::vector<int32_t>{1, 2, 3}, sampled(), 1);
  EXPECT_EQ(chain.head(), receipt::hex(start));
  chain.append(77, 0xfedcba9876543210ull);
  EXPECT_EQ(chain.head(), receipt::hex(receipt::Sha256().digest(start).le32(77).le64(0xfedcba9876543210ull).finish()));
}

TEST(ResponseChain, EverythingThatDecidesTheDrawCounts) {
  std::set<std::string> heads{head(sampled())};
  const std::vector<std::function<void(v1::SamplingParams&)>> changes = {
      [](auto& s) { s.set_temperature(0.8f); },
      [](auto& s) { s.set_top_k(41); },
      [](auto& s) { s.set_top_p(0.91f); },
      [](auto& s) { s.set_min_p(0.06f); },
      [](auto& s) { s.set_repetition_penalty(1.2f); },
      [](auto& s) { s.set_presence_penalty(0); },
      [](auto& s) { s.set_frequency_penalty(0); },
      [](auto& s) { s.set_seed(s.seed() ^ (1ull << 40)); },
      [](auto& s) { s.set_guided_json("{}"); },
      [](auto& s) { s.set_guided_json("true"); },
      [](auto& s) { s.set_guided_json_object(true); },
      [](auto& s) { s.set_guided_regex("{}"); },
      [](auto& s) { s.add_guided_choice("{}"); },
      [](auto& s) { s.add_guided_choice("{"), s.add_guided_choice("}"); },
      [](auto& s) { s.add_bad_words("{}"); },
      [](auto& s) { (*s.mutable_logit_bias())[3] = 1; },
      [](auto& s) { (*s.mutable_logit_bias())[3] = 2; },
      [](auto& s) { (*s.mutable_logit_bias())[4] = 1; },
      [](auto& s) { s.add_allowed_token_ids(3); },
      [](auto& s) { s.set_min_tokens(2); },
      [](auto& s) { s.set_min_tokens(3); },
      [](auto& s) { s.set_min_tokens(2), s.add_stop_token_ids(3); },
      [](auto& s) { s.set_min_tokens(2), s.set_ignore_eos(true); },
      [](auto& s) { s.set_guided_regex("{}"), s.set_ignore_eos(true); }};
  for (const auto& change : changes) {
    v1::SamplingParams s = sampled();
    change(s);
    heads.insert(head(s));
  }
  heads.insert(head(sampled(), 1));
  heads.insert(head(sampled(), 0, {1, 2, 4}));
  heads.insert(head(sampled(), 0, {1, 2}));
  heads.insert(head(sampled(), 0, {1, 2, 3}, "other"));
  heads.insert(head(sampled(), 0, {1, 2, 3}, "n", "other"));
  EXPECT_EQ(heads.size(), changes.size() + 6);
}

TEST(ResponseChain, WhatOnlyEndsTheAnswerDoesNot) {
  v1::SamplingParams s = sampled();
  s.set_max_tokens(99);
  s.set_n(5);
  s.add_stop("x");
  s.set_ignore_eos(true);
  s.set_logprobs(3);
  s.set_guided_json_object(false);
  EXPECT_EQ(head(s), head(sampled()));
}

TEST(ResponseChain, BiasesHaveNoOrder) {
  v1::SamplingParams a = sampled(), b = sampled();
  for (int id = 0; id < 100; ++id) (*a.mutable_logit_bias())[id] = 0.5f, (*b.mutable_logit_bias())[99 - id] = 0.5f;
  EXPECT_EQ(head(a), head(b));
}

TEST(ResponseChain, EqualMeaningsAreEqual) {
  v1::SamplingParams a = sampled(), b = sampled();
  a.set_top_k(0);
  b.set_top_k(-1);
  a.set_min_p(0.0f);
  b.set_min_p(-0.0f);
  EXPECT_EQ(head(a), head(b));
}

TEST(ResponseChain, GreedyIgnoresSeedAndFiltersButNotPenalties) {
  v1::SamplingParams a = sampled(), b = sampled();
  a.set_temperature(0);
  b.set_temperature(0);
  b.set_seed(1);
  b.set_top_k(3);
  b.set_top_p(0.5f);
  b.set_min_p(0.5f);
  EXPECT_EQ(head(a), head(b));
  b.set_presence_penalty(1);
  EXPECT_NE(head(a), head(b));
}

}  // namespace
}  // namespace invar
