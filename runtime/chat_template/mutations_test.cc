// Thousands of damaged templates and variables, the same ones in every run: each must render or be refused.
// chat_template_fuzz.cc looks further; this runs everywhere.
#include <random>

#include "gtest/gtest.h"
#include "runtime/chat_template/chat_template.h"
#include "runtime/chat_template/template_samples.h"
#include "runtime/tokenizer/utf8.h"

namespace invar {
namespace {

using Json = nlohmann::ordered_json;
using Random = std::mt19937;

size_t below(Random& random, size_t n) { return random() % n; }  // the library's distributions differ between libraries

struct Tally {
  int refused = 0, failed = 0, rendered = 0;
};

void run(const std::string& text, const Json& variables, Tally& tally) {
  const auto parsed = ChatTemplate::parse(text, "mutation");
  if (!parsed.ok()) {
    EXPECT_FALSE(parsed.status().message().empty());
    ++tally.refused;
    return;
  }
  const auto prompt = parsed->render(variables, {});
  if (!prompt.ok()) {
    ++tally.failed;
    return;
  }
  ++tally.rendered;
  ASSERT_EQ(tokenizer::first_invalid_utf8(*prompt), std::string::npos) << text;
}

const std::string& some_sample(Random& random) {
  const auto& samples = jinja::sample_templates();
  return samples[below(random, samples.size())];
}

std::string damaged(std::string text, Random& random) {
  static const std::vector<std::string> kPieces = {"{{ ",
                                                   " }}",
                                                   "{% ",
                                                   " %}",
                                                   "{#",
                                                   "#}",
                                                   "-%}",
                                                   "{%-",
                                                   "(",
                                                   ")",
                                                   "[",
                                                   "]",
                                                   "{",
                                                   "}",
                                                   "'",
                                                   "\"",
                                                   "\\",
                                                   ".",
                                                   ",",
                                                   ":",
                                                   "|",
                                                   "~",
                                                   " ** ",
                                                   " // ",
                                                   " in ",
                                                   " not ",
                                                   " is ",
                                                   " if ",
                                                   " else ",
                                                   "for x in messages",
                                                   "endfor",
                                                   "set y = 1",
                                                   "endset",
                                                   "loop",
                                                   "loop.last",
                                                   "namespace()",
                                                   "range(5)",
                                                   "messages",
                                                   "tools",
                                                   "none",
                                                   "-1",
                                                   "0",
                                                   "99999999999",
                                                   "1e308",
                                                   "1.5",
                                                   "[::-1]",
                                                   "[1:]",
                                                   "| tojson",
                                                   "| list",
                                                   "| map('upper')",
                                                   "| sort",
                                                   "| int",
                                                   ".items()",
                                                   ".split('a')",
                                                   ".format(1)",
                                                   "is defined",
                                                   "\n",
                                                   "\xC3\xA9",
                                                   "\xF0\x9F\x90\x8E",
                                                   "\xFF",
                                                   "{% raw %}",
                                                   "varargs"};
  for (size_t n = 1 + below(random, 4); n > 0; --n) {
    const size_t at = below(random, text.size() + 1);
    switch (below(random, 6)) {
      case 0:
        text.insert(at, kPieces[below(random, kPieces.size())]);
        break;
      case 1:
        text.erase(at, 1 + below(random, 12));
        break;
      case 2:
        text.replace(at, std::min<size_t>(text.size() - at, 1 + below(random, 6)), kPieces[below(random, kPieces.size())]);
        break;
      case 3:
        text.insert(at, text.substr(below(random, text.size() + 1), below(random, 40)));
        break;
      case 4: {
        const std::string& other = some_sample(random);
        text.insert(at, other.substr(below(random, other.size()), below(random, 60)));
        break;
      }
      case 5:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
    }
  }
  return text;
}

Json odd_value(Random& random) {
  static const Json kOdd = Json::parse(
      R"([null, true, false, 0, -1, 1.5, 1e308, 18446744073709551615, "", " ", "a", "system", "é🐎", [], {}, [[]], [1, "a", null], {"role": "user"}])");
  return kOdd[below(random, kOdd.size())];
}

Json damaged_variables(Random& random) {
  Json all = jinja::sample_variables();
  for (size_t n = 1 + below(random, 3); n > 0; --n) {
    Json* at = &all;
    while (at->is_structured() && !at->empty() && (at == &all || below(random, 4) > 0)) {
      auto next = at->begin();
      std::advance(next, static_cast<std::ptrdiff_t>(below(random, at->size())));
      at = &*next;
    }
    *at = odd_value(random);
  }
  return all;
}

TEST(Mutations, DamagedTemplates) {
  Random random(1);
  Tally tally;
  const Json variables = jinja::sample_variables();
  for (int i = 0; i < 20000; ++i) run(damaged(some_sample(random), random), variables, tally);
  EXPECT_GT(tally.refused, 3000);
  EXPECT_GT(tally.failed, 300);
  EXPECT_GT(tally.rendered, 500);
}

TEST(Mutations, DamagedVariables) {
  Random random(2);
  Tally tally;
  for (int i = 0; i < 10000; ++i) run(some_sample(random), damaged_variables(random), tally);
  EXPECT_GT(tally.failed, 300);
  EXPECT_GT(tally.rendered, 1000);
}

TEST(Mutations, BothDamaged) {
  Random random(3);
  Tally tally;
  for (int i = 0; i < 10000; ++i) run(damaged(some_sample(random), random), damaged_variables(random), tally);
  EXPECT_GT(tally.rendered, 300);
}

}  // namespace
}  // namespace invar
