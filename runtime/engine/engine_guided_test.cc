// Structured output through the engine: every way to serve gives what the plainest loop under the same constraint gives.
#include <random>

#include "runtime/engine/constraint.h"
#include "runtime/engine/engine_harness.h"
#include "runtime/receipt/receipt.h"

namespace invar::engine {
namespace {

std::shared_ptr<const Tokenizer> demo_tokenizer() {
  static const auto* const all = [] {
    auto loaded = Tokenizer::load(std::string(INVAR_SOURCE_DIR) + "/configs/models/demo-dense");
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return new std::shared_ptr<const Tokenizer>(*loaded);
  }();
  return *all;
}

Mode mode_of(
    std::string name, const std::function<void(Mode&)>& change = [](Mode&) {}) {
  Mode m;
  m.name = std::move(name);
  m.model.vocab_size = demo_tokenizer()->vocab_size() + 3;  // rows that no token has
  m.eos = {demo_tokenizer()->eos().value_or(0)};
  m.engine.max_model_len = 640;
  change(m);
  return m;
}

constexpr const char* kSchema =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},"n":{"type":"integer","minimum":-5,"maximum":99},
        "tags":{"type":"array","items":{"enum":["red","green"]},"maxItems":3}},"required":["name","n"]})";

std::vector<v1::GenerateRequest> guided() {
  std::vector<v1::GenerateRequest> all;
  const auto add = [&](float temperature, uint32_t most, const std::function<void(v1::SamplingParams*)>& change) {
    all.push_back(request_of({1, 2, static_cast<int32_t>(3 + all.size())}, most, temperature));
    all.back().mutable_sampling_params()->set_seed(all.size());
    all.back().set_return_receipt(true);
    change(all.back().mutable_sampling_params());
  };
  for (const float t : {0.0f, 1.0f}) {
    add(t, 200, [](auto* s) { s->set_guided_json(kSchema), s->set_n(2); });
    add(t, 40, [](auto* s) { s->set_guided_json_object(true); });
    add(t, 60, [](auto* s) { s->set_guided_regex("[a-f]{3,9}-\\d+"); });
    add(t, 60, [](auto* s) { s->set_guided_regex("[a-f]{3}"), s->set_ignore_eos(true); });
    add(t, 20, [](auto* s) {
      s->add_guided_choice("yes"), s->add_guided_choice("no thanks"), s->set_logprobs(1), s->set_prompt_logprobs(1);
    });
    add(t, 12, [](auto* s) { s->set_guided_regex("x*"), s->set_min_tokens(5); });
    add(t, 60, [](auto* s) { s->set_guided_grammar("root ::= e\ne ::= e [-+] e | \"(\" e \")\" | [a-z]{1,8}"); });
  }
  return all;
}

grammar::Specification specification(const v1::SamplingParams& s) {
  using Kind = grammar::Specification::Kind;
  if (s.has_guided_json()) return {Kind::kJsonSchema, s.guided_json(), {}};
  if (s.guided_json_object()) return {Kind::kJsonObject, "", {}};
  if (s.has_guided_regex()) return {Kind::kRegex, s.guided_regex(), {}};
  if (s.has_guided_grammar()) return {Kind::kEbnf, s.guided_grammar(), {}};
  return {Kind::kChoice, "", {s.guided_choice().begin(), s.guided_choice().end()}};
}

bool token_bit(const std::vector<uint8_t>& mask, int32_t t) { return mask[t / 8] >> t % 8 & 1; }

struct Plain {
  std::vector<int32_t> tokens;
  v1::FinishReason finish = v1::FINISH_REASON_LENGTH;
};
// One token after another, each under the mask of all before it.
Plain plain(const Mode& mode, const v1::GenerateRequest& r, uint32_t choice) {
  const v1::SamplingParams s = effective_sampling(r.sampling_params(), {}, mode.engine.seed);
  grammar::GrammarCache grammars(demo_tokenizer(), mode.model.vocab_size, mode.eos);
  const auto grammar = grammars.get(specification(s));
  EXPECT_TRUE(grammar.ok()) << grammar.status();
  Constraint constraint(*grammar, !s.ignore_eos(), s.min_tokens());
  std::vector<int32_t> tokens;
  Plain out;
  for (uint32_t count = 1; count <= s.max_tokens(); ++count) {
    const auto may = [&](const std::vector<int32_t>& answer, int32_t t) { return token_bit(**constraint.mask_after(answer), t); };
    const auto& ids = r.prompt_token_ids().ids();
    out.tokens = mode.model.answer({ids.begin(), ids.end()}, s, choice, count, may).tokens;
    if (constraint.complete(out.tokens) || (!s.ignore_eos() && out.tokens.back() == mode.eos[0] && count > s.min_tokens())) {
      out.finish = v1::FINISH_REASON_STOP;
      break;
    }
  }
  return out;
}

std::vector<Mode> modes() {
  return {mode_of("plain"),
          mode_of("ahead 4", [](Mode& m) { m.engine.plans_in_flight = 4, m.backlog = 3; }),
          mode_of("chunk 1", [](Mode& m) { m.engine.long_prefill_token_threshold = 1; }),
          mode_of("few pages", [](Mode& m) { m.pages = 45, m.engine.plans_in_flight = 3; }),
          mode_of("two replicas of two homes", [](Mode& m) { m.replicas = 2, m.homes = 2; }),
          mode_of("seven tokens a step", [](Mode& m) { m.engine.max_num_batched_tokens = 7, m.engine.max_num_seqs = 3; }),
          mode_of("one sequence a step", [](Mode& m) { m.engine.max_num_seqs = 1; })};
}

// With company that is free: long, so that pages run out where they are few.
TEST(EngineGuided, EveryModeGivesWhatThePlainLoopGives) {
  const std::vector<v1::GenerateRequest> bound = guided();
  std::vector<v1::GenerateRequest> requests = bound;
  for (int i = 0; i < 6; ++i) requests.push_back(request_of({9, 8, 7, i}, 150, 1.0f));
  uint64_t preemptions = 0;
  for (const Mode& mode : modes()) {
    SCOPED_TRACE(mode.name);
    Harness h(mode, demo_tokenizer());
    const std::vector<Seen> seen = h.run(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(seen[i].status.ok()) << i << ": " << seen[i].status;
      for (const auto& [choice, c] : seen[i].choices) {
        if (i >= bound.size()) {  // the free ones are as if alone
          EXPECT_EQ(c.tokens, wanted(mode, requests[i], choice).tokens) << "request " << i;
          continue;
        }
        const Plain want = plain(mode, requests[i], choice);
        ASSERT_EQ(c.tokens, want.tokens) << "request " << i << " choice " << choice << ": " << c.text;
        ASSERT_EQ(c.finish, want.finish) << "request " << i << ": " << c.text;
      }
    }
    preemptions += h.engine->stats().preemptions;
  }
  EXPECT_GT(preemptions, 0u);
}

TEST(EngineGuided, AnswersAreWhatWasAskedFor) {
  Harness h(mode_of("plain"), demo_tokenizer());
  const std::vector<v1::GenerateRequest> requests = guided();
  const std::vector<Seen> seen = h.run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const ChoiceSeen& c = seen[i].choices.at(0);
    if (requests[i].sampling_params().guided_choice_size() > 0) {
      EXPECT_TRUE(c.text == "yes" || c.text == "no thanks") << c.text;
    }
    if (requests[i].sampling_params().ignore_eos()) {
      EXPECT_EQ(c.text.size(), 3u) << c.text;
      EXPECT_EQ(c.finish, v1::FINISH_REASON_STOP) << "without eos it ends when nothing can follow";
    }
    if (requests[i].sampling_params().min_tokens() > 0) {
      EXPECT_GE(c.tokens.size(), 5u);
    }
    // The control: without the constraint the answer is another one.
    v1::GenerateRequest free = requests[i];
    free.mutable_sampling_params()->clear_guided_json();
    free.mutable_sampling_params()->clear_guided_json_object();
    free.mutable_sampling_params()->clear_guided_regex();
    free.mutable_sampling_params()->clear_guided_choice();
    free.mutable_sampling_params()->clear_guided_grammar();
    EXPECT_NE(h.run({free})[0].choices.at(0).tokens, c.tokens);
    EXPECT_NE(h.run({free})[0].choices.at(0).digest, c.digest);
  }
}

// Receipts recompute under the mask, many draws in one prefill; a token that the constraint forbids is named.
TEST(EngineGuided, ReceiptsAreRecomputedUnderTheConstraint) {
  Harness h(mode_of("plain"), demo_tokenizer());
  int checked = 0;
  const std::vector<v1::GenerateRequest> requests = guided();
  const std::vector<Seen> seen = h.run(requests);
  for (size_t i = 0; i < requests.size(); ++i)
    for (const auto& [choice, c] : seen[i].choices) {
      ASSERT_TRUE(check_receipt(c.receipt).ok());
      v1::GenerateRequest replay = requests[i];
      *replay.mutable_sampling_params() = c.receipt.sampling_params();
      *replay.mutable_forced_token_ids()->mutable_ids() = c.receipt.output_token_ids();
      replay.set_forced_choice(choice);
      const ChoiceSeen again = h.run({replay})[0].choices.at(choice);
      EXPECT_EQ(again.draws, c.tokens) << "request " << i;
      EXPECT_EQ(again.hashes, c.hashes);
      EXPECT_FALSE(again.violated);
      ++checked;
      if (c.tokens.size() < 3) continue;
      // A row without a token stands where one of the answer was.
      const auto forged = static_cast<int32_t>(demo_tokenizer()->vocab_size()) + 1;
      replay.mutable_forced_token_ids()->set_ids(1, forged);
      const ChoiceSeen lie = h.run({replay})[0].choices.at(choice);
      EXPECT_EQ(lie.draws[0], c.tokens[0]);
      EXPECT_EQ(lie.draws[1], c.tokens[1]);
      ASSERT_TRUE(lie.violated);
      EXPECT_EQ(lie.violation, 1u);
    }
  EXPECT_GT(checked, 10);
}

// A verification of a long answer under a constraint goes through several plans, each with few masks.
TEST(EngineGuided, LongVerificationsAreCut) {
  Mode mode = mode_of("plain");
  std::mutex mutex;
  int most = 0;
  mode.engine.observer = [&](const v1::StepPlan& plan, int) {
    std::lock_guard lock(mutex);
    most = std::max(most, plan.token_masks_size());
    for (const v1::Chunk& c : plan.chunks()) EXPECT_LE(c.draw_masks_size(), 64);
  };
  Harness h(mode, demo_tokenizer());
  v1::GenerateRequest r = request_of({5}, 300, 1.0f);
  r.mutable_sampling_params()->set_guided_regex("[a-z ]{400,}");
  r.set_return_receipt(true);
  const ChoiceSeen c = h.run({r})[0].choices.at(0);
  ASSERT_EQ(c.tokens.size(), 300u);
  r.mutable_forced_token_ids()->mutable_ids()->Add(c.tokens.begin(), c.tokens.end());
  EXPECT_EQ(h.run({r})[0].choices.at(0).draws, c.tokens);
  EXPECT_GT(most, 0);
}

TEST(EngineGuided, BadConstraintsAreRefusedBeforeAnyWork) {
  Harness h(mode_of("plain"), demo_tokenizer());
  const auto refused = [&](const std::function<void(v1::SamplingParams*)>& change, absl::StatusCode code, const char* what) {
    v1::GenerateRequest r = request_of({1}, 4);
    change(r.mutable_sampling_params());
    const auto id = h.engine->submit(r, h.client.callback(99));
    ASSERT_FALSE(id.ok()) << what;
    EXPECT_EQ(id.status().code(), code) << id.status();
    EXPECT_NE(std::string(id.status().message()).find(what), std::string::npos) << id.status();
  };
  constexpr auto bad = absl::StatusCode::kInvalidArgument;
  refused([](auto* s) { s->set_guided_json("{"); }, bad, "guided_json: ");
  refused([](auto* s) { s->set_guided_json(R"({"not":{}})"); }, bad, "guided_json: at #/not");
  refused([](auto* s) { s->set_guided_regex("(?=a)"); }, bad, "guided_regex: lookahead");
  refused([](auto* s) { s->add_guided_choice(""); }, bad, "guided_choice: choice 0");
  refused([](auto* s) { s->set_guided_regex("a"), s->add_guided_choice("b"); }, bad, "guided_regex and guided_choice");
  refused([](auto* s) { s->set_guided_regex("a"), s->add_allowed_token_ids(1); }, bad, "guided_regex and allowed_token_ids");
  refused([](auto* s) { s->set_guided_grammar("root ::= a"); }, bad, "guided_grammar: line 1, column 10: the rule a is used");
  refused([](auto* s) { s->set_guided_grammar("root ::= \"a\""), s->set_guided_regex("a"); }, bad,
          "guided_regex and guided_grammar");
  refused([](auto* s) { s->set_guided_regex("(?:a?b?c?d?){3000}"); }, bad, "too complex");
  refused([](auto* s) { s->set_guided_regex(""), s->set_ignore_eos(true); }, bad, "no token");
  refused([](auto* s) { (*s->mutable_logit_bias())[-1] = 1; }, bad, "logit_bias: -1");
  refused([](auto* s) { (*s->mutable_logit_bias())[1] = 101; }, bad, "logit_bias[1]");
  refused([](auto* s) { s->add_allowed_token_ids(1 << 20); }, bad, "allowed_token_ids[0]");
  refused([](auto* s) { s->add_bad_words(""); }, bad, "bad_words[0]");
  Harness bare(mode_of("no tokenizer"));
  v1::GenerateRequest r = request_of({1}, 4);
  r.mutable_sampling_params()->set_guided_regex("a");
  const auto id = bare.engine->submit(r, bare.client.callback(1));
  EXPECT_EQ(id.status().code(), bad) << id.status();
}

TEST(EngineGuided, RulesOfASequenceReachItsRanks) {
  Mode mode = mode_of("plain");
  std::mutex mutex;
  std::vector<v1::SequenceStart> starts;
  mode.engine.observer = [&](const v1::StepPlan& plan, int) {
    std::lock_guard lock(mutex);
    starts.insert(starts.end(), plan.started().begin(), plan.started().end());
  };
  Harness h(mode, demo_tokenizer());
  v1::GenerateRequest r = request_of({1}, 4);
  r.mutable_sampling_params()->set_min_tokens(2);
  r.mutable_sampling_params()->add_stop_token_ids(11);
  r.mutable_sampling_params()->add_bad_words("the");
  (*r.mutable_sampling_params()->mutable_logit_bias())[3] = 2.5f;
  h.run({r, request_of({1}, 4)});
  std::lock_guard lock(mutex);
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_EQ(std::vector<int32_t>(starts[0].late_token_ids().begin(), starts[0].late_token_ids().end()),
            (std::vector<int32_t>{11, mode.eos[0]}));
  EXPECT_GE(starts[0].bad_words_size(), 1);
  EXPECT_EQ(starts[0].sampling().logit_bias().at(3), 2.5f);
  EXPECT_TRUE(starts[1].late_token_ids().empty() && starts[1].bad_words().empty());
}

}  // namespace
}  // namespace invar::engine
