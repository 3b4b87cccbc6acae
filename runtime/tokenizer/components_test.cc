// Normalizers, pre-tokenizers and added tokens one by one. Expected values are those of Hugging Face tokenizers 0.22.2.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_samples.h"
#include "runtime/tokenizer/utf8.h"
#include "runtime/tokenizer/word_cache.h"

namespace invar::tokenizer {
namespace {

using testing::ElementsAre;

TEST(Components, Normalizers) {
  struct Case {
    const char *json, *text, *normalized;
  };
  const Case cases[] = {
      {R"({"type": "NFC"})", "e\u0301 \u1100\u1161\u11a8 A\u030a \ufb01", "\u00e9 \uac01 \u00c5 \ufb01"},
      {R"({"type": "NFD"})", "\u00e9 \uac01", "e\u0301 \u1100\u1161\u11a8"},
      {R"({"type": "NFKC"})", "\ufb01 \u00bd \uff71 e\u0301", "fi 1\u20442 \u30a2 \u00e9"},
      {R"({"type": "NFKD"})", "\ufb01 \u00bd \u00e9", "fi 1\u20442 e\u0301"},
      {R"({"type": "Lowercase"})", "ÀΑΣ İSTANBUL ẞ", "àασ i\u0307stanbul ß"},
      {R"({"type": "Prepend", "prepend": "▁"})", "ab", "▁ab"},
      {R"({"type": "Prepend", "prepend": "▁"})", "", ""},
      {R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})", "a  b ", "a▁▁b▁"},
      {R"({"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "})", "a \n\tb ", "a b "},
      {R"({"type": "Replace", "pattern": {"Regex": "y?"}, "content": "-"})", "xyé", "-x-é-"},
      {R"({"type": "Strip", "strip_left": true, "strip_right": false})", "\u00a0\n a ", "a "},
      {R"({"type": "Strip", "strip_left": false, "strip_right": true})", " a\u3000\t", " a"},
      {R"({"type": "Strip", "strip_left": true, "strip_right": true})", " \u3000\t", ""},
      {R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})",
       "Hey you", "▁Hey▁you"},
      {R"({"type": "Sequence", "normalizers": []})", "a", "a"},
  };
  for (const Case& test : cases) {
    absl::Status error;
    const auto json = nlohmann::json::parse(test.json);
    const auto normalizer = Normalizer::read(Fields(json, "normalizer", error));
    ASSERT_TRUE(normalizer.ok()) << test.json << normalizer.status();
    EXPECT_EQ(*normalizer->apply(test.text, MatchBudget(100)), test.normalized) << test.json;
  }
}

// Ten doublings of each space: refused while running, before the memory is.
TEST(Components, NormalizersMayNotExplode) {
  nlohmann::json json = {{"type", "Sequence"}, {"normalizers", nlohmann::json::array()}};
  for (int i = 0; i < 60; ++i)
    json["normalizers"].push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "  "}});
  absl::Status error;
  const auto normalizer = Normalizer::read(Fields(json, "normalizer", error));
  ASSERT_TRUE(normalizer.ok());
  EXPECT_EQ(*normalizer->apply("ab", MatchBudget(2)), "ab");
  EXPECT_TRUE(absl::IsResourceExhausted(normalizer->apply("a b", MatchBudget(3)).status()));
}

TEST(Components, PreTokenizers) {
  struct Case {
    const char *json, *text;
    std::vector<std::string> words;
  };
  const Case cases[] = {
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated", "invert": false})",
       "the-final--countdown-",
       {"the", "-", "final", "-", "-", "countdown", "-"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": true})",
       " a b  c",
       {" ", "a", " ", "b", "  ", "c"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false})",
       "the-final--countdown-",
       {"the", "final", "countdown"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed", "invert": true})", " a b  c", {" ", " ", "  "}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious", "invert": false})",
       "the-final--countdown-",
       {"the-", "final-", "-", "countdown-"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "MergedWithPrevious", "invert": true})",
       " a b  c",
       {" a", " b", "  c"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext", "invert": false})",
       "the-final--countdown-",
       {"the", "-final", "-", "-countdown", "-"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "MergedWithNext", "invert": true})",
       " a b  c",
       {" ", "a ", "b  ", "c"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Contiguous", "invert": false})",
       "the-final--countdown-",
       {"the", "-", "final", "--", "countdown", "-"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Contiguous", "invert": true})",
       " a b  c",
       {" ", "a", " ", "b", "  ", "c"}},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})",
       "Hi it's\n\n  é3",
       {"ĠHi", "Ġit", "'s", "ĊĊĠ", "ĠÃ©", "3"}},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false})", "\nx", {"ĠĊx"}},
      {R"({"type": "Sequence", "pretokenizers": [
           {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
           {"type": "Split", "pattern": {"String": "Ġ"}, "behavior": "MergedWithNext", "invert": false}]})",
       "a b é",
       {"a", "Ġb", "ĠÃ©"}},
      {R"({"type": "Digits", "individual_digits": true})", "a12½Ⅷ٣b", {"a", "1", "2", "½", "Ⅷ", "٣", "b"}},
      {R"({"type": "Digits", "individual_digits": false})", "a12½Ⅷ٣b", {"a", "12½Ⅷ٣", "b"}},
      {R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true})",
       "Hey my  friend",
       {"▁Hey", "▁my", "▁", "▁friend"}},
      {R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true})", " Hey", {"▁Hey"}},
      {R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true})", "Hey my", {"Hey", "▁my"}},
      {R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})", "Hey my", {"▁Hey▁my"}},
      {R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false})", "Hey my", {"Hey", "▁my"}},
      {R"({"type": "Sequence", "pretokenizers": [
           {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false},
           {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}]})",
       "a b-c d",
       {"▁a", "▁b", "c", "▁d"}},
      {R"({"type": "Sequence", "pretokenizers": [
           {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false},
           {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}]})",
       "-a b-c d",
       {"a", "▁b", "c", "▁d"}},
      {R"({"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "Isolated", "invert": false})", "axxb", {"a", "xx", "b"}},
      {R"({"type": "Sequence", "pretokenizers": []})", "a b", {"a b"}},
  };
  for (const Case& test : cases) {
    absl::Status error;
    const auto json = nlohmann::json::parse(test.json);
    const auto pre_tokenizer = PreTokenizer::read(Fields(json, "pre_tokenizer", error));
    ASSERT_TRUE(pre_tokenizer.ok()) << test.json << pre_tokenizer.status();
    Words words{.text = test.text};
    words.ranges.push_back({0, static_cast<uint32_t>(words.text.size()), true});
    ASSERT_TRUE(pre_tokenizer->apply(words, MatchBudget(100)).ok());
    std::vector<std::string> got;
    for (const auto& range : words.ranges) {
      const std::string word = words.text.substr(range.begin, range.end - range.begin);
      got.emplace_back();
      if (pre_tokenizer->ends_in_bytes())
        append_byte_characters(word, got.back());
      else
        got.back() = word;
    }
    EXPECT_EQ(got, test.words) << test.json;
  }
}

class AddedTokenFlags : public testing::Test {
 protected:
  std::vector<std::string> tokens(const Json& added, std::string_view text, const Json& normalizer = nullptr) {
    Json json = empty_tokenizer();
    for (const char* token : {"a", "b", " ", "x", "▁", "é"}) json["model"]["vocab"][token] = json["model"]["vocab"].size();
    json["normalizer"] = normalizer;
    json["added_tokens"] = added;
    const auto made = Tokenizer::parse(json.dump());
    EXPECT_TRUE(made.ok()) << made.status();
    std::vector<std::string> result;
    const auto ids = (*made)->encode(text, false);
    for (const int32_t id : *ids) result.push_back((*made)->token_text(id));
    return result;
  }
  static Json token(const char* content, std::initializer_list<const char*> flags, int id = 10) {
    Json json = {{"id", id}, {"content", content}, {"special", false}, {"normalized", false}};
    for (const char* flag : flags) json[flag] = true;
    return json;
  }
};

TEST_F(AddedTokenFlags, LongestAtTheLeftmostPlace) {
  const Json added = {token("<x", {}, 10), token("<x>", {}, 11), token("x>b", {}, 12)};
  EXPECT_THAT(tokens(added, "a<x>b<xx>b"), ElementsAre("a", "<x>", "b", "<x", "x>b"));
}

TEST_F(AddedTokenFlags, StripTakesWhiteSpace) {
  EXPECT_THAT(tokens(Json::array({token("<x>", {})}), "a  <x>  b"), ElementsAre("a", " ", " ", "<x>", " ", " ", "b"));
  EXPECT_THAT(tokens(Json::array({token("<x>", {"lstrip"})}), "a  <x>  b"), ElementsAre("a", "<x>", " ", " ", "b"));
  EXPECT_THAT(tokens(Json::array({token("<x>", {"rstrip"})}), "a \u3000<x>\n\u3000b"), ElementsAre("a", " ", "<x>", "b"));
  EXPECT_THAT(tokens(Json::array({token("<x>", {"lstrip", "rstrip"})}), " <x> <x> "), ElementsAre("<x>", "<x>"));
}

TEST_F(AddedTokenFlags, SingleWord) {
  EXPECT_THAT(tokens(Json::array({token("x", {"single_word"}, 3)}), "x"), ElementsAre("x"));
  const Json added = {token("ab", {"single_word"})};
  EXPECT_THAT(tokens(added, "ab aba éab ab"), ElementsAre("ab", " ", "a", "b", "a", " ", "é", "a", "b", " ", "ab"));
}

TEST_F(AddedTokenFlags, NormalizedTokensAreFoundInNormalizedText) {
  const Json lower = {{"type", "Lowercase"}};
  EXPECT_THAT(tokens(Json::array({token("AB", {})}), "AB ab", lower), ElementsAre("AB", " ", "a", "b"));
  EXPECT_THAT(tokens(Json::array({token("AB", {"normalized"})}), "AB ab", lower), ElementsAre("AB", " ", "AB"));
}

TEST(Components, ByteAlphabetIsABijection) {
  std::string bytes, characters, back;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  append_byte_characters(bytes, characters);
  EXPECT_EQ(first_invalid_utf8(characters), std::string_view::npos);
  append_token_bytes(characters, back);
  EXPECT_EQ(back, bytes);
  back.clear();
  append_token_bytes("a b", back);  // a space stands for no byte, so the token is text
  EXPECT_EQ(back, "a b");
  EXPECT_EQ(byte_of_character(U'Ġ'), ' ');
  EXPECT_EQ(byte_of_character(U'你'), -1);
}

TEST(Components, LossyUtf8IsTheSameInEveryCut) {
  const std::string bytes = "a\xC3\xA9\xE4\xBD\xA0\xFF\xE4\xBD\x41\xF0\x9F\x92\x80\x80\xED\xA0\x80\xF0\x9F\xA6";
  const std::string expected =
      "aé你\uFFFD\uFFFD"
      "A\U0001F480\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    std::string pending, out;
    for (size_t at = 0; at < bytes.size(); at += step) {
      pending += bytes.substr(at, step);
      drain_lossy(pending, false, out);
      EXPECT_EQ(first_invalid_utf8(out), std::string_view::npos);
    }
    drain_lossy(pending, true, out);
    EXPECT_EQ(out, expected) << step;
    EXPECT_TRUE(pending.empty());
  }
}

TEST(Components, WordCacheIsBounded) {
  WordCache cache;
  const int32_t ids[] = {1, 2, 3};
  std::vector<int32_t> out;
  for (int i = 0; i < 200000; ++i) cache.put("word" + std::to_string(i), ids, 3);
  EXPECT_LE(cache.size(), WordCache::kParts * WordCache::kWordsPerPart);
  EXPECT_GT(cache.size(), 1000u);
  cache.put("kept", ids, 3);
  EXPECT_TRUE(cache.find("kept", out));
  EXPECT_THAT(out, ElementsAre(1, 2, 3));
  cache.put(std::string(WordCache::kMaxWordBytes + 1, 'x'), ids, 3);
  EXPECT_FALSE(cache.find(std::string(WordCache::kMaxWordBytes + 1, 'x'), out));
}

}  // namespace
}  // namespace invar::tokenizer
