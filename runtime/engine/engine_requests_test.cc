// What one request can ask for, through the whole engine: log-probabilities, verification, aborts, bounds, bad numbers.
#include <cstring>
#include <numeric>
#include <thread>

#include "runtime/engine/engine_harness.h"
#include "runtime/receipt/receipt.h"

namespace invar::engine {
namespace {

std::vector<int32_t> counting(int64_t n) {
  std::vector<int32_t> p(n);
  std::iota(p.begin(), p.end(), 1);
  for (int32_t& t : p) t %= 97;
  return p;
}

v1::GenerateRequest forced(const v1::Receipt& receipt) {
  v1::GenerateRequest r;
  *r.mutable_prompt_token_ids()->mutable_ids() = receipt.prompt_token_ids();
  *r.mutable_sampling_params() = receipt.sampling_params();
  *r.mutable_forced_token_ids()->mutable_ids() = receipt.output_token_ids();
  r.set_forced_choice(receipt.choice());
  return r;
}

TEST(EngineRequests, LogprobsOfPromptAndAnswer) {
  Mode mode;
  mode.eos = {};
  mode.engine.long_prefill_token_threshold = 7;
  Harness h(mode);
  const std::vector<int32_t> prompt = counting(40);
  v1::GenerateRequest r = request_of(prompt, 6, 1.0f);
  r.mutable_sampling_params()->set_logprobs(2);
  r.mutable_sampling_params()->set_prompt_logprobs(4);
  r.mutable_sampling_params()->set_n(3);
  const Seen seen = h.run({r})[0];
  ASSERT_EQ(seen.prompt_logprobs.size(), 39u);
  std::vector<int32_t> text = prompt;
  uint64_t state = 0;
  for (size_t p = 0; p + 1 < prompt.size(); ++p) {
    state = mode.model.slot(state, static_cast<int64_t>(p), prompt[p]);
    const v1::TokenLogprobs& l = seen.prompt_logprobs[p];
    EXPECT_EQ(l.chosen().token_id(), prompt[p + 1]);
    EXPECT_EQ(l.chosen().logprob(), mode.model.logprob(state, prompt[p + 1]));
    EXPECT_EQ(l.top_size(), 4);
  }
  for (const auto& [choice, c] : seen.choices) {
    ASSERT_EQ(c.logprobs.size(), c.tokens.size());
    for (size_t i = 0; i < c.tokens.size(); ++i) {
      EXPECT_EQ(c.logprobs[i].chosen().token_id(), c.tokens[i]);
      EXPECT_EQ(c.logprobs[i].top_size(), 2);
      const float value = c.logprobs[i].chosen().logprob();
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      EXPECT_EQ(c.logprobs[i].chosen().logprob_bits(), bits);
    }
  }
}

TEST(EngineRequests, PromptLogprobsSurvivePreemption) {
  Mode plenty, few;
  for (Mode* m : {&plenty, &few}) {
    m->eos = {};
    m->engine.max_model_len = 96;
    m->engine.long_prefill_token_threshold = 5;
    m->engine.plans_in_flight = 3;
    m->backlog = 3;
  }
  few.pages = 9;
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 6; ++i) {
    v1::GenerateRequest r = request_of(counting(30 + i), 40);
    r.mutable_sampling_params()->set_prompt_logprobs(1);
    r.set_priority(6 - i);
    requests.push_back(r);
  }
  Harness a(plenty), b(few);
  const std::vector<Seen> want = a.run(requests), got = b.run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(got[i].prompt_logprobs.size(), want[i].prompt_logprobs.size());
    for (size_t j = 0; j < want[i].prompt_logprobs.size(); ++j)
      EXPECT_EQ(got[i].prompt_logprobs[j].SerializeAsString(), want[i].prompt_logprobs[j].SerializeAsString());
    EXPECT_EQ(got[i].choices.at(0).digest, want[i].choices.at(0).digest);
  }
  EXPECT_GT(b.engine->stats().preemptions, 0u);
}

TEST(EngineRequests, ReceiptIsVerifiedByOneTeacherForcedPrefill) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  v1::GenerateRequest r = request_of(counting(50), 30, 0.9f);
  r.set_return_receipt(true);
  r.mutable_sampling_params()->set_n(2);
  const v1::Receipt receipt = h.run({r})[0].choices.at(1).receipt;
  ASSERT_TRUE(check_receipt(receipt).ok()) << check_receipt(receipt);

  const auto verify = [&](const v1::Receipt& claimed, Harness& with) {
    const Seen s = with.run({forced(claimed)})[0];
    const ChoiceSeen& c = s.choices.at(claimed.choice());
    return compare_receipt(claimed, {with.engine->facts().numerics_id, with.engine->facts().model_digest, c.draws, c.hashes});
  };
  const uint64_t steps = h.engine->stats().steps;
  ReceiptVerdict v = verify(receipt, h);
  EXPECT_TRUE(v.equal()) << v.message;
  EXPECT_LE(h.engine->stats().steps - steps, 2u) << "a prefill, not a decode";
  EXPECT_EQ(h.engine->stats().verified_tokens, 30u);
  EXPECT_EQ(h.engine->stats().verification_mismatches, 0u);
  ASSERT_EQ(h.engine->stats().per_replica.size(), 1u);
  EXPECT_TRUE(h.engine->stats().per_replica[0].alive);
  EXPECT_EQ(h.engine->stats().per_replica[0].steps, h.engine->stats().steps);

  Mode small = mode;  // another shape: few pages, small chunks
  small.pages = 14;
  small.engine.long_prefill_token_threshold = 3;
  small.engine.max_model_len = 200;
  Harness other(small);
  v = verify(receipt, other);
  EXPECT_TRUE(v.equal()) << v.message;

  v1::Receipt forged = receipt;
  forged.set_output_token_ids(12, (forged.output_token_ids(12) + 1) % 97);
  v = verify(forged, h);
  EXPECT_EQ(v.difference, ReceiptDifference::kToken) << v.message;
  EXPECT_EQ(v.position, 12);
  EXPECT_EQ(h.engine->stats().verified_tokens, 60u);
  EXPECT_GE(h.engine->stats().verification_mismatches, 1u) << "the counter of mismatches must see it";
  forged = receipt;
  forged.set_logits_hashes(7, forged.logits_hashes(7) + 1);
  v = verify(forged, h);
  EXPECT_EQ(v.difference, ReceiptDifference::kLogitsHash) << v.message;
  EXPECT_EQ(v.position, 7);
  forged = receipt;
  forged.set_response_digest(std::string(64, 'a'));
  EXPECT_EQ(verify(forged, h).difference, ReceiptDifference::kChain);
  forged = receipt;
  forged.mutable_sampling_params()->set_seed(1);
  EXPECT_EQ(verify(forged, h).difference, ReceiptDifference::kToken);
  Mode liar = mode;
  liar.model.salt = 2;
  Harness another_model(liar);
  v = verify(receipt, another_model);
  EXPECT_EQ(v.difference, ReceiptDifference::kLogitsHash) << v.message;
  EXPECT_EQ(v.position, 0);
}

TEST(EngineRequests, VerifyingOneChoiceOfManyComputesThatOneOnly) {
  Mode mode;
  mode.eos = {};
  mode.engine.enable_prefix_caching = false;  // so that every prefilled token is counted
  Harness h(mode);
  const auto computed = [&] {
    const std::lock_guard lock(h.reports[0]->mutex);
    return h.reports[0]->computed_tokens;
  };
  v1::GenerateRequest r = request_of(counting(50), 30, 0.9f);
  r.set_return_receipt(true);
  r.mutable_sampling_params()->set_n(6);
  r.mutable_sampling_params()->set_prompt_logprobs(1);
  const Seen asked = h.run({r})[0];
  ASSERT_EQ(asked.choices.size(), 6u);
  EXPECT_NE(asked.choices.at(1).tokens, asked.choices.at(4).tokens) << "choices draw for themselves";
  for (const auto& [choice, want] : asked.choices) {
    const int64_t before = computed();
    const Seen seen = h.run({forced(want.receipt)})[0];
    EXPECT_EQ(computed() - before, 50 + 30 - 1) << "choice " << choice;
    ASSERT_EQ(seen.choices.size(), 1u);
    const ChoiceSeen& c = seen.choices.at(choice);
    EXPECT_EQ(c.draws, want.tokens);
    EXPECT_EQ(c.hashes, want.hashes);
    EXPECT_EQ(c.digest, want.digest);
    EXPECT_EQ(seen.prompt_logprobs.size(), 49u);
    EXPECT_EQ(seen.usage.completion_tokens(), 30u);
  }
  // Without it all six are computed, and only one of them is what the receipt speaks of.
  v1::GenerateRequest all = forced(asked.choices.at(4).receipt);
  all.clear_forced_choice();
  const int64_t before = computed();
  const Seen seen = h.run({all})[0];
  EXPECT_EQ(computed() - before, 6 * (50 + 30 - 1));
  EXPECT_EQ(seen.choices.at(4).draws, asked.choices.at(4).tokens);
  EXPECT_NE(seen.choices.at(1).draws, asked.choices.at(4).tokens);
  // Another choice's receipt does not hold for this one.
  v1::Receipt another = asked.choices.at(4).receipt;
  another.set_choice(1);
  const Seen wrong = h.run({forced(another)})[0];
  EXPECT_NE(wrong.choices.at(1).draws, asked.choices.at(4).tokens);
}

TEST(EngineRequests, ForcedTokensPassStopsAndReportTheirLogprobs) {
  Mode mode;
  Harness h(mode);
  v1::GenerateRequest r = request_of(counting(20), 3);
  for (const int id : {7, 9, 7, 11, 12}) r.mutable_forced_token_ids()->add_ids(id);
  r.mutable_sampling_params()->set_logprobs(1);
  const Seen seen = h.run({r})[0];
  const ChoiceSeen& c = seen.choices.at(0);
  EXPECT_EQ(c.tokens, (std::vector<int32_t>{7, 9, 7, 11, 12}));
  EXPECT_EQ(c.draws.size(), 5u);
  EXPECT_EQ(c.logprobs[3].chosen().token_id(), 11);
  EXPECT_EQ(c.finish, v1::FINISH_REASON_LENGTH);
  // The first draw is what an ordinary request would have got.
  EXPECT_EQ(c.draws[0], wanted(mode, request_of(counting(20), 1), 0).tokens[0]);
}

TEST(EngineRequests, NonFiniteLogitsEndTheChoiceOnly) {
  Mode mode;
  mode.eos = {};
  mode.model.nan_token = 50;
  Harness h(mode);
  std::vector<int32_t> bad = counting(20);
  bad.back() = 50;
  std::vector<int32_t> good(20, 3);
  v1::GenerateRequest r = request_of(good, 40);
  const std::vector<Seen> seen = h.run({request_of(bad, 8), r});
  EXPECT_EQ(seen[0].choices.at(0).finish, v1::FINISH_REASON_ERROR);
  EXPECT_NE(seen[0].choices.at(0).stop_reason.find("position 19"), std::string::npos) << seen[0].choices.at(0).stop_reason;
  EXPECT_TRUE(seen[0].choices.at(0).tokens.empty());
  EXPECT_TRUE(seen[0].status.ok());
  const Wanted w = wanted(mode, r, 0);
  const auto nan = std::find(w.tokens.begin(), w.tokens.end(), 50);
  EXPECT_EQ(seen[1].choices.at(0).tokens, std::vector<int32_t>(w.tokens.begin(), nan == w.tokens.end() ? nan : nan + 1));
  // What it computed is not found again.
  EXPECT_EQ(h.run({request_of(bad, 8)})[0].usage.cached_tokens(), 0u);
  EXPECT_EQ(h.engine->stats().pages_used, 0);
  // With prompt log-probabilities held choices must not be forgotten.
  v1::GenerateRequest several = request_of({50, 1, 2, 3}, 4);
  several.mutable_sampling_params()->set_prompt_logprobs(0);
  several.mutable_sampling_params()->set_n(3);
  const Seen s = h.run({several})[0];
  EXPECT_EQ(s.choices.size(), 3u);
  EXPECT_EQ(s.choices.at(0).finish, v1::FINISH_REASON_ERROR);
}

TEST(EngineRequests, AbortFreesPagesAndTellsTheClient) {
  Mode mode;
  mode.eos = {};
  mode.patience = std::chrono::microseconds(2000);
  mode.engine.plans_in_flight = 3;
  mode.backlog = 3;
  Harness h(mode);
  h.submit(0, request_of(counting(100), 3900));
  ASSERT_TRUE(h.client.wait_for_tokens(0, 5));
  EXPECT_GT(h.engine->stats().pages_used, 0);
  EXPECT_TRUE(h.engine->abort(h.ids[0]).ok());
  ASSERT_TRUE(h.client.wait(1));
  EXPECT_TRUE(absl::IsCancelled(h.client.seen(0).status)) << h.client.seen(0).status;
  EXPECT_EQ(h.engine->stats().pages_used, 0);
  EXPECT_EQ(h.engine->stats().aborted, 1u);
  EXPECT_TRUE(absl::IsNotFound(h.engine->abort(h.ids[0])));
  EXPECT_TRUE(absl::IsNotFound(h.engine->abort("nobody")));
}

TEST(EngineRequests, AbortFromTheCallback) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  std::atomic<int> tokens{0}, cancelled{0};
  v1::GenerateRequest r = request_of(counting(10), 3000);
  r.set_request_id("mine");
  ASSERT_TRUE(h.engine
                  ->submit(r,
                           [&](const absl::Status& s, const v1::GenerateResponse* response) {
                             if (response && ++tokens == 3) {
                               EXPECT_TRUE(h.engine->abort("mine").ok());
                             }
                             if (absl::IsCancelled(s)) ++cancelled;
                           })
                  .ok());
  EXPECT_TRUE(h.engine->drain(std::chrono::seconds(30)));
  EXPECT_EQ(cancelled, 1);
  EXPECT_LT(tokens, 3000);
}

TEST(EngineRequests, IdsAreUniqueWhileInUse) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  v1::GenerateRequest r = request_of(counting(10), 2000);
  r.set_request_id("a");
  h.submit(0, r);
  EXPECT_TRUE(absl::IsAlreadyExists(h.engine->submit(r, h.client.callback(1)).status()));
  EXPECT_TRUE(h.engine->abort("a").ok());
  ASSERT_TRUE(h.client.wait(1));
  r.mutable_sampling_params()->set_max_tokens(2);
  h.submit(2, r);
  ASSERT_TRUE(h.client.wait(2));
  EXPECT_TRUE(h.client.seen(2).status.ok());
  h.submit(3, request_of(counting(3), 2));
  EXPECT_FALSE(h.ids[3].empty());
}

TEST(EngineRequests, TheQueueIsBounded) {
  Mode mode;
  mode.eos = {};
  mode.engine.max_num_seqs = 1;
  mode.engine.max_queued_requests = 3;
  mode.patience = std::chrono::milliseconds(1);
  mode.backlog = 2;
  Harness h(mode);
  h.submit(0, request_of(counting(10), 3000));
  ASSERT_TRUE(h.client.wait_for_tokens(0, 1));  // it runs and is no longer queued
  for (int i = 1; i <= 3; ++i) h.submit(i, request_of(counting(10), 2));
  const absl::Status full = h.engine->submit(request_of(counting(10), 2), h.client.callback(9)).status();
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_NE(std::string(full.message()).find("max_queued_requests = 3"), std::string::npos) << full;
  EXPECT_EQ(h.engine->stats().rejected, 1u);
  EXPECT_TRUE(h.engine->abort(h.ids[2]).ok());
  ASSERT_TRUE(h.client.wait(1));
  h.submit(4, request_of(counting(10), 2));
  EXPECT_TRUE(h.engine->abort(h.ids[0]).ok());
  ASSERT_TRUE(h.client.wait(5));
  EXPECT_TRUE(h.client.seen(4).status.ok());
}

TEST(EngineRequests, BadInputIsRefusedAndTheEngineLivesOn) {
  Mode mode;
  Harness h(mode);
  const auto bad = [&](const v1::GenerateRequest& r) { return h.engine->submit(r, h.client.callback(77)).status(); };
  EXPECT_TRUE(absl::IsInvalidArgument(bad(request_of({}, 4))));
  EXPECT_TRUE(absl::IsInvalidArgument(bad(request_of({1, 97}, 4))));
  EXPECT_TRUE(absl::IsInvalidArgument(bad(request_of(counting(4096), 4))));
  v1::GenerateRequest text = request_of({}, 4);
  text.set_prompt("text");
  EXPECT_TRUE(absl::IsInvalidArgument(bad(text)));
  EXPECT_EQ(h.engine->stats().rejected, 4u);
  EXPECT_TRUE(h.run({request_of({1}, 4)})[0].status.ok());
}

TEST(EngineRequests, TextInAndOut) {
  auto tokenizer = Tokenizer::load(std::string(INVAR_SOURCE_DIR) + "/configs/models/demo-dense");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  Mode mode;
  mode.model.vocab_size = 2048;
  mode.eos = {0};
  Harness h(mode, *tokenizer);
  v1::GenerateRequest r = request_of({}, 50);
  r.set_prompt("Once upon a time");
  const Seen seen = h.run({r})[0];
  ASSERT_TRUE(seen.status.ok());
  const ChoiceSeen& c = seen.choices.at(0);
  EXPECT_EQ(c.text, (*tokenizer)->decode(c.tokens, true));
  EXPECT_EQ(seen.usage.prompt_tokens(), (*tokenizer)->encode("Once upon a time", true)->size());
  // Any piece of that text as a stop string cuts exactly there.
  const std::string stop = c.text.substr(c.text.size() / 2, 0) + (*tokenizer)->decode(std::vector<int32_t>{c.tokens[20]}, true);
  if (!stop.empty() && stop.find("\xEF\xBF\xBD") == std::string::npos) {
    r.mutable_sampling_params()->add_stop(stop);
    const Seen cut = h.run({r})[0];
    EXPECT_EQ(cut.choices.at(0).text, c.text.substr(0, c.text.find(stop)));
    EXPECT_EQ(cut.choices.at(0).stop_reason, stop);
  }
  v1::GenerateRequest invalid = request_of({}, 4);
  invalid.set_prompt("a\xff");
  const absl::Status s = h.engine->submit(invalid, h.client.callback(50)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(s));
  EXPECT_NE(std::string(s.message()).find("byte 1"), std::string::npos) << s;
}

TEST(EngineRequests, DrainLetsTheRunningOnesFinish) {
  Mode mode;
  mode.eos = {};
  Harness h(mode);
  h.submit(0, request_of(counting(30), 500));
  EXPECT_TRUE(h.engine->drain(std::chrono::seconds(60)));
  EXPECT_TRUE(h.client.seen(0).over && h.client.seen(0).status.ok());
  EXPECT_TRUE(absl::IsUnavailable(h.engine->submit(request_of({1}, 1), h.client.callback(1)).status()));
}

TEST(EngineRequests, StoppingTellsEveryone) {
  Mode mode;
  mode.eos = {};
  mode.engine.max_num_seqs = 1;
  Harness h(mode);
  for (int i = 0; i < 5; ++i) h.submit(i, request_of(counting(30), 4000));
  EXPECT_FALSE(h.engine->drain(std::chrono::milliseconds(1)));
  h.engine->shutdown(std::chrono::seconds(1));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(absl::IsUnavailable(h.client.seen(i).status)) << h.client.seen(i).status;
  EXPECT_TRUE(h.reports[0]->told_to_leave);
}

TEST(EngineRequests, TheDestructorTalksToNobody) {
  Mode mode;
  Harness h(mode);
  h.run({request_of({1, 2}, 3)});
  h.engine.reset();
  EXPECT_FALSE(h.reports[0]->told_to_leave);
}

TEST(EngineStart, RefusesWhatDoesNotFit) {
  ModelConfig model;
  model.vocab_size = 97;
  model.max_position_embeddings = 1000;
  const auto start = [&](std::function<void(EngineOptions*, FakeOptions*, FakeOptions*)> change) {
    EngineOptions engine;
    FakeOptions a;
    a.facts.pages_per_home = 10;
    a.facts.max_positions = 2000;
    a.facts.vocab_size = 97;
    a.facts.numerics_id = "n";
    a.facts.model_digest = "m";
    FakeOptions b = a;
    change(&engine, &a, &b);
    std::vector<std::unique_ptr<Executor>> replicas;
    replicas.push_back(std::make_unique<FakeExecutor>(a));
    replicas.push_back(std::make_unique<FakeExecutor>(b));
    auto e = Engine::start(engine, model, nullptr, std::move(replicas));
    return e.ok() ? "max_model_len " + std::to_string((*e)->options().max_model_len) : std::string(e.status().message());
  };
  EXPECT_EQ(start([](auto*, auto*, auto*) {}), "max_model_len 160");
  EXPECT_EQ(start([](auto*, auto* a, auto* b) { a->facts.pages_per_home = b->facts.pages_per_home = 500; }),
            "max_model_len 1000");
  EXPECT_EQ(start([](auto* e, auto*, auto*) { e->max_model_len = 100; }), "max_model_len 100");
  EXPECT_NE(start([](auto* e, auto*, auto*) { e->max_model_len = 161; }).find("161"), std::string::npos);
  EXPECT_NE(start([](auto*, auto*, auto* b) { b->facts.numerics_id = "other"; }).find("numerics_id = other"), std::string::npos);
  EXPECT_NE(start([](auto*, auto*, auto* b) { b->facts.model_digest = "other"; }).find("model_digest = other"),
            std::string::npos);
  EXPECT_NE(start([](auto*, auto* a, auto*) { a->facts.vocab_size = 5; }).find("vocab_size = 5"), std::string::npos);
  EXPECT_NE(start([](auto* e, auto*, auto*) { e->max_num_seqs = 0; }).find("max_num_seqs = 0"), std::string::npos);
  EXPECT_NE(start([](auto* e, auto*, auto*) { e->max_num_batched_tokens = -1; }).find("max_num_batched_tokens = -1"),
            std::string::npos);
  EXPECT_NE(start([](auto* e, auto*, auto*) { e->plans_in_flight = 0; }).find("plans_in_flight = 0"), std::string::npos);
  EXPECT_NE(start([](auto* e, auto*, auto*) { e->max_queued_requests = 0; }).find("max_queued_requests = 0"), std::string::npos);
}

}  // namespace
}  // namespace invar::engine
