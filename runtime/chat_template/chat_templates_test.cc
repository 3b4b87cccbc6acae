#include "runtime/chat_template/chat_templates.h"

#include <unistd.h>

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace invar {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using testing::HasSubstr;

const std::chrono::system_clock::time_point kNow{std::chrono::seconds(1752148800)};

class ModelFolder : public testing::Test {
 protected:
  ModelFolder() {
    folder_ = fs::temp_directory_path() / ("chat_templates_test." + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~ModelFolder() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  std::string rendered(Json variables = {{"messages", Json::array()}}, std::optional<fs::path> file = std::nullopt) {
    const auto loaded = ChatTemplates::load(folder_, file);
    if (!loaded.ok()) return "load: " + std::string(loaded.status().message());
    const auto text = loaded->render(variables, kNow);
    return text.ok() ? *text : "render: " + std::string(text.status().message());
  }
  absl::Status refused() {
    const auto loaded = ChatTemplates::load(folder_, std::nullopt);
    EXPECT_FALSE(loaded.ok());
    return loaded.status();
  }

  fs::path folder_;
};

TEST_F(ModelFolder, WithoutTemplateIsEmpty) {
  const auto loaded = ChatTemplates::load(folder_, std::nullopt);
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(loaded->empty());
  EXPECT_EQ(loaded->render({{"messages", Json::array()}}, kNow).status().code(), absl::StatusCode::kFailedPrecondition);
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_TRUE(ChatTemplates::load(folder_, std::nullopt)->empty());
}

TEST_F(ModelFolder, SourcesHaveTheirOrder) {
  write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(rendered(), "config");
  write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(rendered(), "processor");
  write("chat_template.jinja", "file\n");
  EXPECT_EQ(rendered(), "file");
  write("mine.jinja", "mine {{ eos_token }}");
  write("special_tokens_map.json", R"({"eos_token": "E"})");
  EXPECT_EQ(rendered({{"messages", Json::array()}}, folder_ / "mine.jinja"), "mine E");
  EXPECT_THAT(rendered({{"messages", Json::array()}}, folder_ / "none.jinja"), HasSubstr("none.jinja"));
}

TEST_F(ModelFolder, SeveralTemplatesAreChosenByTools) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]})");
  const Json none = {{"messages", Json::array()}}, null = {{"messages", Json::array()}, {"tools", nullptr}},
             some = {{"messages", Json::array()}, {"tools", Json::array()}};
  EXPECT_EQ(rendered(none), "plain");
  EXPECT_EQ(rendered(null), "plain");
  EXPECT_EQ(rendered(some), "tools");
  write("chat_template.jinja", "file");
  EXPECT_EQ(rendered(some), "file");
  write("additional_chat_templates/tool_use.jinja", "file tools");
  EXPECT_EQ(rendered(some), "file tools");
  EXPECT_EQ(rendered(none), "file");
  fs::remove_all(folder_);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]})");
  EXPECT_THAT(rendered(none), HasSubstr("a, b"));
}

TEST_F(ModelFolder, TokensAndDefaultsAreThere) {
  write(
      "tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false}, "pad_token": null, "unk_token": 7})");
  write("special_tokens_map.json", R"({"bos_token": "not this", "unk_token": {"content": "<unk>"}})");
  write("chat_template.jinja",
        "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token is defined }}{{ tools }}{{ documents }}{{ "
        "add_generation_prompt }}{{ style }}");
  EXPECT_EQ(rendered(), "<s></s><unk>FalseNoneNoneFalse");
  EXPECT_EQ(
      rendered(
          {{"messages", Json::array()}, {"bos_token", "B"}, {"add_generation_prompt", true}, {"style", "x"}, {"tools", {1}}}),
      "B</s><unk>False[1]NoneTruex");
}

TEST_F(ModelFolder, BadVariablesAreRefused) {
  write("chat_template.jinja", "x");
  EXPECT_THAT(rendered(Json::array()), HasSubstr("not an object"));
  EXPECT_THAT(rendered({{"message", 1}}), HasSubstr("messages"));
  EXPECT_THAT(rendered({{"messages", "hello"}}), HasSubstr("messages"));
}

TEST_F(ModelFolder, BadFilesAreRefusedByName) {
  write("tokenizer_config.json", "{");
  EXPECT_THAT(std::string(refused().message()), HasSubstr("tokenizer_config.json"));
  for (const char* text :
       {R"({"chat_template": 5})", R"({"chat_template": [5]})", R"({"chat_template": [{"name": "x"}]})", R"([])"}) {
    write("tokenizer_config.json", text);
    EXPECT_EQ(refused().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(refused().message()), HasSubstr("tokenizer_config.json")) << text;
  }
  write("tokenizer_config.json", R"({"chat_template": "\n{{ a b }}"})");
  EXPECT_THAT(std::string(refused().message()), HasSubstr("tokenizer_config.json, line 2"));
}

TEST(DemoModels, HaveATemplate) {
  for (const char* model : {"demo-moe", "demo-dense"}) {
    const auto loaded = ChatTemplates::load(fs::path(INVAR_SOURCE_DIR) / "configs/models" / model, std::nullopt);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const Json variables = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"add_generation_prompt", true}};
    EXPECT_EQ(*loaded->render(variables, kNow), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  }
}

}  // namespace
}  // namespace invar
