// Grammars: against PCRE2's recursive patterns, against JSON's own reader, as
// users write them, and what is refused.
#include <ctime>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/grammar/grammar_samples.h"
#include "runtime/grammar/pcre_judge.h"

namespace invar::grammar {
namespace {

std::shared_ptr<Grammar> compiled(const std::string &text) {
  const auto grammar = Grammar::compile(ebnf_of(text), sample_tokens());
  EXPECT_TRUE(grammar.ok()) << text << ": " << grammar.status();
  return grammar.ok() ? *grammar : nullptr;
}

struct Example {
  const char *grammar;
  std::vector<std::string> good, bad;
};

TEST(Ebnf, AsUsersWriteIt) {
  const std::vector<Example> examples = {
      // vLLM's documentation.
      {"root ::= select_statement\n\nselect_statement ::= \"SELECT \" column "
       "\" from \" table \" where \" condition\n\n"
       "column ::= \"col_1 \" | \"col_2 \"\n\ntable ::= \"table_1 \" | "
       "\"table_2 \"\n\ncondition ::= column \"= \" number\n\n"
       "number ::= \"1 \" | \"2 \"\n",
       {"SELECT col_1  from table_2  where col_2 = 1 "},
       {"", "SELECT", "SELECT col_1  from table_2  where col_2 = 3 ", "SELECT col_1  from table_2  where col_2 = 1 2 "}},
      // As llama.cpp's: comments, groups over several lines, classes with
      // escapes, counts.
      {"# moves\nroot ::= \"1. \" move \" \" move \"\\n\" ([1-9] [0-9]? \". \" "
       "move \" \" move \"\\n\")+\n"
       "move ::= (pawn | nonpawn | castle) [+#]?\n# below\nnonpawn ::= [NBKQR] "
       "[a-h]? [1-8]? \"x\"? [a-h] [1-8]\n"
       "pawn ::= ([a-h] \"x\")? [a-h] [1-8] (\"=\" [NBKQR])?\ncastle ::= "
       "\"O-O\" \"-O\"?",
       {"1. e4 e5\n2. Nf3 Nc6\n", "1. exd5 O-O-O+\n12. e8=Q Ra1xa8#\n"},
       {"1. e4 e5\n", "1. e9 e5\n2. Nf3 Nc6\n", "e4"}},
      // Alternatives on lines of their own, as xgrammar takes them; a group may
      // stand on several lines.
      {"root ::= (\n  \"a\" # one\n  | \"b\"\n)\n  | rest\nrest ::= \"c\" "
       "[x-z]{2,3}\n",
       {"a", "b", "cxy", "cxyz"},
       {"cx", "ab", "cxyzx"}},
      // Brackets to any depth, with two kinds of them.
      {"root ::= s\ns ::= (\"(\" s \")\" | \"[\" s \"]\")*",
       {"", "()[]", "([[]()])", std::string(300, '(') + std::string(300, ')')},
       {"(", "(]", "())", "([)]", std::string(300, '(') + std::string(299, ')')}},
      {"root ::= s\ns ::= \"a\" s \"b\" | \"ab\"", {"ab", "aaabbb"}, {"", "aabbb", "abab"}},
      // Beginning with itself, directly.
      {"root ::= expr\nexpr ::= expr [-+] term | term\nterm ::= term \"*\" "
       "factor | factor\nfactor ::= [0-9]+ | \"(\" expr \")\"",
       {"1", "1+2*3", "(1-2)*(3+4)-5", "((((7))))"},
       {"", "+1", "1+", "1**2", "(1", "1 + 2"}},
      {"root ::= root \"x\" | root | \"y\"", {"y", "yxxx"}, {"", "x", "yy"}},
      // Alternatives that begin alike: with a stack for each they would
      // multiply with every bracket.
      {"root ::= e\ne ::= \"(\" e \")\" | \"(\" e \",\" e \")\" | \"(\" e "
       "\";\" e \")\" | [a-z]",
       {"a", "(a,b)", std::string(60, '(') + "a" + std::string(59, ')') + ";b)"},
       {"(a", "(a,b,c)", std::string(60, '(') + "a" + std::string(59, ')')}},
      // Escapes, characters beyond ASCII, classes that negate, any character.
      {"root ::= \"\\\"\\\\\\n\\x41\\u00e9\\U0001F600\" [^a-z\\]\\n-] . "
       "\"\xe2\x82\xac\"",
       {"\"\\\nA\xc3\xa9\xf0\x9f\x98\x80Z\n\xe2\x82\xac", "\"\\\nA\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9\xc3\xa9\xe2\x82\xac"},
       {"\"\\\nA\xc3\xa9\xf0\x9f\x98\x80-x\xe2\x82\xac", "\"\\\nA\xc3\xa9\xf0\x9f\x98\x80]x\xe2\x82\xac"}},
      {"root ::= \"\" | [ab]{3} | [c-]{1,} \"d\"{0}", {"", "aba", "c-c", "-"}, {"ab", "abab", "d"}},
      {"root::=a-1 b_2\na-1::=\"x\"?\nb_2::=\"y\"*", {"", "x", "xyy", "y"}, {"yx", "xx"}},
      // Tails that call on and on do not make the stack deeper.
      {"root ::= item (\",\" root)?\nitem ::= [a-z]",
       {std::string("a") +
        [] {
          std::string s;
          for (int i = 0; i < 5000; ++i) s += ",a";
          return s;
        }()},
       {"a,", ",a"}},
  };
  std::mt19937 rng(1);
  for (const Example &e : examples) {
    const auto grammar = compiled(e.grammar);
    ASSERT_TRUE(grammar);
    for (const std::string &text : e.good) EXPECT_EQ(refusal(grammar, text, &rng), "") << e.grammar << "\n" << text.substr(0, 80);
    for (const std::string &text : e.bad) EXPECT_NE(refusal(grammar, text, &rng), "") << e.grammar << "\n" << text.substr(0, 80);
  }
}

// A text with more readings than there are atoms costs a few places for each
// character.
TEST(Ebnf, AmbiguousGrammarsAreRead) {
  std::mt19937 rng(9);
  std::string text;
  for (int i = 0; i < 60; ++i) text += "ab"[rng() % 2];
  for (const char *grammar : {"root ::= s\ns ::= s s | \"a\" | \"b\"", "root ::= s\ns ::= [ab] s s | [ab] s | [ab]",
                              "root ::= p\np ::= [ab] p \"a\" | [ab] p \"b\" | [ab]?"}) {
    const auto made = compiled(grammar);
    ASSERT_TRUE(made);
    EXPECT_EQ(refusal(made, text, &rng), "") << grammar;
    EXPECT_NE(refusal(made, text + "c", &rng), "") << grammar;
  }
}

constexpr const char *kJson =
    "root ::= object\nvalue ::= object | array | string | number | (\"true\" | "
    "\"false\" | \"null\") ws\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws "
    "value)* )? \"}\" ws\n"
    "array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] "
    "| \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
    "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] "
    "[-+]? [0-9]{1,2})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

TEST(Ebnf, JsonGrammarMakesJson) {
  const auto grammar = compiled(kJson);
  ASSERT_TRUE(grammar);
  std::mt19937 rng(2);
  int finished = 0;
  for (int i = 0; i < 60; ++i) {
    const auto text = random_text(grammar, &rng);
    if (!text) continue;
    ++finished;
    // Half of a surrogate pair is what the grammar allows and the reader does
    // not.
    ASSERT_TRUE(text->find("\\u") != std::string::npos || nlohmann::json::parse(*text, nullptr, false).is_object()) << *text;
  }
  EXPECT_GT(finished, 20);
  for (const char *text : {R"({"a": [1, -2.5e-3, {"b": null}], "c": "\u00e9\n\\"})", "{}", "{\n  \"x\": true\n}"})
    EXPECT_EQ(refusal(grammar, text, &rng), "") << text;
  for (const char *text : {"[1]", "{\"a\"}", "{\"a\": 01}", "{\"a\": \"\n\"}"})
    EXPECT_NE(refusal(grammar, text, &rng), "") << text;
}

// A random grammar, and the same as a recursive pattern. Rules begin with a
// character or with a later rule, so that PCRE2 can.
struct Pair {
  std::string ebnf, pattern;
};
struct Piece {
  std::string ebnf, pattern;
};
Piece random_piece(std::mt19937 *rng, int depth, int rules, int first_rule) {
  const auto rule = [&](int r) { return Piece{"r" + std::to_string(r), "(?&r" + std::to_string(r) + ")"}; };
  const auto atom = [&]() -> Piece {
    static const Piece all[] = {{"\"a\"", "a"},   {"\"b\"", "b"},     {"[ab]", "[ab]"},
                                {"[^a]", "[^a]"}, {".", "[\\s\\S]"},  {"\"\xc3\xa9\"", "\xc3\xa9"},
                                {"\"ab\"", "ab"}, {"[b-c]", "[b-c]"}, {"\"c\"", "c"}};
    return all[(*rng)() % std::size(all)];
  };
  if (depth == 0) {
    if (first_rule < rules && (*rng)() % 3 == 0) return rule(first_rule + static_cast<int>((*rng)() % (rules - first_rule)));
    return atom();
  }
  switch ((*rng)() % 5) {
    case 0: {
      const Piece a = random_piece(rng, depth - 1, rules, first_rule), b = random_piece(rng, depth - 1, rules, first_rule);
      return {"(" + a.ebnf + " | " + b.ebnf + ")", "(?:" + a.pattern + "|" + b.pattern + ")"};
    }
    case 1: {
      static const char *const counts[] = {"*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}"};
      const char *count = counts[(*rng)() % std::size(counts)];
      // Something before, so that what is repeated may be any rule.
      const Piece a = atom(), inner = random_piece(rng, depth - 1, rules, first_rule);
      return {a.ebnf + " (" + inner.ebnf + ")" + count, a.pattern + "(?:" + inner.pattern + ")" + count};
    }
    case 2: {
      const Piece a = atom(), inside = random_piece(rng, depth - 1, rules, 0), z = atom();
      return {a.ebnf + " " + inside.ebnf + " " + z.ebnf, a.pattern + inside.pattern + z.pattern};
    }
    default: {
      const Piece a = random_piece(rng, depth - 1, rules, first_rule), b = random_piece(rng, depth - 1, rules, first_rule);
      return {a.ebnf + " " + b.ebnf, a.pattern + b.pattern};
    }
  }
}
Pair random_grammar(std::mt19937 *rng) {
  const int rules = 1 + static_cast<int>((*rng)() % 3);
  Pair out;
  std::string defined;
  for (int r = 0; r < rules; ++r) {
    const Piece a = random_piece(rng, 2, rules, r + 1), b = random_piece(rng, 1, rules, r + 1);
    out.ebnf += "r" + std::to_string(r) + " ::= " + a.ebnf + " | " + b.ebnf + "\n";
    defined += "(?<r" + std::to_string(r) + ">" + a.pattern + "|" + b.pattern + ")";
  }
  out.ebnf = "root ::= r0\n" + out.ebnf;
  out.pattern = "(?(DEFINE)" + defined + ")(?&r0)";
  return out;
}

TEST(Ebnf, RandomGrammarsAgreeWithPcre) {
  std::mt19937 rng(5);
  const std::vector<std::string> alphabet = {"a", "b", "c", "\xc3\xa9", "a", "b", "ab"};
  int matches = 0, others = 0, drawn = 0, recursive = 0, complex = 0;
  for (int trial = 0; trial < 500; ++trial) {
    const Pair p = random_grammar(&rng);
    const auto grammar = Grammar::compile(ebnf_of(p.ebnf), sample_tokens());
    if (!grammar.ok()) {  // rules that never end
      ASSERT_NE(std::string(grammar.status().message()).find("no text"), std::string::npos) << p.ebnf << grammar.status();
      continue;
    }
    recursive += p.ebnf.find(" r0") != std::string::npos;
    for (int i = 0; i < 15; ++i) {
      std::string text;
      for (size_t n = rng() % 8; n > 0; --n) text += alphabet[rng() % alphabet.size()];
      const std::optional<bool> want = pcre_judges(p.pattern, text);
      if (!want) continue;
      const std::string refused = refusal(*grammar, text, &rng);
      if (refused.find("too complex") != std::string::npos) {
        ++complex;
        break;
      }
      ASSERT_EQ(refused.empty(), *want) << p.ebnf << p.pattern << " text \"" << text << "\"";
      (*want ? matches : others)++;
    }
    if (const auto text = random_text(*grammar, &rng, 40)) {
      const std::optional<bool> good = pcre_judges(p.pattern, *text);
      ASSERT_TRUE(good.value_or(true)) << p.ebnf << " drew \"" << *text << "\"";
      drawn += good.has_value();
    }
  }
  EXPECT_GT(matches, 300);
  EXPECT_GT(others, 300);
  EXPECT_GT(drawn, 100);
  EXPECT_GT(recursive, 50);
  EXPECT_EQ(complex, 0) << "grammars that may be read in very many ways";
}

TEST(Ebnf, WhatIsWrongIsRefusedByNameAndPlace) {
  const std::pair<std::string, const char *> cases[] = {
      {"", "has no rule"},
      {"start: \"a\"", "Lark"},
      {"main ::= \"a\"", "no rule root"},
      {"root ::= a", "line 1, column 10: the rule a is used and not defined"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: the rule root is defined twice"},
      {"root ::= \"a", "column 10: a \" that is not closed"},
      {"root ::= [a", "column 10: a [ that is not closed"},
      {"root ::= [z-a]", "range"},
      {"root ::= []", "an empty class"},
      {"root ::= (\"a\"", "column 10: a ( that is not closed"},
      {"root ::= \"a\")", "an unmatched )"},
      {"root ::= * \"a\"", "a repetition of nothing"},
      {"root ::= \"a\"{2,1}", "out of order"},
      {"root ::= \"a\"{x}", "begins none of {m}"},
      {"root ::= \"a\"{70000}", "65535"},
      {"root ::= \"\\q\"", "an escape that is not supported"},
      {"root ::= \"\\ud800\"", "no character"},
      {"root ::= \"\\x4\"", "no character"},
      {"root ::= 'a'", "single quotes"},
      {"root ::= /a/", "guided_regex"},
      {"root ::= <think>", "tokens"},
      {"root ::= \"a\" (?= \"b\")", "lookahead"},
      {"root ::= TagDispatch((\"a\", b))", "TagDispatch(...) is not supported"},
      {"root ::= $", "\"$\" begins nothing"},
      {"root ::= \xc3\xa9", "\"\xc3\xa9\" begins nothing"},
      {"root ::= a\na ::= b\nb ::= a \"x\"", "refers to itself"},
      {"root ::= a\na ::= c? b\nb ::= a \"x\" | \"y\"\nc ::= \"z\"", "refers to itself"},
      {"root ::= root", "rule root refers to itself"},
      {"root ::= a\na ::= \"x\" a", "no text"},
      {"root ::= \"a\"{1000}{1000}", "too large"},
      {"\"a\"", "has no rule"},
      {"root ::= \"a\" ::= \"b\"", "\":\" begins nothing"},
      {"::= \"a\"", "a rule (name ::= ...) is wanted"},
      {"root ::= \"\xff\"", "UTF-8"},
      {"root ::= " + std::string(5000, '('), "nested deeper"}};
  for (const auto &[text, wanted] : cases) {
    const auto grammar = Grammar::compile(ebnf_of(text), sample_tokens());
    ASSERT_FALSE(grammar.ok()) << text;
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(grammar.status().message()).find(wanted), std::string::npos) << text << ": " << grammar.status();
  }
  // The rule that is on the circle, not one on the way to it.
  const auto circle = Grammar::compile(ebnf_of("root ::= x\nx ::= y\ny ::= z \"1\" | \"2\"\nz ::= y | \"3\""), sample_tokens());
  EXPECT_TRUE(circle.status().message().find("rule y ") == 0 || circle.status().message().find("rule z ") == 0)
      << circle.status();
}

// Many rules and long chains of them are read in time that grows with their
// length.
TEST(Ebnf, CompilingHostileGrammarsIsQuick) {
  const auto seconds = [](const std::string &text) {
    const std::clock_t begin = std::clock();
    Grammar::compile(ebnf_of(text), sample_tokens()).status().IgnoreError();
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  std::string chain = "root ::= r0", wide = "root ::= ", names, doubling = "root ::= d0\n";
  for (int i = 0; i < 30000; ++i) {
    chain += "\nr" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "?";
    wide += (i ? " | " : "") + std::string("\"a\" r \"") + std::to_string(i) + "\"";
    names += "n" + std::to_string(i) + " ";
  }
  for (int i = 0; i < 60; ++i)
    doubling += "d" + std::to_string(i) + " ::= d" + std::to_string(i + 1) + " d" + std::to_string(i + 1) + "\n";
  EXPECT_LT(seconds(chain + "\nr30000 ::= \"x\""), 3);
  EXPECT_LT(seconds(wide + "\nr ::= \"(\" root \")\" | \"x\""), 3);
  EXPECT_LT(seconds("root ::= " + names), 3);
  EXPECT_LT(seconds(doubling + "d60 ::= \"x\""), 3);
  EXPECT_LT(seconds("root ::= " + std::string(200'000, '"')), 3);
  EXPECT_LT(seconds("root ::= \"a\"" + std::string(500'000, '\n') + "#"), 3);
}

}  // namespace
}  // namespace invar::grammar
