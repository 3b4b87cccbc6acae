// Tokenizers of real models: the ids and texts that other implementations computed.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/tokenizer/tokenizer.h"

namespace invar {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kSource = INVAR_SOURCE_DIR;
const fs::path kShared = kSource / ".." / "shared";

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// What `xz` unpacks; empty when there is no such program or file.
std::string unpacked(const fs::path& path) {
  std::string text;
  FILE* pipe = popen(("xz -dc '" + path.string() + "' 2>/dev/null").c_str(), "r");
  char buffer[1 << 16];
  for (size_t n; pipe && (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  if (pipe) pclose(pipe);
  return text;
}

std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  StreamDecoder stream(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

class DemoModel : public testing::TestWithParam<const char*> {};

TEST_P(DemoModel, MatchesItsReference) {
  const fs::path folder = kSource / "configs/models" / GetParam();
  const auto made = Tokenizer::load(folder);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto& tokenizer = *made;
  EXPECT_EQ(tokenizer->vocab_size(), 2048);
  EXPECT_EQ(tokenizer->eos(), tokenizer->id_of("<|endoftext|>"));
  const Json reference = Json::parse(contents(folder / "reference.json"));
  ASSERT_GE(reference.size(), 5u);
  for (const Json& row : reference) {
    const std::vector<int32_t> prompt = row["prompt_ids"], greedy = row["greedy_fp32"];
    EXPECT_EQ(*tokenizer->encode(row["prompt"].get<std::string>(), true), prompt) << row["prompt"];
    EXPECT_EQ(tokenizer->decode(prompt, false), row["prompt"]);
    EXPECT_EQ(tokenizer->decode(greedy, true), row["text_fp32"]);
    EXPECT_EQ(streamed(tokenizer, greedy, true), row["text_fp32"]);
  }
  // Every byte has a token, so any text comes back.
  std::string text;
  for (char32_t c = 1; c < 0x3000; ++c) {
    if (c < 0x80)
      text += static_cast<char>(c);
    else if (c < 0x800)
      text += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    else
      text += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
  }
  const auto ids = tokenizer->encode(text, false);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(tokenizer->decode(*ids, false), text);
  EXPECT_EQ(streamed(tokenizer, *ids, false), text);
}

INSTANTIATE_TEST_SUITE_P(All, DemoModel, testing::Values("demo-moe", "demo-dense"),
                         [](const auto& info) { return std::string(info.param).substr(5); });

struct Published {
  const char* name;
  const char* bos;  // what a tokenizer_config.json with add_bos_token puts in front, over the vectors
};

class PublishedTokenizer : public testing::TestWithParam<Published> {};

// The vectors hold what tokenizer.json alone gives, so `bos` comes on top of them.
TEST_P(PublishedTokenizer, MatchesHuggingFace) {
  const fs::path folder = kShared / "tokenizers" / GetParam().name,
                 rows_file = kShared / "tokenizers/vectors" / (std::string(GetParam().name) + ".json");
  if (!fs::exists(rows_file)) GTEST_SKIP() << "no " << rows_file;
  const std::string file = unpacked(folder / "tokenizer.json.xz");
  if (file.empty()) GTEST_SKIP() << "cannot unpack " << folder / "tokenizer.json.xz";
  const auto made = Tokenizer::parse(file, contents(folder / "tokenizer_config.json"));
  ASSERT_TRUE(made.ok()) << made.status();
  const auto& tokenizer = *made;
  std::vector<int32_t> front;
  if (GetParam().bos) front.push_back(*tokenizer->id_of(GetParam().bos));
  const Json rows = Json::parse(contents(rows_file));
  ASSERT_EQ(rows.size(), 76u);
  for (const Json& row : rows) {
    const std::string text = row["text"], decoded = row.value("decoded", text);
    const std::vector<int32_t> ids = row["ids"];
    std::vector<int32_t> special = row.value("ids_special", ids);
    special.insert(special.begin(), front.begin(), front.end());
    EXPECT_EQ(*tokenizer->encode(text, false), ids) << text;
    EXPECT_EQ(*tokenizer->encode(text, true), special) << text;
    EXPECT_EQ(*tokenizer->decode_checked(ids, false), decoded);
    EXPECT_EQ(streamed(tokenizer, ids, false), decoded);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PublishedTokenizer,
                         testing::Values(Published{"llama3", nullptr}, Published{"qwen3", nullptr}, Published{"gpt-oss", nullptr},
                                         Published{"deepseek-v3", "<｜begin▁of▁sentence｜>"}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Stories260K, MatchesItsReference) {
  const fs::path folder = kShared / "models/stories260K";
  if (!fs::exists(folder / "greedy.json")) GTEST_SKIP() << "no " << folder;
  const auto made = Tokenizer::load(folder / "hf");
  ASSERT_TRUE(made.ok()) << made.status();
  const auto& tokenizer = *made;
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  const Json rows = Json::parse(contents(folder / "greedy.json"));
  ASSERT_EQ(rows.size(), 9u);
  for (const Json& row : rows) {
    std::vector<int32_t> ids = row["prompt_ids"];
    EXPECT_EQ(*tokenizer->encode(row["prompt"].get<std::string>(), true), ids) << row["prompt"];
    for (const int32_t id : row["greedy_ids"]) ids.push_back(id);
    EXPECT_EQ(tokenizer->decode(ids, true), row["text"]);
    EXPECT_EQ(streamed(tokenizer, ids, true), row["text"]);
  }
}

}  // namespace
}  // namespace invar
