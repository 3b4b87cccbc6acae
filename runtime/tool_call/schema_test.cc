// Schemas that force calls: what they allow is a call of a tool that was given, and references stay within their tool.
#include "runtime/tool_call/schema.h"

#include "gtest/gtest.h"
#include "runtime/grammar/grammar_samples.h"
#include "runtime/tool_call/reader.h"

namespace invar::tool_call {
namespace {

using Json = nlohmann::ordered_json;

std::shared_ptr<grammar::Grammar> compiled(const std::string& schema) {
  const auto made = grammar::Grammar::compile(grammar::schema_of(schema), grammar::sample_tokens());
  EXPECT_TRUE(made.ok()) << schema << made.status();
  return made.ok() ? *made : nullptr;
}

const std::vector<Json>& functions() {
  static const std::vector<Json> all = {
      Json::parse(
          R"({"name":"tree","parameters":{"type":"object","properties":{"root":{"$ref":"#/$defs/node"},"$ref":{"enum":["#/x"]}},
        "required":["root"],"$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"}}}}}})"),
      Json::parse(R"({"name":"self","parameters":{"type":"object","properties":{"inner":{"$ref":"#"}}}})"),
      Json::parse(R"({"name":"none"})"), Json::parse(R"({"name":"empty","parameters":{}})")};
  return all;
}

TEST(ToolCallSchema, AllowsCallsOfTheToolsAndNothingElse) {
  const auto grammar = compiled(schema_of_calls(functions(), true));
  ASSERT_TRUE(grammar);
  std::mt19937 rng(1);
  for (const char* good :
       {R"([{"name": "none", "parameters": {}}])",
        R"([{"name":"tree","parameters":{"root":{"next":{"next":{}}},"$ref":"#/x"}},{"name":"empty","parameters":{}}])",
        R"([{"name": "self", "parameters": {"inner": {"inner": {}}}}])"})
    EXPECT_EQ(grammar::refusal(grammar, good, &rng), "") << good;
  for (const char* bad : {"[]", "{}", R"([{"name": "other", "parameters": {}}])", R"([{"name": "none", "parameters": {"x": 1}}])",
                          R"([{"name": "tree", "parameters": {"root": {"inner": {}}}}])",
                          R"([{"parameters": {}, "name": "none"}])", R"([{"name": "none"}])"})
    EXPECT_NE(grammar::refusal(grammar, bad, &rng), "") << bad;
  const auto one = compiled(schema_of_calls(functions(), false));
  EXPECT_EQ(grammar::refusal(one, R"([{"name": "none", "parameters": {}}])", &rng), "");
  EXPECT_NE(grammar::refusal(one, R"([{"name": "none", "parameters": {}}, {"name": "none", "parameters": {}}])", &rng), "");
  EXPECT_EQ(grammar::refusal(compiled(schema_of_arguments(functions()[1])), R"({"inner": {"inner": {}}})", &rng), "");
}

// Whatever is drawn under the mask reads back as calls, without a rest.
TEST(ToolCallSchema, WhatIsDrawnReadsBack) {
  const auto grammar = compiled(schema_of_calls(functions(), true));
  std::mt19937 rng(2);
  int finished = 0;
  for (int i = 0; i < 40; ++i) {
    const auto text = grammar::random_text(grammar, &rng);
    if (!text) continue;
    ++finished;
    std::vector<Event> events;
    const std::unique_ptr<Reader> reader = make_reader(Format::kForced);
    reader->take(*text, &events);
    reader->finish(&events);
    size_t calls = 0;
    for (const Event& e : events) {
      EXPECT_NE(e.kind, Event::Kind::kContent) << *text;
      EXPECT_TRUE(e.kind != Event::Kind::kArguments || Json::accept(e.text)) << *text;
      calls += e.kind == Event::Kind::kCall;
    }
    EXPECT_EQ(calls, Json::parse(*text).size()) << *text;
  }
  EXPECT_GT(finished, 10);
}

TEST(ToolCallSchema, ManyToolsFitTheLimits) {
  std::vector<Json> many;
  for (int i = 0; i < 128; ++i) {
    many.push_back(functions()[0]);
    many.back()["name"] = "tool_number_" + std::to_string(i);
    many.back()["parameters"]["properties"]["text"] = {{"type", "string"}};
  }
  const auto tokens = grammar::real_tokens() ? grammar::real_tokens() : grammar::sample_tokens();
  const auto made = grammar::Grammar::compile(grammar::schema_of(schema_of_calls(many, true)), tokens);
  ASSERT_TRUE(made.ok()) << made.status();
  std::mt19937 rng(3);
  EXPECT_EQ(grammar::refusal(*made, R"([{"name": "tool_number_77", "parameters": {"root": {}, "text": "hello world"}}])", &rng),
            "");
}

}  // namespace
}  // namespace invar::tool_call
