// Templates with the texts that Jinja2 itself makes of them: jinja_vectors.json here, and the templates of models in use where
// they are kept beside the repository.
#include <fstream>

#include "gtest/gtest.h"
#include "runtime/chat_template/chat_template.h"

namespace invar {
namespace {

using Json = nlohmann::ordered_json;

// 2025-07-10T12:00:00Z, the clock of both sets of vectors.
const std::chrono::system_clock::time_point kNow{std::chrono::seconds(1752148800)};

Json read(const std::filesystem::path& file) {
  std::ifstream in(file);
  return Json::parse(in, nullptr, /*allow_exceptions=*/false);
}

absl::StatusOr<std::string> render(const std::string& text, const Json& variables) {
  const auto parsed = ChatTemplate::parse(text, "vector");
  if (!parsed.ok()) return parsed.status();
  return parsed->render(variables, kNow);
}

class Vectors : public testing::Test {
 protected:
  const Json vectors_ = read(std::filesystem::path(INVAR_SOURCE_DIR) / "runtime/chat_template/jinja_vectors.json");
};

TEST_F(Vectors, SnippetsGiveWhatJinjaGives) {
  ASSERT_TRUE(vectors_.is_object());
  int written = 0, refused = 0;
  for (const Json& one : vectors_["cases"]) {
    const auto text = one["template"].get<std::string>();
    const auto got = render(text, vectors_["variables"]);
    if (one.contains("fails")) {
      EXPECT_FALSE(got.ok()) << text << " gave " << *got;
      EXPECT_FALSE(got.status().message().empty()) << text;
      ++refused;
    } else {
      ASSERT_TRUE(got.ok()) << text << ": " << got.status();
      EXPECT_EQ(*got, one["expected"].get<std::string>()) << text;
      ++written;
    }
  }
  EXPECT_GT(written, 900);
  EXPECT_GT(refused, 300);
}

TEST_F(Vectors, ChatsGiveWhatJinjaGives) {
  ASSERT_TRUE(vectors_.is_object());
  EXPECT_GE(vectors_["chats"].size(), 10u);
  for (const Json& chat : vectors_["chats"]) {
    const auto name = chat["name"].get<std::string>();
    const auto got = render(vectors_["chat_templates"][name].get<std::string>(), chat["variables"]);
    if (chat.contains("raises")) {
      EXPECT_EQ(got.status(), absl::InvalidArgumentError(chat["raises"].get<std::string>())) << name;
    } else {
      ASSERT_TRUE(got.ok()) << name << ": " << got.status();
      EXPECT_EQ(*got, chat["expected"].get<std::string>()) << name;
    }
  }
}

TEST(ModelsInUse, RenderExactly) {
  const auto file = std::filesystem::path(INVAR_SOURCE_DIR) / "../shared/tokenizers/chat-templates/vectors.json";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no " << file << "; jinja_vectors.json has templates of the same kinds";
  const Json vectors = read(file);
  ASSERT_GE(vectors.size(), 26u);
  for (const Json& one : vectors) {
    const auto got = render(one["chat_template"].get<std::string>(), one["data"]);
    ASSERT_TRUE(got.ok()) << one["model"] << ": " << got.status();
    EXPECT_EQ(*got, one["target"].get<std::string>()) << one["model"];
  }
}

}  // namespace
}  // namespace invar
