// Microseconds (processor time) of masks over a vocabulary of 151,936 tokens: Qwen3's where the shared material is there, else
// one made of random pieces. runtime_grammar_bench
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>

#include "runtime/grammar/grammar_samples.h"

namespace invar::grammar {
namespace {

// Of this thread: others on the machine do not count.
double microseconds(const std::function<void()>& f) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
  };
  const double begin = now();
  f();
  return now() - begin;
}

std::shared_ptr<const TokenTexts> made_tokens() {
  std::mt19937 rng(1);
  std::vector<std::string> texts;
  for (int b = 0; b < 256; ++b) texts.push_back(std::string(1, static_cast<char>(b)));
  while (texts.size() < 151'935) {
    std::string t(rng() % 2, ' ');
    for (size_t n = 1 + rng() % 9; n > 0; --n)
      t += static_cast<char>(rng() % 40 == 0 ? "\"{}[],:.\n"[rng() % 9] : 'a' + rng() % 26);
    texts.push_back(std::move(t));
  }
  texts.emplace_back();
  return std::make_shared<const TokenTexts>(std::move(texts), std::vector<std::string>(), std::vector<int32_t>{151'935});
}

// Specifications that mean harm: how long the engine's thread can be held by one mask or token, at worst.
void run_hostile(const char* name, const Specification& s, const std::shared_ptr<const TokenTexts>& tokens) {
  absl::StatusOr<std::shared_ptr<Grammar>> grammar;
  const double compile = microseconds([&] { grammar = Grammar::compile(s, tokens); });
  std::printf("%-34s compile %7.1f ms", name, compile / 1000);
  if (!grammar.ok()) {
    std::printf(" | %s\n", std::string(grammar.status().message()).substr(0, 90).c_str());
    return;
  }
  double worst_mask = 0, worst_accept = 0, sum = 0;
  int masks = 0, refused = 0;
  for (uint32_t answer = 0; answer < 12; ++answer) {
    std::mt19937 rng(answer);
    Matcher m(*grammar);
    for (int i = 0; i < 80; ++i) {
      absl::StatusOr<TokenMask> mask;
      const double took = microseconds([&] { mask = m.mask(true); });
      worst_mask = std::max(worst_mask, took);
      sum += took;
      ++masks;
      if (!mask.ok()) {
        ++refused;
        break;
      }
      const std::vector<int32_t> ids = allowed_ids(**mask);
      if (ids.empty()) break;
      int32_t token = ids[rng() % ids.size()];
      if (answer % 3 == 1) token = ids[0];
      if (answer % 3 == 2)  // the one with most text
        for (size_t k = 0; k < 200; ++k)
          if (const int32_t id = ids[rng() % ids.size()]; tokens->texts[id].size() > tokens->texts[token].size()) token = id;
      worst_accept = std::max(worst_accept, microseconds([&] { m.accept(token); }));
      if (m.ended()) break;
    }
  }
  std::printf(" | %4d masks, %2d of 12 answers refused, mean %7.1f us, worst %6.2f ms, accept %6.2f ms\n", masks, refused,
              sum / masks, worst_mask / 1000, worst_accept / 1000);
}

void run_all_hostile(const std::shared_ptr<const TokenTexts>& tokens) {
  const auto many = [](int count, const std::function<std::string(int)>& one, const char* between) {
    std::string out;
    for (int i = 0; i < count; ++i) out += (i ? between : "") + one(i);
    return out;
  };
  run_hostile("regex (a?b?c?d?){3000}", regex_of("(?:a?b?c?d?){3000}"), tokens);
  run_hostile("regex ([ab]*a[ab]{12}c?)+", regex_of("(?:[ab]*a[ab]{12}c?)+"), tokens);
  run_hostile("regex (.*a.{20})+", regex_of("(.*a.{20})+"), tokens);
  run_hostile("regex (.*e.{9})+", regex_of("(.*e.{9})+"), tokens);
  run_hostile("regex .{0,3000}.{0,3000}e", regex_of(".{0,3000}.{0,3000}e"), tokens);
  run_hostile("regex (\\w{0,60} ?){0,60}", regex_of("(?:\\w{0,60} ?){0,60}"), tokens);
  run_hostile("regex (((a?){50}){50}){10}", regex_of("(((a?){50}){50}){10}"), tokens);
  run_hostile("regex .*w0.*|.*w1.*|... 200",
              regex_of(many(
                  200, [](int i) { return ".*w" + std::to_string(i) + ".*"; }, "|")),
              tokens);
  run_hostile("regex 2000 words in any order",
              regex_of("(?:" +
                       many(
                           2000, [](int i) { return "[a-z]{" + std::to_string(1 + i % 9) + "}x" + std::to_string(i); }, "|") +
                       ")*"),
              tokens);
  run_hostile("regex (([a-z].|)(|){5000})*",
              regex_of("(?:(?:" +
                       many(
                           40, [](int i) { return std::string(1, static_cast<char>('0' + i % 10)) + "."; }, "|") +
                       "|.)(?:|){5000})*"),
              tokens);
  run_hostile("schema anyOf of 300 objects",
              schema_of("{\"anyOf\":[" +
                        many(
                            300,
                            [](int i) {
                              return R"({"type":"object","properties":{"name":{"type":"string"},"k)" + std::to_string(i) +
                                     R"(":{"type":"string"}},"required":["name"]})";
                            },
                            ",") +
                        "]}"),
              tokens);
  run_hostile("schema maxLength 20000", schema_of(R"({"type":"string","maxLength":20000})"), tokens);
  run_hostile("schema 300 maxLengths in anyOf",
              schema_of("{\"anyOf\":[" +
                        many(
                            300, [](int i) { return R"({"type":"string","maxLength":)" + std::to_string(i + 1) + "}"; }, ",") +
                        "]}"),
              tokens);
  run_hostile("schema pattern (.*e.{9})+", schema_of(R"({"type":"string","pattern":"(.*e.{9})+"})"), tokens);
  run_hostile("schema 3000 optional properties",
              schema_of(R"({"type":"object","properties":{)" +
                        many(
                            3000, [](int i) { return "\"p" + std::to_string(i) + R"(":{"type":"string"})"; }, ",") +
                        "}}"),
              tokens);
  run_hostile("ebnf s ::= . s . | empty", ebnf_of("root ::= s\ns ::= [a-z ] s [a-z ] | \"\""), tokens);
  run_hostile("ebnf s ::= s s | [a-z]", ebnf_of("root ::= s\ns ::= [a-z ] s s | [a-z ]"), tokens);
  run_hostile(
      "ebnf 60 palindromes",
      ebnf_of("root ::= s\ns ::= " +
              many(
                  60, [](int i) { return "[a-z] s \"" + std::string(1, static_cast<char>('a' + i % 26)) + "\""; }, " | ") +
              " | \".\""),
      tokens);
  run_hostile("ebnf a chain of 20000 rules",
              ebnf_of(many(
                          20000,
                          [](int i) {
                            return (i ? "r" + std::to_string(i) : std::string("root")) + " ::= r" + std::to_string(i + 1) +
                                   "? [a-z]";
                          },
                          "\n") +
                      "\nr20000 ::= \"x\""),
              tokens);
  run_hostile("ebnf 8000 optional rules in a row",
              ebnf_of("root ::= " +
                      many(
                          8000, [](int) { return std::string("(x | y)?"); }, " ") +
                      "\nx ::= [a-z]+ | \"(\" y \")\"\ny ::= [0-9]+ | \"[\" x \"]\""),
              tokens);
  run_hostile("ebnf characters called one by one",
              ebnf_of("root ::= \"\\\"\" c* \"\\\"\" | \"[\" root \"]\"\nc ::= " +
                      many(
                          220, [](int i) { return "[\\u" + std::to_string(4000 + 2 * i) + "]"; }, " | ") +
                      " | [a-z ]"),
              tokens);
  run_hostile("ebnf nested 40 alternatives deep",
              ebnf_of("root ::= v\nv ::= " +
                      many(
                          40, [](int i) { return "\"(\" v \")" + std::to_string(i) + "\""; }, " | ") +
                      " | [a-z]+"),
              tokens);
}

// Answers under one grammar: the first pays for what is cached, the others are what a server sees.
void run(const char* name, const Specification& s, const std::shared_ptr<const TokenTexts>& tokens) {
  std::shared_ptr<Grammar> grammar;
  const double compile = microseconds([&] { grammar = *Grammar::compile(s, tokens); });
  std::mt19937 rng(2);
  std::printf("%-22s compile %7.0f us", name, compile);
  for (int round = 0; round < 2; ++round) {
    std::vector<double> times;
    double accepting = 0;
    for (int answer = 0; answer < (round ? 20 : 1); ++answer) {
      Matcher m(grammar);
      for (int i = 0; i < 150; ++i) {
        TokenMask mask;
        times.push_back(microseconds([&] {
          const absl::StatusOr<TokenMask> made = m.mask(true);
          mask = made.ok() ? *made : std::make_shared<const std::vector<uint8_t>>();
        }));
        const std::vector<int32_t> ids = allowed_ids(*mask);
        if (ids.empty()) break;
        int32_t token = ids[rng() % ids.size()];
        for (const int32_t id : {'"', ',', ':', '}'})
          if (i % 5 == 4 && token_allowed(*mask, id)) token = id;
        accepting += microseconds([&] { m.accept(token); });
        if (m.ended()) break;
      }
    }
    std::sort(times.begin(), times.end());
    double sum = 0;
    for (const double t : times) sum += t;
    std::printf(" | %s: %5zu masks, mean %6.1f, median %5.1f, 99%% %6.1f, worst %6.0f us, accept %.1f", round ? "warm" : "cold",
                times.size(), sum / static_cast<double>(times.size()), times[times.size() / 2], times[times.size() * 99 / 100],
                times.back(), accepting / static_cast<double>(times.size()));
  }
  std::printf("\n");
}

}  // namespace
}  // namespace invar::grammar

int main() {
  using namespace invar::grammar;
  auto tokens = real_tokens();
  std::printf("%s\n", tokens ? "Qwen3's vocabulary" : "a made vocabulary");
  if (!tokens) tokens = made_tokens();
  run("json object", {.kind = Specification::Kind::kJsonObject, .text = "", .choices = {}}, tokens);
  run("schema",
      schema_of(R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
        "tags":{"type":"array","items":{"type":"string"}},"where":{"type":"object","properties":{"x":{"type":"number"},"y":{"type":"number"}},
        "required":["x","y"]}},"required":["name","age","tags","where"]})"),
      tokens);
  run("schema, maxLength 500",
      schema_of(R"({"type":"object","properties":{"text":{"type":"string","maxLength":500}},"required":["text"]})"), tokens);
  run("recursive schema",
      schema_of(R"({"type":"object","properties":{"v":{"type":"string"},"left":{"anyOf":[{"$ref":"#"},{"type":"null"}]},
        "right":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v","left","right"]})"),
      tokens);
  run("regex", regex_of("[A-Z][a-z]+( [A-Z][a-z]+)*, \\d{4}-\\d{2}-\\d{2}: .*"), tokens);
  run("grammar of arithmetic",
      ebnf_of("root ::= expr\nexpr ::= term (ws [-+] ws term)*\nterm ::= factor (ws [*/] ws factor)*\n"
              "factor ::= [0-9]+ | [a-z]+ | \"(\" ws expr ws \")\"\nws ::= \" \"?"),
      tokens);
  run("grammar of JSON",
      ebnf_of("root ::= object\nvalue ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
              "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
              "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\nstring ::= \"\\\"\" char* \"\\\"\" ws\n"
              "char ::= [^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4})\n"
              "number ::= \"-\"? [0-9]{1,15} (\".\" [0-9]+)? ws\nws ::= [ \\t\\n]?"),
      tokens);
  run("choice", {.kind = Specification::Kind::kChoice, .text = "", .choices = {"positive", "negative", "neutral"}}, tokens);
  run_all_hostile(tokens);
}
