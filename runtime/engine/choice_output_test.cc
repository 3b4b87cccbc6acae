// Text, stops, log-probabilities, digest and receipt of one answer.
#include "runtime/engine/choice_output.h"

#include <cstring>

#include "gtest/gtest.h"
#include "runtime/receipt/receipt.h"

namespace invar::engine {
namespace {

class ChoiceOutputTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::load(std::string(INVAR_SOURCE_DIR) + "/configs/models/demo-dense");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *tokenizer;
    context_.numerics_id = "numerics";
    context_.model_digest = "model";
    context_.eos_token_ids = {0};
    context_.tokenizer = tokenizer_;
  }
  std::vector<int32_t> ids(const std::string& text) { return *tokenizer_->encode(text, false); }
  // Tokens of one byte each, so that stop strings and characters are spread over many.
  std::vector<int32_t> byte_ids(const std::string& text) {
    std::vector<int32_t> out;
    for (const char c : text) {
      int32_t found = -1;
      for (int32_t id = 0; id < tokenizer_->vocab_size() && found < 0; ++id)
        if (tokenizer_->token_bytes(id) == std::string(1, c) && !tokenizer_->is_special(id)) found = id;
      EXPECT_GE(found, 0);
      out.push_back(found);
    }
    return out;
  }
  ValidRequest request() {
    ValidRequest r;
    r.prompt = {5, 6};
    r.sampling = effective_sampling({}, {}, 0);
    r.sampling.set_max_tokens(1000);
    r.most_tokens = 1000;
    return r;
  }
  struct Run {
    std::vector<std::string> deltas;
    std::string text;
    v1::ChoiceDelta last;
    size_t tokens = 0;
    bool over = false;
  };
  Run run(const ValidRequest& r, const std::vector<int32_t>& tokens) {
    ChoiceOutput out(context_, r, 0);
    Run seen;
    for (const int32_t id : tokens) {
      v1::ChoiceDelta delta;
      v1::TokenResult result;
      result.set_token(id);
      result.set_logits_hash(static_cast<uint64_t>(id) * 3 + 1);
      seen.over = out.append(id, result, /*complete=*/false, &delta);
      seen.deltas.push_back(delta.text());
      seen.text += delta.text();
      seen.last = delta;
      ++seen.tokens;
      if (seen.over) break;
    }
    return seen;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  EngineContext context_;
};

TEST_F(ChoiceOutputTest, EosEndsWithoutItsText) {
  std::vector<int32_t> tokens = ids("The cat sat.");
  tokens.push_back(0);
  tokens.push_back(9);
  const Run seen = run(request(), tokens);
  EXPECT_TRUE(seen.over);
  EXPECT_EQ(seen.text, "The cat sat.");
  EXPECT_EQ(seen.tokens, tokens.size() - 1);
  EXPECT_EQ(seen.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(seen.last.stop_reason(), "");
  EXPECT_EQ(seen.last.token_ids(0), 0);
}

TEST_F(ChoiceOutputTest, IgnoreEosAndMinTokens) {
  std::vector<int32_t> tokens = {0, 0, 0, 0};
  ValidRequest r = request();
  r.sampling.set_ignore_eos(true);
  EXPECT_FALSE(run(r, tokens).over);
  r = request();
  r.sampling.set_min_tokens(2);
  EXPECT_EQ(run(r, tokens).tokens, 3u);
  r.sampling.set_ignore_eos(true);
  r.sampling.add_stop_token_ids(0);  // asked for by id: ignore_eos does not touch it
  EXPECT_EQ(run(r, tokens).tokens, 3u);
  EXPECT_EQ(run(r, tokens).last.stop_reason(), "0");
}

TEST_F(ChoiceOutputTest, LengthEnds) {
  ValidRequest r = request();
  r.most_tokens = 3;
  const Run seen = run(r, ids("one two three four five six"));
  EXPECT_TRUE(seen.over);
  EXPECT_EQ(seen.tokens, 3u);
  EXPECT_EQ(seen.last.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(ChoiceOutputTest, StopStringAcrossTokens) {
  ValidRequest r = request();
  r.sampling.add_stop("nothing");
  r.sampling.add_stop("</end>");
  const Run seen = run(r, byte_ids("text <b></e </end> more"));
  EXPECT_EQ(seen.text, "text <b></e ");
  EXPECT_EQ(seen.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(seen.last.stop_reason(), "</end>");
  EXPECT_EQ(seen.tokens, std::string("text <b></e </end>").size()) << "ids go up to the token that completed the stop";
  r.sampling.set_include_stop_str_in_output(true);
  EXPECT_EQ(run(r, byte_ids("text <b></e </end> more")).text, "text <b></e </end>");
}

TEST_F(ChoiceOutputTest, NoPieceSplitsACharacterOrShowsAStopsBeginning) {
  ValidRequest r = request();
  r.sampling.add_stop("né!");
  const Run seen = run(r, byte_ids("aé🙂né?né!z"));
  EXPECT_EQ(seen.text, "aé🙂né?");
  for (const std::string& d : seen.deltas) EXPECT_TRUE(d == "" || d == "a" || d == "é" || d == "🙂" || d == "né?") << d;
}

TEST_F(ChoiceOutputTest, TheSameTextHoweverItIsCutIntoTokens) {
  for (const std::string stop : {"at the", "é b", "\n\n", "zzz"}) {
    ValidRequest r = request();
    r.sampling.add_stop(stop);
    const std::string text = "The cat sat on the mat at the door.\n\ncafé béret";
    EXPECT_EQ(run(r, ids(text)).text, run(r, byte_ids(text)).text.substr(0, run(r, ids(text)).text.size())) << stop;
    const size_t at = text.find(stop);
    EXPECT_EQ(run(r, byte_ids(text)).text.find(stop), std::string::npos);
    if (at != std::string::npos) {
      EXPECT_EQ(run(r, byte_ids(text)).text, text.substr(0, at));
      EXPECT_EQ(run(r, ids(text)).text, text.substr(0, at));
    }
  }
}

TEST_F(ChoiceOutputTest, HeldBackTextComesAtTheEnd) {
  ValidRequest r = request();
  r.sampling.add_stop("abcdef");
  r.most_tokens = 5;
  const Run seen = run(r, byte_ids("xxabcdef"));
  EXPECT_EQ(seen.text, "xxabc");
  EXPECT_EQ(seen.last.finish_reason(), v1::FINISH_REASON_LENGTH);
  // Half a character at the end is shown as one replacement character.
  r.most_tokens = 2;
  EXPECT_EQ(run(r, byte_ids("a🙂")).text, "a\xEF\xBF\xBD");
}

TEST_F(ChoiceOutputTest, AStopStringCompletedByTheLastTokenIsAStop) {
  ValidRequest r = request();
  r.sampling.add_stop("bc");
  r.most_tokens = 3;
  const Run seen = run(r, byte_ids("abcd"));
  EXPECT_EQ(seen.text, "a");
  EXPECT_EQ(seen.last.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ChoiceOutputTest, StopStringsWaitForMinTokens) {
  ValidRequest r = request();
  r.sampling.add_stop("b");
  r.sampling.set_min_tokens(3);
  EXPECT_EQ(run(r, byte_ids("abcabc")).text, "abca");
}

TEST_F(ChoiceOutputTest, LogprobsCarryTextAndBits) {
  ValidRequest r = request();
  r.sampling.set_logprobs(2);
  ChoiceOutput out(context_, r, 0);
  v1::TokenResult result;
  const int32_t id = ids(" cat")[0];
  result.set_token(id);
  result.mutable_chosen()->set_token_id(id);
  result.mutable_chosen()->set_logprob(-0.1f);
  for (int i = 0; i < 4; ++i) result.add_top()->set_token_id(ids(" mat")[0]);
  v1::ChoiceDelta delta;
  out.append(id, result, /*complete=*/false, &delta);
  ASSERT_EQ(delta.logprobs_size(), 1);
  EXPECT_EQ(delta.logprobs(0).top_size(), 2);
  const v1::Logprob& chosen = delta.logprobs(0).chosen();
  uint32_t bits;
  const float value = -0.1f;
  std::memcpy(&bits, &value, 4);
  EXPECT_EQ(chosen.logprob_bits(), bits);
  EXPECT_EQ(chosen.text(), tokenizer_->decode(std::vector<int32_t>{id}, false));
  EXPECT_FALSE(chosen.text().empty());
}

TEST_F(ChoiceOutputTest, ForcedTokensAreAllTakenAndTheDrawsReported) {
  ValidRequest r = request();
  r.forced = {0, 8, 0};
  r.most_tokens = 3;
  r.sampling.set_logprobs(0);
  r.return_receipt = true;
  ChoiceOutput out(context_, r, 2);
  v1::ChoiceDelta delta;
  for (int i = 0; i < 3; ++i) {
    v1::TokenResult result;
    result.set_token(100 + i);
    result.set_logits_hash(50 + i);
    result.mutable_forced()->set_token_id(r.forced[i]);
    EXPECT_EQ(out.append(r.forced[i], result, /*complete=*/false, &delta), i == 2);
  }
  EXPECT_EQ(std::vector<int32_t>(delta.token_ids().begin(), delta.token_ids().end()), r.forced);
  EXPECT_EQ(std::vector<int32_t>(delta.draws().begin(), delta.draws().end()), (std::vector<int32_t>{100, 101, 102}));
  EXPECT_EQ(delta.logprobs(1).chosen().token_id(), 8);
  EXPECT_EQ(delta.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(delta.receipt().choice(), 2u);
}

TEST_F(ChoiceOutputTest, ReceiptIsConsistent) {
  ValidRequest r = request();
  r.return_receipt = true;
  r.most_tokens = 4;
  const Run seen = run(r, {10, 11, 12, 13, 14});
  ASSERT_TRUE(seen.last.has_receipt());
  EXPECT_TRUE(check_receipt(seen.last.receipt()).ok()) << check_receipt(seen.last.receipt());
  EXPECT_EQ(seen.last.receipt().response_digest(), seen.last.response_digest());
  EXPECT_EQ(seen.last.receipt().output_token_ids_size(), 4);
}

TEST_F(ChoiceOutputTest, FailureShowsWhatWasHeldBack) {
  ValidRequest r = request();
  r.sampling.add_stop("abcdef");
  ChoiceOutput out(context_, r, 0);
  v1::ChoiceDelta delta;
  for (const int32_t id : byte_ids("xabc")) {
    v1::TokenResult result;
    result.set_token(id);
    out.append(id, result, /*complete=*/false, &delta);
  }
  EXPECT_EQ(delta.text(), "x");
  out.fail("the logits at position 9 hold NaN or infinity", &delta);
  EXPECT_EQ(delta.text(), "xabc");
  EXPECT_EQ(delta.finish_reason(), v1::FINISH_REASON_ERROR);
  EXPECT_EQ(delta.stop_reason(), "the logits at position 9 hold NaN or infinity");
  EXPECT_EQ(delta.response_digest().size(), 64u);
}

TEST_F(ChoiceOutputTest, WithoutATokenizerThereIsNoText) {
  context_.tokenizer = nullptr;
  ValidRequest r = request();
  r.most_tokens = 2;
  const Run seen = run(r, {10, 11});
  EXPECT_TRUE(seen.over);
  EXPECT_EQ(seen.text, "");
}

}  // namespace
}  // namespace invar::engine
