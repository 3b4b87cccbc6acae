// Masks: against token by token, whatever is cached; ends; first tokens; the real vocabulary.
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/grammar/grammar_samples.h"

namespace invar::grammar {
namespace {

const char* const kSchema =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":40},"n":{"type":"integer"},"kind":{"enum":["a","b"]},
        "list":{"type":"array","items":{"anyOf":[{"$ref":"#"},{"type":"number"},{"type":"string","pattern":"^[a-c]+$"}]}},
        "any":{}},"required":["name","kind"],"additionalProperties":{"type":"string"}})";

std::shared_ptr<Grammar> compiled(const Specification& s, std::shared_ptr<const TokenTexts> tokens = sample_tokens()) {
  const auto grammar = Grammar::compile(s, std::move(tokens));
  EXPECT_TRUE(grammar.ok()) << s.text << ": " << grammar.status();
  return grammar.ok() ? *grammar : nullptr;
}

std::vector<Specification> specifications() {
  return {schema_of(kSchema),
          {.kind = Specification::Kind::kJsonObject, .text = "", .choices = {}},
          regex_of("(?:[ab]{2,40}x|\xc3\xa9.*)+"),
          {.kind = Specification::Kind::kChoice, .text = "", .choices = {"yes", "no", "maybe", "na\xc3\xafve"}},
          schema_of(R"({"type":"string","minLength":20,"maxLength":90})"),
          ebnf_of("root ::= s\ns ::= \"(\" s \",\" s \")\" | \"(\" s \")\" | w (\" \" w)*\nw ::= [a-z\\u00e9]+ | \"\\\"\" "
                  "[^\"]{0,30} \"\\\"\"")};
}

TEST(Grammar, MasksAreThoseOfEachTokenAlone) {
  std::mt19937 rng(1);
  for (const Specification& s : specifications())
    for (int walk = 0; walk < 4; ++walk) {
      const auto grammar = compiled(s);
      Matcher m(grammar);
      for (int i = 0; i < 40; ++i) {
        const auto mask = m.mask(true);
        ASSERT_TRUE(mask.ok()) << mask.status();
        ASSERT_EQ(**mask, plain_mask(m, grammar->tokens())) << s.text << " token " << i;
        const std::vector<int32_t> ids = allowed_ids(**mask);
        ASSERT_EQ(ids.empty(), m.may_end() && i > 0 && ids.empty());
        if (ids.empty()) break;
        // Bytes rather than pieces, half of the time: longer ways.
        const int32_t token = ids[rng() % 2 ? rng() % ids.size() : 0];
        ASSERT_TRUE(m.accept(token));
        if (token == grammar->tokens().end_tokens[0]) break;
      }
    }
}

// One grammar for many answers at once, in random order, against a fresh grammar for each.
TEST(Grammar, MasksDoNotDependOnTheCompany) {
  std::mt19937 rng(2);
  const Specification s = schema_of(kSchema);
  const auto shared = compiled(s);
  std::vector<Matcher> matchers(12, Matcher(shared));
  std::vector<std::vector<int32_t>> taken(matchers.size());
  for (int i = 0; i < 300; ++i) {
    const size_t k = rng() % matchers.size();
    const auto mask = matchers[k].mask(true);
    ASSERT_TRUE(mask.ok());
    if (i % 10 == 0) {
      Matcher alone(compiled(s));
      for (const int32_t t : taken[k]) ASSERT_TRUE(alone.accept(t));
      const auto own = alone.mask(true);
      ASSERT_TRUE(own.ok());
      ASSERT_EQ(**own, **mask);
    }
    const std::vector<int32_t> ids = allowed_ids(**mask);
    if (ids.empty()) continue;
    const int32_t token = ids[rng() % ids.size()];
    ASSERT_TRUE(matchers[k].accept(token));
    taken[k].push_back(token);
  }
}

// Nor does it whether there is a mask: what it would cost is counted as if nothing were cached.
TEST(Grammar, RefusalsDoNotDependOnTheCompany) {
  std::mt19937 rng(8);
  int refused = 0, allowed = 0;
  for (const Specification& s : {ebnf_of("root ::= s\ns ::= [a-z ] s [a-z ] | \"\""),
                                 ebnf_of("root ::= s\ns ::= s s s | [a-z ]{0,9}[a-z ]"), regex_of("(?:[a-z]{0,80} ?){0,50}"),
                                 regex_of("(?:.{0,400}a){0,9}"), schema_of(R"({"type":"string","pattern":"(.*e.{12})+"})")}) {
    const auto shared = compiled(s);
    for (int answer = 0; answer < 4; ++answer) {
      Matcher m(shared);
      const auto lonely = Grammar::compile(s, sample_tokens(), answer % 2 ? Grammar::kCacheBytes : 10'000);
      ASSERT_TRUE(lonely.ok());
      Matcher alone(*lonely);
      for (int i = 0; i < 40; ++i) {
        const auto mask = m.mask(true), own = alone.mask(true);
        ASSERT_EQ(mask.status(), own.status()) << s.text << " answer " << answer << " token " << i;
        (mask.ok() ? allowed : refused)++;
        if (!mask.ok()) break;
        ASSERT_EQ(**mask, **own);
        const std::vector<int32_t> ids = allowed_ids(**mask);
        if (ids.empty()) break;
        const int32_t token = ids[rng() % ids.size()];
        ASSERT_TRUE(m.accept(token) && alone.accept(token));
        if (m.ended()) break;
      }
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(allowed, 100);
}

// More states than the cache holds: it is emptied, and answers go on.
TEST(Grammar, AnEmptiedCacheChangesNothing) {
  const auto made = Grammar::compile(regex_of("(?:[ab]*a[ab]{12}c?)+"), sample_tokens(), /*most_cached_bytes=*/20'000);
  ASSERT_TRUE(made.ok());
  std::mt19937 rng(3);
  Matcher m(*made);
  std::vector<int32_t> taken;
  for (int i = 0; i < 400; ++i) {
    const auto mask = m.mask(false);
    ASSERT_TRUE(mask.ok()) << mask.status();
    const std::vector<int32_t> ids = allowed_ids(**mask);
    const int32_t token = ids[rng() % ids.size()];
    ASSERT_TRUE(m.accept(token));
    taken.push_back(token);
  }
  Matcher again(compiled(regex_of("(?:[ab]*a[ab]{12}c?)+")));
  for (const int32_t t : taken) ASSERT_TRUE(again.accept(t));
  EXPECT_EQ(**again.mask(true), **m.mask(true));
}

TEST(Grammar, EndTokensOnlyWhereTheTextMayEnd) {
  const auto grammar = compiled({.kind = Specification::Kind::kChoice, .text = "", .choices = {"a", "ab"}});
  const int32_t end = grammar->tokens().end_tokens[0];
  Matcher m(grammar);
  EXPECT_FALSE(m.may_end());
  EXPECT_FALSE(token_allowed(**m.mask(true), end));
  EXPECT_FALSE(m.accept(end));
  ASSERT_TRUE(m.accept('a'));
  EXPECT_TRUE(m.may_end());
  EXPECT_FALSE(m.must_end());
  EXPECT_TRUE(token_allowed(**m.mask(true), end));
  EXPECT_FALSE(token_allowed(**m.mask(false), end));
  Matcher ended = m;
  ASSERT_TRUE(ended.accept(end));
  EXPECT_TRUE(ended.must_end());
  EXPECT_FALSE(ended.accept('b'));
  EXPECT_TRUE(allowed_ids(**ended.mask(true)).empty());
  ASSERT_TRUE(m.accept('b'));
  EXPECT_TRUE(m.must_end());
  EXPECT_EQ(allowed_ids(**m.mask(true)), std::vector<int32_t>{end});
  EXPECT_FALSE(m.accept('b'));
  EXPECT_FALSE(m.accept(-1));
  EXPECT_FALSE(m.accept(1 << 30));
}

TEST(Grammar, HolesAreNeverAllowed) {
  const auto grammar = compiled(regex_of("[^x]*"));
  const auto hole = static_cast<int32_t>(grammar->tokens().vocab_size()) - 2;
  ASSERT_TRUE(grammar->tokens().texts[hole].empty());
  Matcher m(grammar);
  EXPECT_FALSE(token_allowed(**m.mask(true), hole));
  EXPECT_FALSE(m.accept(hole));
}

// A decoder that drops the first space: the first token " yes" says "yes".
TEST(Grammar, TheFirstTokenMayReadDifferently) {
  const auto tokens =
      std::make_shared<const TokenTexts>(std::vector<std::string>{" yes", "yes", " no", " ", "", "!"},
                                         std::vector<std::string>{"yes", "yes", "no", "", "", "!"}, std::vector<int32_t>{4});
  const auto grammar = compiled(regex_of("(?:yes| no)( yes)*"), tokens);
  Matcher m(grammar);
  EXPECT_EQ(allowed_ids(**m.mask(true)), (std::vector<int32_t>{0, 1}));
  ASSERT_TRUE(m.accept(0));
  EXPECT_EQ(allowed_ids(**m.mask(true)), (std::vector<int32_t>{0, 3, 4}));
  ASSERT_TRUE(m.accept(0));
}

TEST(Grammar, BadSpecificationsAreRefused) {
  const auto status = [](const Specification& s) { return Grammar::compile(s, sample_tokens()).status(); };
  EXPECT_FALSE(status({.kind = Specification::Kind::kChoice, .text = "", .choices = {}}).ok());
  EXPECT_FALSE(status({.kind = Specification::Kind::kChoice, .text = "", .choices = {"a", ""}}).ok());
  EXPECT_FALSE(status({.kind = Specification::Kind::kChoice, .text = "", .choices = {"\xff"}}).ok());
  EXPECT_FALSE(status(regex_of(std::string(kMostSpecificationBytes + 1, 'a'))).ok());
}

TEST(Grammar, RealVocabulary) {
  const auto tokens = real_tokens();
  if (!tokens) GTEST_SKIP() << "no shared tokenizer";
  std::mt19937 rng(6);
  for (const Specification& s : specifications()) {
    const auto grammar = compiled(s, tokens);
    for (int i = 0; i < 3; ++i) {
      const auto text = random_text(grammar, &rng, 60);
      if (!text) continue;
      if (s.kind == Specification::Kind::kJsonSchema || s.kind == Specification::Kind::kJsonObject) {
        EXPECT_TRUE(nlohmann::json::accept(*text)) << *text;
      }
    }
    Matcher m(grammar);
    for (int i = 0; i < 5; ++i) {
      const auto mask = m.mask(true);
      ASSERT_TRUE(mask.ok());
      for (int32_t id = i; id < tokens->vocab_size(); id += 23) {
        Matcher copy = m;
        ASSERT_EQ(copy.accept(id), token_allowed(**mask, id)) << s.text << " token " << i << ": " << id;
      }
      const std::vector<int32_t> ids = allowed_ids(**mask);
      if (ids.empty() || !m.accept(ids[rng() % ids.size()])) break;
    }
  }
}

}  // namespace
}  // namespace invar::grammar
