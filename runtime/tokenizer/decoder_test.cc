// Decoding whole and in a stream. The reference here works on lists of tokens, step after step, as Hugging Face describes it.
#include "runtime/tokenizer/decoder.h"

#include <functional>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_samples.h"

namespace invar::tokenizer {
namespace {

using testing::ElementsAre;
using Tokens = std::vector<std::string>;

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> result;
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).length)
    result.emplace_back(text.substr(at, code_point_at(text, at).length));
  return result;
}

Tokens reference_step(const Json& step, const Tokens& in) {
  const std::string type = step["type"];
  Tokens out;
  if (type == "Sequence") {
    out = in;
    for (const Json& child : step["decoders"]) out = reference_step(child, out);
  } else if (type == "Fuse") {
    out.emplace_back();
    for (const auto& token : in) out[0] += token;
  } else if (type == "Replace") {
    for (const auto& token : in)
      out.push_back(replace_all(token, step["pattern"]["String"].get<std::string>(), step["content"].get<std::string>()));
  } else if (type == "ByteLevel") {
    std::string bytes, text;
    for (const auto& token : in) append_token_bytes(token, bytes);
    drain_lossy(bytes, true, text);
    out = {text};
  } else if (type == "Metaspace") {
    for (size_t i = 0; i < in.size(); ++i) {
      const bool drop = i == 0 && step["prepend_scheme"] != "never";
      out.push_back(replace_all(in[i], step["replacement"].get<std::string>(), drop ? "" : " "));
    }
  } else if (type == "Strip") {
    for (const auto& token : in) {
      const auto all = characters(token);
      size_t begin = 0, end = all.size();
      while (begin < end && begin < step["start"].get<size_t>() && all[begin] == step["content"]) ++begin;
      for (size_t n = 0; n < step["stop"].get<size_t>() && end > begin && all[end - 1] == step["content"]; ++n) --end;
      out.emplace_back();
      for (size_t i = begin; i < end; ++i) out.back() += all[i];
    }
  } else if (type == "ByteFallback") {
    std::string bytes;
    const auto flush = [&] {
      if (first_invalid_utf8(bytes) == std::string_view::npos) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), std::string(kReplacementCharacter));
      }
      bytes.clear();
    };
    for (const auto& token : in) {
      const bool is_byte = token.size() == 6 && token.starts_with("<0x") && token[5] == '>' &&
                           std::isxdigit(static_cast<unsigned char>(token[3])) &&
                           std::isxdigit(static_cast<unsigned char>(token[4]));
      if (is_byte) {
        bytes.push_back(static_cast<char>(std::stoi(token.substr(3, 2), nullptr, 16)));
      } else {
        flush();
        out.push_back(token);
      }
    }
    flush();
  }
  return out;
}

std::string reference(const Json& decoder, const Tokens& tokens) {
  std::string text;
  if (decoder.is_null()) {
    for (size_t i = 0; i < tokens.size(); ++i) text += (i ? " " : "") + tokens[i];
    return text;
  }
  for (const auto& token : reference_step(decoder, tokens)) text += token;
  return text;
}

Decoder read(const Json& json) {
  if (json.is_null()) return Decoder();
  absl::Status error;
  const auto tree = nlohmann::json::parse(json.dump());
  auto decoder = Decoder::read(Fields(tree, "decoder", error));
  EXPECT_TRUE(decoder.ok()) << decoder.status() << json;
  return *std::move(decoder);
}

// What each token and then the end give.
Tokens streamed(const Decoder& decoder, const Tokens& tokens) {
  DecoderRun run(decoder);
  Tokens pieces;
  for (const auto& token : tokens) {
    run.token(token);
    pieces.push_back(run.take());
  }
  run.finish();
  pieces.push_back(run.take());
  return pieces;
}

const Json kByteLevel = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
const Json kByteFallback = {{"type", "ByteFallback"}};
const Json kFuse = {{"type", "Fuse"}};
Json replace(const char* from, const char* to) { return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}}; }
Json strip(const char* content, int start, int stop) {
  return {{"type", "Strip"}, {"content", content}, {"start", start}, {"stop", stop}};
}
Json metaspace(const char* scheme) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", true}};
}
Json sequence(std::vector<Json> steps) { return {{"type", "Sequence"}, {"decoders", std::move(steps)}}; }

TEST(Decoder, ByteLevelHoldsBackUnfinishedCharacters) {
  const Decoder decoder = read(kByteLevel);
  EXPECT_THAT(streamed(decoder, {"Ġh", "ä", "½", "ł", "!"}), ElementsAre(" h", "", "", "你", "!", ""));
  EXPECT_THAT(streamed(decoder, {"ä", "½"}), ElementsAre("", "", "\uFFFD"));            // never completed: the end says so
  EXPECT_THAT(streamed(decoder, {"ä", "½", "a"}), ElementsAre("", "", "\uFFFDa", ""));  // cannot be completed: said at once
  EXPECT_THAT(streamed(decoder, {"ÿ", "ł"}), ElementsAre("\uFFFD", "\uFFFD", ""));
  EXPECT_THAT(streamed(decoder, {"hä", "½łi"}), ElementsAre("h", "你i", ""));
  EXPECT_THAT(streamed(decoder, {"a b", "你"}), ElementsAre("a b", "你", ""));  // not in the byte alphabet: as they are
}

TEST(Decoder, ByteFallbackHoldsBackTheRun) {
  const Decoder decoder = read(sequence({kByteFallback, kFuse}));
  EXPECT_THAT(streamed(decoder, {"a", "<0xE4>", "<0xBD>", "<0xA0>", "b"}), ElementsAre("a", "", "", "", "你b", ""));
  EXPECT_THAT(streamed(decoder, {"<0xE4>", "<0xBD>"}), ElementsAre("", "", "\uFFFD\uFFFD"));
  EXPECT_THAT(streamed(decoder, {"<0x41>", "<0xFF>", "b"}), ElementsAre("", "",
                                                                        "\uFFFD\uFFFD"
                                                                        "b",
                                                                        ""));  // one bad byte spoils the run
  EXPECT_THAT(streamed(decoder, {"<0xZZ>", "<0x4>"}), ElementsAre("<0xZZ>", "<0x4>", ""));
}

TEST(Decoder, StripSeesTheWholeText) {
  const Decoder llama = read(sequence({replace("▁", " "), kByteFallback, kFuse, strip(" ", 1, 0)}));
  EXPECT_THAT(streamed(llama, {"▁the", "▁cat"}), ElementsAre("the", " cat", ""));
  EXPECT_THAT(streamed(llama, {"▁▁a"}), ElementsAre(" a", ""));
  EXPECT_THAT(streamed(llama, {"▁", "▁", "a"}), ElementsAre("", " ", "a", ""));
  const Decoder right = read(sequence({kFuse, strip(" ", 0, 2)}));
  EXPECT_THAT(streamed(right, {"a ", " ", " ", "b", " ", " "}), ElementsAre("a", "", " ", "  b", "", "", ""));
  EXPECT_THAT(streamed(read(strip("x", 1, 1)), {"xax", "x", "xx", "xxx"}), ElementsAre("a", "", "", "x", ""));
}

TEST(Decoder, MetaspaceDropsTheFirst) {
  EXPECT_THAT(streamed(read(metaspace("always")), {"▁a", "▁b"}), ElementsAre("a", " b", ""));
  EXPECT_THAT(streamed(read(metaspace("never")), {"▁a", "▁b"}), ElementsAre(" a", " b", ""));
}

TEST(Decoder, ReplaceOfSeveralCharacters) {
  EXPECT_THAT(streamed(read(replace("ab", "X")), {"abab", "a", "b"}), ElementsAre("XX", "a", "b", ""));
  // Behind Fuse there is one token, whose end is the end of all.
  EXPECT_THAT(streamed(read(sequence({kFuse, replace("ab", "X")})), {"a", "b"}), ElementsAre("", "", "X"));
}

TEST(Decoder, WithoutDecoderTokensAreSpaced) {
  EXPECT_THAT(streamed(Decoder(), {"a", "", "b"}), ElementsAre("a", " ", " b", ""));
}

TEST(Decoder, StreamEqualsReferenceForAnyChain) {
  std::mt19937 random(20240607);
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  const std::function<Json()> steps[] = {
      [] { return kByteLevel; },
      [] { return kByteFallback; },
      [] { return kFuse; },
      [&] { return strip(below(2) ? " " : "a", static_cast<int>(below(3)), static_cast<int>(below(3))); },
      [&] { return metaspace(below(2) ? "always" : "never"); },
      [&] { return replace(below(2) ? "▁" : "ab", below(2) ? " " : "▁é"); }};
  const Tokens pieces = {"a",      "b", "ab", " ", "▁", "▁a", "  a ", "<0xE4>", "<0xBD>", "<0xA0>", "<0x41>",
                         "<0xFF>", "ä", "½",  "ł", "ÿ", "é",  "你",   "",       "Ġh",     "<|end|>"};
  int held_back = 0, nonempty = 0;
  for (int round = 0; round < 20000; ++round) {
    Json json;
    if (below(20) > 0) {
      std::vector<Json> chain;
      for (size_t n = 1 + below(4); n > 0; --n) chain.push_back(steps[below(std::size(steps))]());
      json = sequence(chain);
    }
    Tokens tokens;
    for (size_t n = below(9); n > 0; --n) tokens.push_back(pieces[below(pieces.size())]);
    const Tokens parts = streamed(read(json), tokens);
    std::string text;
    for (const auto& part : parts) {
      ASSERT_EQ(first_invalid_utf8(part), std::string_view::npos);  // no character is split
      text += part;
    }
    ASSERT_EQ(text, reference(json, tokens)) << json << testing::PrintToString(tokens);
    held_back += !parts.back().empty();
    nonempty += !text.empty();
  }
  EXPECT_GT(held_back, 1000);  // the rounds did meet what they are for
  EXPECT_GT(nonempty, 10000);
}

TEST(StreamDecoder, SkipsSpecialTokensAndStartsAnew) {
  const auto made = Tokenizer::parse(byte_level_sample().dump());
  ASSERT_TRUE(made.ok());
  const int32_t end = *(*made)->id_of("<|end|>");
  StreamDecoder all(*made, false), plain(*made, true);
  const auto pushed = [](StreamDecoder& stream, std::vector<int32_t> ids) {
    Tokens pieces;
    for (const int32_t id : ids) pieces.push_back(stream.push(id));
    return pieces;
  };
  EXPECT_THAT(pushed(all, {0xE4, end}), ElementsAre("", "\uFFFD<|end|>"));
  // A special token that is skipped is not there at all: the character goes on behind it.
  EXPECT_THAT(pushed(plain, {0xE4, end, 0xBD, 0xA0}), ElementsAre("", "", "", "你"));
  EXPECT_EQ(plain.push(0xE4), "");
  EXPECT_EQ(plain.finish(), "\uFFFD");
  EXPECT_EQ(plain.push(0xBD), "\uFFFD");  // nothing is left of the sequence before
  EXPECT_THAT(pushed(plain, {-5, 1 << 30}), ElementsAre("", ""));
  StreamDecoder moved = std::move(plain);
  EXPECT_EQ(moved.push('x'), "x");
}

}  // namespace
}  // namespace invar::tokenizer
