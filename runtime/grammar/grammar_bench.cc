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
        times.push_back(microseconds([&] { mask = *m.mask(true); }));
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
  run("choice", {.kind = Specification::Kind::kChoice, .text = "", .choices = {"positive", "negative", "neutral"}}, tokens);
}
