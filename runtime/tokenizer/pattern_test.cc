// Patterns of tokenizer.json find what Oniguruma finds. Expected matches are those of Hugging Face tokenizers 0.22.2.
#include "runtime/tokenizer/pattern.h"

#include <ctime>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/pattern_dialect.h"

namespace invar::tokenizer {
namespace {

std::vector<std::string> matches(const Pattern& pattern, std::string_view text) {
  std::vector<Span> spans;
  const auto status = pattern.find_all(text, MatchBudget(text.size()), spans);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::string> found;
  uint32_t end = 0;
  for (const Span& span : spans) {
    EXPECT_EQ(span.begin, end);  // no gaps
    end = span.end;
    if (span.match && span.begin < span.end) found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  EXPECT_EQ(end, text.size());
  return found;
}

TEST(Pattern, FindsWhatOnigurumaFinds) {
  struct Case {
    const char* pattern;
    std::string text;
    std::vector<std::string> found;
  };
  const Case cases[] = {
      {R"re(\s+)re", " \u0085\u180ea\u3000", {" \u0085", "\u3000"}},
      {R"re(\w+)re", "a\u0301b-\u00bdx_\u203f\u00e9", {"a\u0301b", "\u00bdx_\u203f\u00e9"}},
      {R"re([\w]+)re", "x\u00bd", {"x"}},
      {R"re(\b\w)re", "ab cd", {"a", "c"}},
      {R"re(\B.)re", "ab cd", {"b", "d"}},
      {R"re(\h+)re", "xBEEFg", {"BEEF"}},
      {R"re(\v)re", "a\v\nb", {"\v"}},
      {R"re(\p{Han}+)re", "\u3006\u5b57a\u30fb", {"\u5b57"}},
      {R"re(\p{N}{1,3})re", "12345", {"123", "45"}},
      {R"re(\p{N}{1,3}+)re", "12345 6", {"12345", "6"}},
      {R"re(a{2}?b?)re", "aaab", {"aa", "b"}},
      {R"re(a{,2})re", "aaab", {"aa", "a"}},
      {R"re(a{x})re", "a{x}b", {"a{x}"}},
      {R"re([a-z&&[^aeiou]]+)re", "hello world", {"h", "ll", "w", "rld"}},
      {R"re([^a-z&&\S]+)re", "ab1\u00e9 c", {"1\u00e9 "}},
      {R"re([\p{Han}[a-c]]+)re", "ab\u5b57d", {"ab\u5b57"}},
      {R"re((?i:'s|'t))re", "'S'T'\u017f", {"'S", "'T", "'\u017f"}},
      {R"re((?i)k+)re", "kK\u212a", {"kK\u212a"}},
      {R"re((?m:a.b))re", "a\nb", {"a\nb"}},
      {R"re(a.b)re", "a\nb a-b", {"a-b"}},
      {R"re(^.)re", "ab\ncd", {"a", "c"}},
      {R"re(.$)re", "ab\ncd\n", {"b", "d"}},
      {R"re((?<=a)b)re", "abb", {"b"}},
      {R"re((?>a+)b)re", "aab", {"aab"}},
      {R"re(a++b|a)re", "aab", {"aab"}},
      {R"re(\p{^L}+)re", "ab12", {"12"}},
      {R"re(\P{L}+)re", "ab12", {"12"}},
      {R"re([\-\]a]+)re", "x-]a", {"-]a"}},
      {R"re([a-]+)re", "x-a", {"-a"}},
      {R"re(\x41\x{e9}\u3000)re", "A\u00e9\u3000", {"A\u00e9\u3000"}},
      {R"re((a)(b))re", "abab", {"ab", "ab"}},
      {R"re(\A.|.\z)re", "abc", {"a", "c"}},
      {R"re(x*)re", "axb", {"x"}},
      {R"re([\W]+)re", "a\u00bd b", {"\u00bd "}},
      {R"re([\S])re", "\u180e x", {"\u180e", "x"}},
      {R"re(\p{Letter}|\p{Decimal_Number})re", "a1-", {"a", "1"}},
      {R"re(a|b(?=c)|\p{Lu}\p{Ll}*)re", "abcBdE", {"a", "b", "Bd", "E"}},
      {R"re((?:a|b)+?c)re", "abc", {"abc"}},
      {R"re([^\r\n]+)re", "a\r\nb", {"a", "b"}},
      {R"re(\d+)re", "1\u0663x", {"1\u0663"}},
      {R"re([é-ü]+)re", "a\u00e9\u00edz", {"\u00e9\u00ed"}},
  };
  for (const Case& test : cases) {
    const auto pattern = Pattern::regex(test.pattern);
    ASSERT_TRUE(pattern.ok()) << test.pattern << " " << pattern.status();
    EXPECT_EQ(matches(**pattern, test.text), test.found) << test.pattern;
  }
}

TEST(Pattern, RefusesWhatItCannotMatchAlike) {
  for (const char* pattern : {R"(\K)",
                              R"(\G)",
                              R"(\R)",
                              R"(\X)",
                              R"(\1)",
                              R"((?<name>a))",
                              R"((?x) a)",
                              R"((?s).)",
                              R"((?~a))",
                              R"((?(1)a))",
                              R"((*UTF))",
                              R"(a(?i)b)",
                              R"([[:alpha:]])",
                              R"(\p{Xan})",
                              R"(\p{L&})",
                              R"(\p{NoSuchScript})",
                              R"(\p{bidi_class=AL})",
                              R"([\b])",
                              R"(\Qa\E)",
                              R"((?#c))"}) {
    EXPECT_EQ(Pattern::regex(pattern).status().code(), absl::StatusCode::kUnimplemented) << pattern;
  }
  for (const char* pattern :
       {"(",           ")",         "a)",    "[",     "[]",    "[^]", "[a",   "[z-a]", "[a-\\d]",  "*",      "a|*",   "{1}", "\\",
        "\\x{110000}", "\\x{d800}", "\\xzz", "\\xe9", "\\u12", "\\p", "\\p{", "\\pL",  "(?<=a+)b", "a{5,2}", "[a&&]", "(?i"}) {
    EXPECT_FALSE(Pattern::regex(pattern).ok()) << pattern;
  }
  EXPECT_FALSE(Pattern::regex(std::string(20000, 'a')).ok());
  EXPECT_FALSE(Pattern::regex(std::string(100, '(') + "a" + std::string(100, ')')).ok());
  EXPECT_FALSE(Pattern::regex(std::string(100, '[') + "a" + std::string(100, ']')).ok());
  EXPECT_FALSE(Pattern::regex("(((a{1,1000}){1,1000}){1,1000}){1,1000}").ok());
}

TEST(Pattern, StringsAreNotPatterns) {
  EXPECT_EQ(matches(*Pattern::string("a.b"), "a.b axb a.ba.b"), (std::vector<std::string>{"a.b", "a.b", "a.b"}));
  EXPECT_EQ(matches(*Pattern::string("aa"), "aaaaa"), (std::vector<std::string>{"aa", "aa"}));
}

TEST(Pattern, EmptyMatchesEnd) {
  std::vector<Span> spans;
  const auto pattern = Pattern::regex("x*");
  ASSERT_TRUE((*pattern)->find_all("axxé", MatchBudget(4), spans).ok());
  std::vector<std::tuple<uint32_t, uint32_t, bool>> got;
  for (const Span& span : spans) got.emplace_back(span.begin, span.end, span.match);
  EXPECT_EQ(got, (std::vector<std::tuple<uint32_t, uint32_t, bool>>{
                     {0, 0, true}, {0, 1, false}, {1, 3, true}, {3, 5, false}, {5, 5, true}}));
}

// Patterns of exponential and of quadratic cost must end with an error, and soon.
TEST(Pattern, HostilePatternsEnd) {
  for (const char* hostile : {"(a+)+$", "(a|a)*b", "(?:a*)*b|c", "((a*)*)*d", "(?=(a+)+b)a", "(a|aa)+$"}) {
    const auto pattern = Pattern::regex(hostile);
    ASSERT_TRUE(pattern.ok()) << hostile;
    const std::string text = std::string(5000, 'a') + "!";
    const auto begin = std::clock();  // processor time: the host may be busy
    std::vector<Span> spans;
    const auto status = (*pattern)->find_all(text, MatchBudget(text.size()), spans);
    EXPECT_LT((std::clock() - begin) / CLOCKS_PER_SEC, 20) << hostile;
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
  }
  const auto exponential = Pattern::regex("(a+)+$");
  std::vector<Span> spans;
  const auto status = (*exponential)->find_all(std::string(40, 'a') + "!", MatchBudget(41), spans);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("(a+)+$"));
}

}  // namespace
}  // namespace invar::tokenizer
