// Regular expressions against PCRE2: what is drawn matches, what matches can be drawn, and what is not supported is refused by
// name.
#include "gtest/gtest.h"
#include "runtime/grammar/grammar_samples.h"
#include "runtime/grammar/pcre_judge.h"

namespace invar::grammar {
namespace {

bool pcre_matches(const std::string& pattern, const std::string& text) {
  const std::optional<bool> judged = pcre_judges(pattern, text);
  EXPECT_TRUE(judged.has_value()) << pattern;
  return judged.value_or(false);
}

std::shared_ptr<Grammar> compiled(const std::string& pattern) {
  const auto grammar = Grammar::compile(regex_of(pattern), sample_tokens());
  EXPECT_TRUE(grammar.ok()) << pattern << ": " << grammar.status();
  return grammar.ok() ? *grammar : nullptr;
}

TEST(Regex, TextsDrawnMatch) {
  std::mt19937 rng(3);
  for (const std::string pattern : {"abc",
                                    "a|bc|",
                                    "[a-c]+x?",
                                    "(ab|a)*b",
                                    "\\d{3}-\\d{4}",
                                    "[^\"]*",
                                    ".{2,5}",
                                    "\\w+@\\w+\\.com",
                                    "(?:yes|no)(?:, (?:yes|no)){0,3}",
                                    "[\\u00e9\\u20ac-\\u20af]+",
                                    "[^a-z\\n]{1,4}",
                                    "\\x{1F600}+|\xc3\xa9",
                                    "^a+$",
                                    "^(?:a|^b)c$",
                                    "(^a|b$|c)+",
                                    "(?:a?){10}a{3}",
                                    "x*?y+?",
                                    "(?<word>\\w{2,})\\s\\S",
                                    "[]",
                                    "\\[[\\]\\-a]+\\]",
                                    "a{0}b",
                                    "(a{1,3}){2,}",
                                    "[\\d\\s]+",
                                    "\\W\\D",
                                    "\\t\\r\\n\\f\\v\\0",
                                    "(|a)(|b)(|c)$",
                                    "\\/\\.\\*"}) {
    if (pattern == "[]") continue;
    const auto grammar = compiled(pattern);
    ASSERT_TRUE(grammar);
    int finished = 0;
    for (int i = 0; i < 30; ++i) {
      const auto text = random_text(grammar, &rng, 200);
      if (!text) continue;
      ++finished;
      ASSERT_TRUE(pcre_matches(pattern, *text)) << pattern << " does not match \"" << *text << "\"";
    }
    EXPECT_GT(finished, 0) << pattern;
  }
}

// A random pattern of the supported subset, and texts that are often near to what it matches.
std::string random_pattern(std::mt19937* rng, int depth) {
  const auto pick = [&](auto... options) {
    const std::string list[] = {options...};
    return list[(*rng)() % sizeof...(options)];
  };
  if (depth == 0)
    return pick("a", "b", "c", "[ab]", "[^a]", ".", "\\d", "\\w", "\xc3\xa9", "[a\xc3\xa9-\xe2\x82\xac]", "\\x41", "[^\\W\\d]",
                "$", "^");
  switch ((*rng)() % 6) {
    case 0:
      return "(?:" + random_pattern(rng, depth - 1) + "|" + random_pattern(rng, depth - 1) + ")";
    case 1:
      return "(" + random_pattern(rng, depth - 1) + ")" + pick("*", "+", "?", "{2}", "{1,3}", "{0,2}?", "{2,}");
    case 2:
      return random_pattern(rng, depth - 1);
    default:
      return random_pattern(rng, depth - 1) + random_pattern(rng, depth - 1);
  }
}

TEST(Regex, RandomPatternsAgreeWithPcre) {
  std::mt19937 rng(4);
  const std::vector<std::string> alphabet = {"a", "b", "c", "1", "A", "\xc3\xa9", "\n", "_", "\xe2\x82\xac"};
  int matches = 0, compared = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const std::string pattern = random_pattern(&rng, 1 + static_cast<int>(rng() % 4));
    const auto grammar = Grammar::compile(regex_of(pattern), sample_tokens());
    if (!grammar.ok()) {  // an anchor in a place where nothing can match
      ASSERT_NE(std::string(grammar.status().message()).find("no text"), std::string::npos)
          << pattern << ": " << grammar.status();
      continue;
    }
    for (int i = 0; i < 20; ++i) {
      std::string text;
      for (size_t n = rng() % 7; n > 0; --n) text += alphabet[rng() % alphabet.size()];
      const bool want = pcre_matches(pattern, text);
      ASSERT_EQ(refusal(*grammar, text, &rng).empty(), want) << "pattern " << pattern << " text \"" << text << "\"";
      matches += want;
      ++compared;
    }
    if (const auto text = random_text(*grammar, &rng, 60)) {
      ASSERT_TRUE(pcre_matches(pattern, *text)) << pattern << " does not match \"" << *text << "\"";
    }
  }
  EXPECT_GT(matches, 500) << "of " << compared;
  EXPECT_GT(compared - matches, 500);
}

TEST(Regex, WhatIsNotSupportedIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {{"a(?=b)", "lookahead"},
                                                       {"(?!a)b", "lookahead"},
                                                       {"(?<=a)b", "lookbehind"},
                                                       {"(?<!a)b", "lookbehind"},
                                                       {"(a)\\1", "backreferences"},
                                                       {"(?P=x)", "backreferences"},
                                                       {"\\k<x>", "backreferences"},
                                                       {"(?i)a", "inline flags"},
                                                       {"(?>a)", "atomic"},
                                                       {"a++", "possessive"},
                                                       {"\\bword\\b", "word boundaries"},
                                                       {"\\p{L}", "Unicode properties"},
                                                       {"[[:alpha:]]", "POSIX"},
                                                       {"\\Aa", "anchors"},
                                                       {"a**", "quantifier"},
                                                       {"*a", "nothing before"},
                                                       {"(a", "not closed"},
                                                       {"a)", "unmatched"},
                                                       {"[a", "not closed"},
                                                       {"a{2,1}", "out of order"},
                                                       {"a{99999}", "65535"},
                                                       {"[z-a]", "range"},
                                                       {"\\", "at the end"},
                                                       {"a{x}", "no quantifier"},
                                                       {"\\u12", "no character"},
                                                       {"\\xd", "no character"},
                                                       {"[a-\\d]", "range"},
                                                       {"(?(1)a)", "conditional"},
                                                       {"[]a]", "empty class"},
                                                       {"\\ud800", "no character"},
                                                       {"\\q", "not supported"},
                                                       {"(*FAIL)", "verbs"},
                                                       {"$a", "no text"},
                                                       {"a^", "no text"},
                                                       {"(a{1000}){1000}", "too large"},
                                                       {"\xff", "UTF-8"}};
  for (const auto& [pattern, wanted] : cases) {
    const auto grammar = Grammar::compile(regex_of(pattern), sample_tokens());
    ASSERT_FALSE(grammar.ok()) << pattern;
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(grammar.status().message()).find(wanted), std::string::npos) << pattern << ": " << grammar.status();
  }
  const auto deep = Grammar::compile(regex_of(std::string(5000, '(')), sample_tokens());
  EXPECT_FALSE(deep.ok());
}

TEST(Regex, TooManyWaysToGoOnIsAnErrorAndNotAHang) {
  // Each byte may be in any of the copies: thousands of places at once.
  const auto grammar = Grammar::compile(regex_of("(?:a?b?c?d?){3000}"), sample_tokens());
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  Matcher m(*grammar);
  const auto mask = m.mask(true);
  ASSERT_FALSE(mask.ok());
  EXPECT_EQ(mask.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(CodePoints, SequencesSpellExactlyTheSet) {
  std::mt19937 rng(5);
  for (int trial = 0; trial < 200; ++trial) {
    CodePointSet set;
    for (size_t i = 0; i < 1 + rng() % 3; ++i) {
      const char32_t first = rng() % 0x110000 >> rng() % 21;
      set.add(first, first + (rng() % 0x20000 >> rng() % 17));
    }
    const auto sequences = utf8_sequences(trial % 2 ? set : set.complement());
    for (int i = 0; i < 200; ++i) {
      char32_t c = rng() % 0x110000 >> rng() % 21;
      if (i % 2 && !set.empty()) {
        const CodePointRange r = set.ranges()[rng() % set.ranges().size()];
        c = i % 4 == 1 ? r.first + static_cast<char32_t>(rng() % 3) - 1 : r.last + static_cast<char32_t>(rng() % 3) - 1;
      }
      if (c > kLastCodePoint || (c >= 0xd800 && c < 0xe000)) continue;
      std::string bytes;
      if (c < 0x80)
        bytes = {static_cast<char>(c)};
      else if (c < 0x800)
        bytes = {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
      else if (c < 0x10000)
        bytes = {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
      else
        bytes = {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
                 static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
      const auto fits = [&](const std::vector<ByteRange>& s) {
        bool good = s.size() == bytes.size();
        for (size_t k = 0; good && k < s.size(); ++k)
          good = s[k].low <= static_cast<uint8_t>(bytes[k]) && static_cast<uint8_t>(bytes[k]) <= s[k].high;
        return good;
      };
      const auto count = std::count_if(sequences.begin(), sequences.end(), fits);
      ASSERT_EQ(count, set.contains(c) == (trial % 2 == 1)) << std::hex << static_cast<uint32_t>(c);
    }
  }
}

}  // namespace
}  // namespace invar::grammar
