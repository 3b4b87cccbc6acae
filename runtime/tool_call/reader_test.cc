// Answers as models write them, cut in every way; and what only looks like a call.
#include "runtime/tool_call/reader.h"

#include <random>

#include "gtest/gtest.h"

namespace invar::tool_call {
namespace {

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};
struct Seen {
  std::string content;
  std::vector<Call> calls;
  bool operator==(const Seen&) const = default;
};
void PrintTo(const Seen& seen, std::ostream* out) {
  *out << "content \"" << seen.content << "\"";
  for (const Call& c : seen.calls) *out << " " << c.name << "(" << c.arguments << ")";
}

Seen joined(const std::vector<Event>& events) {
  Seen seen;
  for (const Event& e : events) {
    if (e.kind == Event::Kind::kContent) seen.content += e.text;
    if (e.kind == Event::Kind::kCall) {
      EXPECT_EQ(e.call, static_cast<int32_t>(seen.calls.size()));
      seen.calls.push_back({e.text, ""});
    }
    if (e.kind == Event::Kind::kArguments) {
      EXPECT_EQ(e.call, static_cast<int32_t>(seen.calls.size()) - 1);
      if (!seen.calls.empty()) seen.calls.back().arguments += e.text;
    }
  }
  return seen;
}

// Whole, byte by byte, and in random pieces.
Seen read(Format format, const std::string& text) {
  const auto run = [&](const auto& next_size) {
    const std::unique_ptr<Reader> reader = make_reader(format);
    std::vector<Event> events;
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min<size_t>(next_size(), text.size() - at);
      reader->take(std::string_view(text).substr(at, size), &events);
      at += size;
    }
    reader->finish(&events);
    return joined(events);
  };
  const Seen whole = run([&] { return text.size(); });
  EXPECT_EQ(run([] { return size_t{1}; }), whole) << text;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 rng(seed);
    EXPECT_EQ(run([&] { return 1 + rng() % 9; }), whole) << text;
  }
  return whole;
}

struct Example {
  const char* text;
  Seen wanted;
};

TEST(ToolCallReader, Hermes) {
  const Example all[] = {
      {"", {}},
      {"It is sunny.", {"It is sunny.", {}}},
      {"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
       {"", {{"weather", "{\"city\": \"Paris\"}"}}}},
      {"Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"b\", "
       "\"arguments\": "
       "{\"x\": [1, {\"y\": \"}</tool_call>\"}]}}\n</tool_call>\n",
       {"Let me look.\n", {{"a", "{}"}, {"b", "{\"x\": [1, {\"y\": \"}</tool_call>\"}]}"}}}},
      {"<tool_call>{\"arguments\":{\"q\":\"\\\"{\\\\\"},\"id\":[1],\"name\":\"\\u0066\"}</tool_call> done",
       {" done", {{"f", "{\"q\":\"\\\"{\\\\\"}"}}}},
      // Cut off.
      {"<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1", {"", {{"a", "{\"x\": 1"}}}},
      {"<tool_call>\n{\"name\": \"a\"", {"<tool_call>\n{\"name\": \"a\"", {}}},
      {"so <tool_c", {"so <tool_c", {}}},
      {"<tool_call>", {"<tool_call>", {}}},
      // The first call is cut off: content. A further one: left out.
      {"<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n<tool_call>\n{\"name\": \"b\"", {"", {{"a", "{}"}}}},
      {"<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call><tool_call>", {"", {{"a", "{}"}}}},
      // Not calls.
      {"a <b> <tool_call or </tool_call>", {"a <b> <tool_call or </tool_call>", {}}},
      {"<tool_call>call me</tool_call>", {"<tool_call>call me</tool_call>", {}}},
      {"<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>",
       {"<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>", {}}},
      {"<tool_call>{\"name\": \"a\"}</tool_call>", {"<tool_call>{\"name\": \"a\"}</tool_call>", {}}},
      {"<tool_call>{}</tool_call><tool_call>{\"name\":\"a\",\"arguments\":null}</tool_call>",
       {"<tool_call>{}</tool_call>", {{"a", "null"}}}},
      // Wrong behind its arguments: what follows stays with the call.
      {"<tool_call>{\"name\": \"a\", \"arguments\": {} oops}</tool_call>!", {"!", {{"a", "{}oops}"}}}},
      // No end tag.
      {"<tool_call>{\"name\": \"a\", \"arguments\": {}}<tool_call>{\"name\": \"b\", \"arguments\": {}}",
       {"", {{"a", "{}"}, {"b", "{}"}}}},
      {"<tool_call>{\"name\": \"a\", \"arguments\": {}}\nand so on", {"\nand so on", {{"a", "{}"}}}},
      {"\xc3\xa9<tool_call>{\"name\":\"\xe2\x82\xac\",\"arguments\":\"\xc3\xa9\"}</tool_call>",
       {"\xc3\xa9", {{"\xe2\x82\xac", "\"\xc3\xa9\""}}}},
  };
  for (const Example& e : all) EXPECT_EQ(read(Format::kHermes, e.text), e.wanted) << e.text;
}

TEST(ToolCallReader, Llama3Json) {
  const Example all[] = {
      {"Hello {there}", {"Hello {there}", {}}},
      {"{\"name\": \"get\", \"parameters\": {\"a\": 1}}", {"", {{"get", "{\"a\": 1}"}}}},
      {" <|python_tag|>{\"name\": \"get\", \"parameters\": {\"a\": 1}}; {\"name\": \"put\", \"arguments\": {}}",
       {"", {{"get", "{\"a\": 1}"}, {"put", "{}"}}}},
      {"<|python_tag|>search.call(query=\"x\")", {"<|python_tag|>search.call(query=\"x\")", {}}},
      {"{\"answer\": 42}", {"{\"answer\": 42}", {}}},
      {"{\"name\": \"Ada\", \"age\": 36}", {"{\"name\": \"Ada\", \"age\": 36}", {}}},
      {"{\"name\": \"get\", \"parameters\": {}} and more", {" and more", {{"get", "{}"}}}},
      {"{\"name\": \"get\", \"parameters\": {}}; {\"x\": 1}", {"; {\"x\": 1}", {{"get", "{}"}}}},
      {"<|python", {"<|python", {}}},
      {"\r<|python_tag|>\t<|python_tag|>{}", {"\r<|python_tag|>\t<|python_tag|>{}", {}}},
      {"  ", {"  ", {}}},
      {"{", {"{", {}}},
  };
  for (const Example& e : all) EXPECT_EQ(read(Format::kLlama3Json, e.text), e.wanted) << e.text;
}

TEST(ToolCallReader, Mistral) {
  const Example all[] = {
      {"Bonjour [1]", {"Bonjour [1]", {}}},
      {"[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"a\": 1}}, {\"name\": \"put\", \"arguments\": {\"b\": [2]}, \"id\": "
       "\"abcdefghi\"}]",
       {"", {{"get", "{\"a\": 1}"}, {"put", "{\"b\": [2]}"}}}},
      {"Yes.[TOOL_CALLS]get{\"a\": {\"b\": \"}\"}}[TOOL_CALLS]put{}",
       {"Yes.", {{"get", "{\"a\": {\"b\": \"}\"}}"}, {"put", "{}"}}}},
      {"[TOOL_CALLS]get[ARGS]{\"a\": 1}", {"", {{"get", "{\"a\": 1}"}}}},
      {"[TOOL_CALLS]", {"[TOOL_CALLS]", {}}},
      {"[TOOL_CALLS] nothing here", {"[TOOL_CALLS] nothing here", {}}},
      {"[TOOL_CALLS][]", {"[TOOL_CALLS][]", {}}},
      {"[TOOL_CALLS]get[ARG", {"[TOOL_CALLS]get[ARG", {}}},
      {"[TOOL_CALLS]get{}[TOOL_CALLS]pu", {"", {{"get", "{}"}}}},
      {"[TOOL_CALLS][{\"name\": \"get\", \"arguments\": {\"a\"", {"", {{"get", "{\"a\""}}}},
      {"[TOOL_CALLS][{\"name\": \"get\", \"arguments\": {}}]\nDone.", {"\nDone.", {{"get", "{}"}}}},
  };
  for (const Example& e : all) EXPECT_EQ(read(Format::kMistral, e.text), e.wanted) << e.text;
  // White space is content unless a whole mark follows it.
  EXPECT_EQ(read(Format::kMistral, "[TOOL_CALLS]f{} \n[{"), (Seen{" \n[{", {{"f", "{}"}}}));
  EXPECT_EQ(read(Format::kMistral, "[TOOL_CALLS]f{} [TOOL"), (Seen{" [TOOL", {{"f", "{}"}}}));
  EXPECT_EQ(read(Format::kMistral, "[TOOL_CALLS]f{} [TOOL_CALLS]g{}"), (Seen{"", {{"f", "{}"}, {"g", "{}"}}}));
  const Seen endless = read(Format::kMistral, "[TOOL_CALLS]" + std::string(3000, 'a'));
  EXPECT_EQ(endless.content.size(), 3012u);
}

TEST(ToolCallReader, Forced) {
  EXPECT_EQ(read(Format::kForced, "[\n {\"name\": \"a\", \"parameters\": {\"x\": 1}}, {\"name\":\"b\",\"parameters\":{}}]"),
            (Seen{"", {{"a", "{\"x\": 1}"}, {"b", "{}"}}}));
  EXPECT_EQ(read(Format::kForced, "[{\"name\": \"a\", \"parameters\": {\"x\": "), (Seen{"", {{"a", "{\"x\": "}}}));
  EXPECT_EQ(read(Format::kForced, "[{\"name\": \"a\", \"parameters\": {}},\n  {\n"), (Seen{"", {{"a", "{}"}}}));
  EXPECT_EQ(read(Format::kForced, "[{\"name\": \"a\", \"parameters\": {}}, "), (Seen{"", {{"a", "{}"}}}));
  EXPECT_EQ(read(Format::kForced, "sorry"), (Seen{"sorry", {}}));
  const std::unique_ptr<Reader> named = make_named_reader("f");
  std::vector<Event> events;
  named->take("{\"x\"", &events);
  named->take(": 1}", &events);
  named->finish(&events);
  EXPECT_EQ(joined(events), (Seen{"", {{"f", "{\"x\": 1}"}}}));
  events.clear();
  make_named_reader("f")->finish(&events);
  EXPECT_EQ(joined(events), (Seen{"", {{"f", ""}}}));
}

TEST(ToolCallReader, NamesOfFormats) {
  for (const char* name : {"hermes", "llama3_json", "mistral"}) EXPECT_TRUE(format_named(name).ok());
  EXPECT_EQ(format_named("pythonic").status().message(), "\"pythonic\" is not supported; hermes, llama3_json, mistral");
}

}  // namespace
}  // namespace invar::tool_call
