// The whole tokenizer on small files made here: ids, special tokens, configuration, refusals, threads.
#include "runtime/tokenizer/tokenizer.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/tokenizer_samples.h"

namespace invar {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tokenizer::Json;

std::shared_ptr<const Tokenizer> made(const Json& json, const std::string& config = "") {
  auto result = Tokenizer::parse(json.dump(), config);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : nullptr;
}

std::vector<int32_t> ids(const std::shared_ptr<const Tokenizer>& t, std::string_view text, bool special = false) {
  auto result = t->encode(text, special);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : std::vector<int32_t>();
}

std::vector<std::string> tokens(const std::shared_ptr<const Tokenizer>& t, std::string_view text) {
  std::vector<std::string> result;
  for (const int32_t id : ids(t, text)) result.push_back(t->token_text(id));
  return result;
}

TEST(Tokenizer, ByteLevel) {
  const auto t = made(tokenizer::byte_level_sample());
  EXPECT_THAT(tokens(t, "hello hello"), ElementsAre("hello", "Ġhello"));
  EXPECT_THAT(tokens(t, " worlds"), ElementsAre("Ġworld", "s"));
  EXPECT_THAT(tokens(t, "shell"), ElementsAre("s", "hell"));  // "he" + "ll" ranks before "hell" + nothing
  EXPECT_THAT(tokens(t, "é"), ElementsAre("Ã©"));
  EXPECT_THAT(ids(t, std::string_view("\0\x7f", 2)), ElementsAre(0, 127));
  EXPECT_THAT(ids(t, ""), ElementsAre());
  EXPECT_EQ(t->vocab_size(), 270);
}

TEST(Tokenizer, SentencePieceStyle) {
  const auto t = made(tokenizer::sentencepiece_sample());
  EXPECT_THAT(tokens(t, "the cat"), ElementsAre("▁the", "▁", "c", "a", "t"));
  EXPECT_THAT(tokens(t, "né"), ElementsAre("▁", "n", "<0xC3>", "<0xA9>"));
  EXPECT_EQ(t->decode(ids(t, "the né 你 cat"), false), "the né 你 cat");
}

// Expected from Hugging Face tokenizers 0.22.2.
TEST(Tokenizer, UnknownCharacters) {
  for (const bool fuse : {false, true}) {
    Json json = tokenizer::sentencepiece_sample();
    json["model"]["byte_fallback"] = false;
    json["model"]["fuse_unk"] = fuse;
    if (fuse) {
      EXPECT_THAT(tokens(made(json), "a你好b!"), ElementsAre("▁a", "<unk>", "b", "<unk>"));
    } else {
      EXPECT_THAT(tokens(made(json), "a你好b!"), ElementsAre("▁a", "<unk>", "<unk>", "b", "<unk>"));
    }
    json["model"]["unk_token"] = nullptr;
    EXPECT_THAT(tokens(made(json), "a你好b!"), ElementsAre("▁a", "b"));
  }
}

TEST(Tokenizer, MergesInBothSpellings) {
  Json pairs = tokenizer::byte_level_sample();
  for (auto& merge : pairs["model"]["merges"]) {
    const std::string text = merge;
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_THAT(tokens(made(pairs), "hello world"), ElementsAre("hello", "Ġworld"));
}

TEST(Tokenizer, IgnoreMergesTakesWholeWords) {
  Json json = tokenizer::byte_level_sample();
  json["model"]["vocab"]["xyz"] = 267;  // no merge leads to it
  json["added_tokens"] = Json::array();
  json["post_processor"] = nullptr;
  EXPECT_THAT(tokens(made(json), "xyz xyz"), ElementsAre("x", "y", "z", "Ġ", "x", "y", "z"));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(tokens(made(json), "xyz xyz"), ElementsAre("xyz", "Ġ", "x", "y", "z"));
}

TEST(Tokenizer, PrefixAndSuffixOfWords) {
  Json json = tokenizer::empty_tokenizer();
  json["model"]["vocab"] = {{"a", 0}, {"##b", 1}, {"ab", 2}, {"##c</w>", 3}, {"abc</w>", 4}, {"a</w>", 5}};
  json["model"]["continuing_subword_prefix"] = "##";
  json["model"]["end_of_word_suffix"] = "</w>";
  json["model"]["merges"] = {"a ##b"};
  EXPECT_THAT(tokens(made(json), "abc"), ElementsAre("ab", "##c</w>"));
  json["model"]["merges"].push_back("ab ##c</w>");
  EXPECT_THAT(tokens(made(json), "abc"), ElementsAre("abc</w>"));
  EXPECT_THAT(tokens(made(json), "a"), ElementsAre("a</w>"));
}

// Two ways to the same token: what counts is the token a pair makes, not the rank it was found with.
TEST(Tokenizer, MergeOrderIsByRankThenLeft) {
  Json json = tokenizer::empty_tokenizer();
  json["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"aa", 2}, {"ab", 3}, {"aab", 4}};
  json["model"]["merges"] = {"a a", "a b"};
  EXPECT_THAT(tokens(made(json), "aaab"), ElementsAre("aa", "ab"));
  EXPECT_THAT(tokens(made(json), "aab"), ElementsAre("aa", "b"));
  json["model"]["merges"] = {"a b", "a a"};
  EXPECT_THAT(tokens(made(json), "aab"), ElementsAre("a", "ab"));
  json["model"]["merges"] = {"a b", "a ab"};
  EXPECT_THAT(tokens(made(json), "aaab"), ElementsAre("a", "aab"));
}

TEST(Tokenizer, SpecialTokens) {
  const auto t = made(tokenizer::byte_level_sample());
  const int32_t bos = *t->id_of("<|bos|>"), end = *t->id_of("<|end|>"), think = *t->id_of("<think>");
  EXPECT_THAT(ids(t, "h<|end|>h<think>", true), ElementsAre(bos, 'h', end, 'h', think));
  EXPECT_THAT(ids(t, "h"), ElementsAre('h'));
  EXPECT_TRUE(t->is_special(end));
  EXPECT_FALSE(t->is_special(think));
  EXPECT_FALSE(t->is_special('h'));
  EXPECT_FALSE(t->is_special(-1));
  const std::vector<int32_t> all = {bos, 'h', end, think};
  EXPECT_EQ(t->decode(all, false), "<|bos|>h<|end|><think>");
  EXPECT_EQ(t->decode(all, true), "h<think>");
}

TEST(Tokenizer, IdsWithoutToken) {
  const auto t = made(tokenizer::byte_level_sample());
  for (const int32_t id : {-1, 270, INT32_MAX, INT32_MIN}) {
    const std::vector<int32_t> with = {'h', id, 'i'};
    EXPECT_EQ(t->decode(with, false), "hi");
    EXPECT_EQ(t->token_text(id), "");
    EXPECT_EQ(t->token_bytes(id), "");
    const auto checked = t->decode_checked(with, false);
    EXPECT_EQ(checked.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(checked.status().message()), HasSubstr("ids[1]: no token has the id " + std::to_string(id)));
  }
  EXPECT_EQ(*t->decode_checked(std::vector<int32_t>{'h', 'i'}, false), "hi");
  EXPECT_EQ(t->id_of("nothing"), std::nullopt);
}

TEST(Tokenizer, TokenBytes) {
  const auto bytes = made(tokenizer::byte_level_sample());
  EXPECT_EQ(bytes->token_text(*bytes->id_of("Ġworld")), "Ġworld");
  EXPECT_EQ(bytes->token_bytes(*bytes->id_of("Ġworld")), " world");
  EXPECT_EQ(bytes->token_bytes(0xC3), "\xC3");
  EXPECT_EQ(bytes->token_bytes(*bytes->id_of("<|end|>")), "<|end|>");
  const auto pieces = made(tokenizer::sentencepiece_sample());
  EXPECT_EQ(pieces->token_bytes(*pieces->id_of("▁the")), " the");
  EXPECT_EQ(pieces->token_bytes(*pieces->id_of("<0xC3>")), "\xC3");
}

TEST(Tokenizer, InvalidUtf8NamesTheByte) {
  const auto t = made(tokenizer::byte_level_sample());
  const std::pair<std::string, int> bad[] = {{"\x80", 0},
                                             {"abc\xC3", 3},
                                             {"\xC0\x80", 0},
                                             {"12345678\xED\xA0\x80", 8},
                                             {"é\xF4\x90\x80\x80", 2},
                                             {"\xE0\x80\x80", 0},
                                             {"\xF0\x8F\xBF\xBF", 0},
                                             {"ok\xFF", 2},
                                             {"\xE4\xBD"
                                              "a",
                                              0}};
  for (const auto& [text, at] : bad) {
    const auto result = t->encode(text, false);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(result.status().message()), "text: invalid UTF-8 at byte " + std::to_string(at));
  }
}

TEST(Tokenizer, ConfigurationSaysWhatIsAdded) {
  const Json sample = tokenizer::byte_level_sample();
  Json plain = sample;
  plain["post_processor"] = nullptr;
  const int bos = 267, end = 268;
  const auto t = made(sample, R"({"bos_token": "<|bos|>", "eos_token": {"content": "<|end|>"}})");
  EXPECT_EQ(t->bos(), bos);
  EXPECT_EQ(t->eos(), end);
  EXPECT_EQ(made(sample)->bos(), std::nullopt);
  EXPECT_EQ(made(sample, R"({"bos_token": null})")->bos(), std::nullopt);

  const std::string names = R"("bos_token": "<|bos|>", "eos_token": "<|end|>")";
  const auto added = [&](const Json& json, const std::string& rest) {
    return ids(made(json, "{" + names + rest + "}"), "h", true);
  };
  EXPECT_THAT(added(plain, ""), ElementsAre('h'));
  EXPECT_THAT(added(plain, R"(, "add_bos_token": true)"), ElementsAre(bos, 'h'));
  EXPECT_THAT(added(plain, R"(, "add_bos_token": true, "add_eos_token": true)"), ElementsAre(bos, 'h', end));
  EXPECT_THAT(added(sample, R"(, "add_bos_token": true)"), ElementsAre(bos, 'h'));  // not twice
  EXPECT_THAT(added(sample, R"(, "add_bos_token": false)"), ElementsAre(bos, 'h'));
  EXPECT_THAT(added(sample, R"(, "add_bos_token": false, "tokenizer_class": "LlamaTokenizerFast")"), ElementsAre('h'));
}

TEST(Tokenizer, RefusesConfigurations) {
  const std::pair<const char*, const char*> bad[] = {{"[]", "not a JSON object"},
                                                     {"{", "not a JSON object"},
                                                     {R"({"bos_token": 1})", "bos_token"},
                                                     {R"({"eos_token": "no such"})", "eos_token: 'no such'"},
                                                     {R"({"add_bos_token": true})", "add_bos_token"},
                                                     {R"({"add_bos_token": "yes"})", "add_bos_token"}};
  for (const auto& [config, words] : bad) {
    const auto result = Tokenizer::parse(tokenizer::byte_level_sample().dump(), config);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(words));
  }
}

TEST(Tokenizer, RefusesTextThatIsNoTokenizer) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{} {}"), std::string("\xFF"),
        std::string("{\"model\": \"\xFF\"}"), std::string("{}"), std::string(R"({"model": []})"), std::string(100000, '['),
        std::string(R"({"model": {"merges": [)") + std::string(1000, '[')}) {
    EXPECT_EQ(Tokenizer::parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 100);
  }
}

// Each change to a good file must be refused, with the code and with words that name the field.
TEST(Tokenizer, RefusesFieldsByName) {
  using Change = std::function<void(Json&)>;
  const auto invalid = absl::StatusCode::kInvalidArgument, unimplemented = absl::StatusCode::kUnimplemented;
  const auto set = [](const char* pointer, Json value) { return [=](Json& j) { j[Json::json_pointer(pointer)] = value; }; };
  const auto erase = [](const char* parent, const char* key) {
    return [=](Json& j) { j[Json::json_pointer(parent)].erase(key); };
  };
  const std::tuple<Change, absl::StatusCode, const char*> cases[] = {
      {set("/version", "2.0"), unimplemented, "version: \"2.0\""},
      {set("/novelty", 1), unimplemented, "novelty: 1"},
      {erase("", "model"), invalid, "model: is missing"},
      {set("/model/type", "Unigram"), unimplemented, "model.type: \"Unigram\""},
      {set("/model/type", 7), invalid, "model.type: 7"},
      {set("/model/dropout", 0.1), unimplemented, "model.dropout: 0.1"},
      {set("/model/novelty", true), unimplemented, "model.novelty"},
      {set("/model/fuse_unk", "yes"), invalid, "model.fuse_unk: \"yes\""},
      {set("/model/unk_token", "<nope>"), invalid, "model.unk_token: '<nope>'"},
      {set("/model/vocab", Json::array()), invalid, "model.vocab"},
      {erase("/model", "vocab"), invalid, "model.vocab"},
      {erase("/model", "merges"), invalid, "model.merges"},
      {set("/model/vocab/h", "x"), invalid, "model.vocab['h']"},
      {set("/model/vocab/h", 1.5), invalid, "model.vocab['h']"},
      {set("/model/vocab/h", -1), invalid, "model.vocab['h']: id -1"},
      {set("/model/vocab/h", 3000000000u), invalid, "model.vocab['h']: id 3000000000"},
      {set("/model/vocab/h", 18446744073709551615u), invalid, "model.vocab"},
      {set("/model/vocab/h", 'i'), invalid, "id 105 has another token"},
      {set("/model/merges/0", "h"), invalid, "model.merges[0]"},
      {set("/model/merges/0", "h e l"), invalid, "model.merges[0]"},
      {set("/model/merges/0", "h q"), invalid, "model.merges[0]: 'hq' is not in model.vocab"},
      {set("/model/merges/1", "nope l"), invalid, "model.merges[1]: 'nope' is not in model.vocab"},
      {set("/model/merges/2", {"h"}), invalid, "model.merges[2]"},
      {set("/model/merges/2", {"h", "e", "l"}), invalid, "model.merges[2]"},
      {set("/model/merges/2", {"h", 1}), invalid, "model.merges[2]"},
      {set("/model/merges/2", 5), invalid, "model.merges[2]"},
      {set("/model/merges/2", Json::object()), invalid, "model.merges"},
      {set("/added_tokens", 5), invalid, "added_tokens: 5"},
      {set("/added_tokens/0/id", -1), invalid, "added_tokens[0].id: -1"},
      {set("/added_tokens/0/id", 2000000000), invalid, "added_tokens[0].id"},
      {set("/added_tokens/0/id", 'h'), invalid, "added_tokens[0].id: 104 is 'h' in model.vocab"},
      {set("/added_tokens/1/id", 267), invalid, "added_tokens[1].id: 267 is there twice"},
      {set("/added_tokens/1/content", "<|bos|>"), invalid, "added_tokens[1].content"},
      {set("/added_tokens/0/content", ""), invalid, "added_tokens[0].content"},
      {set("/added_tokens/0/content", std::string(2000, 'x')), invalid, "added_tokens[0].content"},
      {set("/added_tokens/0/content", "hello"), invalid, "added_tokens[0].id: 267 but model.vocab says 259"},
      {set("/added_tokens/0/novelty", 1), unimplemented, "added_tokens[0].novelty"},
      {set("/normalizer", Json{{"type", "Precompiled"}}), unimplemented, "normalizer.type: \"Precompiled\""},
      {set("/normalizer", Json{{"type", "NFC"}, {"novelty", 1}}), unimplemented, "normalizer.novelty"},
      {set("/normalizer", Json{{"type", "Prepend"}}), invalid, "normalizer.prepend: is missing"},
      {set("/normalizer", Json{{"type", "Sequence"}, {"normalizers", {{{"type", "Nmt"}}}}}), unimplemented,
       "normalizer.normalizers[0].type"},
      {set("/normalizer", "NFC"), invalid, "normalizer.type"},
      {set("/pre_tokenizer/type", "BertPreTokenizer"), unimplemented, "pre_tokenizer.type: \"BertPreTokenizer\""},
      {set("/pre_tokenizer/pretokenizers/0/behavior", "Shuffled"), unimplemented,
       "pre_tokenizer.pretokenizers[0].behavior: \"Shuffled\""},
      {set("/pre_tokenizer/pretokenizers/0/pattern", Json{{"Regex", "("}}), invalid,
       "pre_tokenizer.pretokenizers[0].pattern.Regex"},
      {set("/pre_tokenizer/pretokenizers/0/pattern", Json{{"Regex", "\\K"}}), unimplemented,
       "pre_tokenizer.pretokenizers[0].pattern.Regex"},
      {set("/pre_tokenizer/pretokenizers/0/pattern", Json{{"String", ""}}), invalid, "pre_tokenizer.pretokenizers[0].pattern"},
      {set("/pre_tokenizer/pretokenizers/0/pattern", Json{{"Glob", "*"}}), unimplemented, "pattern.Glob"},
      {set("/pre_tokenizer", Json{{"type", "Metaspace"}, {"replacement", "__"}}), invalid, "pre_tokenizer.replacement"},
      {set("/pre_tokenizer", Json{{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}}), unimplemented,
       "pre_tokenizer.prepend_scheme"},
      {set("/post_processor/type", "RobertaProcessing"), unimplemented, "post_processor.type"},
      {set("/post_processor/special_tokens/<|bos|>/ids/0", 9999), invalid, "post_processor.special_tokens.<|bos|>.ids[0]: 9999"},
      {erase("/post_processor/special_tokens", "<|bos|>"), invalid, "post_processor.special_tokens.<|bos|>: is missing"},
      {set("/post_processor/single/1/Sequence/id", "B"), unimplemented, "post_processor.single[1].Sequence.id"},
      {set("/post_processor/single/0", Json{{"Sequence", {{"id", "A"}}}}), invalid,
       "post_processor.single: has the text 2 times"},
      {set("/decoder/type", "CTC"), unimplemented, "decoder.type: \"CTC\""},
      {set("/decoder", Json{{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}}), invalid, "decoder.start: -1"},
      {set("/decoder", Json{{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}}), invalid, "decoder.content"},
      {set("/decoder", Json{{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", "b"}}), unimplemented,
       "decoder.pattern.Regex"},
      {set("/decoder", Json{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(5000, 'b')}}), invalid,
       "decoder"},
  };
  ASSERT_TRUE(Tokenizer::parse(tokenizer::byte_level_sample().dump()).ok());
  for (const auto& [change, code, words] : cases) {
    Json json = tokenizer::byte_level_sample();
    change(json);
    const auto result = Tokenizer::parse(json.dump());
    EXPECT_EQ(result.status().code(), code) << words << " / " << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(words));
  }
}

TEST(Tokenizer, RefusesKeysThatAreThereTwice) {
  for (const char* text :
       {R"({"model": {"type": "BPE", "type": "BPE", "vocab": {}, "merges": []}})",
        R"({"model": {"vocab": {}, "vocab": {}, "merges": []}})", R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})",
        R"({"model": {"vocab": {}, "merges": [], "merges": []}})"}) {
    const auto result = Tokenizer::parse(text);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_TRUE(Tokenizer::parse(R"({"model": {"vocab": {"a": 0}, "merges": []}})").ok());
}

TEST(Tokenizer, Load) {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("tokenizer_test_" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
  std::filesystem::create_directory(folder);
  EXPECT_EQ(Tokenizer::load(folder).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(folder / "tokenizer.json") << tokenizer::byte_level_sample().dump();
  ASSERT_TRUE(Tokenizer::load(folder).ok());
  EXPECT_EQ((*Tokenizer::load(folder))->bos(), std::nullopt);
  std::ofstream(folder / "tokenizer_config.json") << R"({"bos_token": "<|bos|>"})";
  EXPECT_EQ((*Tokenizer::load(folder))->bos(), 267);
  std::ofstream(folder / "tokenizer_config.json") << "{";
  EXPECT_THAT(std::string(Tokenizer::load(folder).status().message()), HasSubstr(folder.string()));
  std::filesystem::remove_all(folder);
}

// The cache must neither change ids nor grow without bound; both under many threads.
TEST(Tokenizer, ThreadsAgree) {
  const auto shared = made(tokenizer::byte_level_sample());
  std::vector<std::string> texts;
  for (int i = 0; i < 400; ++i)
    texts.push_back(" hello world" + std::to_string(i * 7919) + " shell" + std::string(static_cast<size_t>(i % 60), 'l'));
  std::vector<std::vector<int32_t>> expected;
  for (const auto& text : texts) expected.push_back(ids(made(tokenizer::byte_level_sample()), text));  // each with an empty cache
  EXPECT_NE(expected[0], expected[1]);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = 0; i < 3 * texts.size(); ++i) {
        const size_t at = (i * 37 + static_cast<size_t>(thread) * 101) % texts.size();
        if (*shared->encode(texts[at], false) != expected[at] || shared->decode(expected[at], false) != texts[at]) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// n log n, not n squared: one word of 300000 characters.
TEST(Tokenizer, LongWords) {
  const auto t = made(tokenizer::sentencepiece_sample());
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "the";
  const auto begin = std::clock();  // processor time: the host may be busy
  const auto result = ids(t, text);
  EXPECT_EQ(result.size(), 1u + 2 * 99999u);  // "▁the", then "t" "he"
  EXPECT_EQ(t->decode(result, false), text);
  EXPECT_LT((std::clock() - begin) / CLOCKS_PER_SEC, 5);
}

}  // namespace
}  // namespace invar
