// JSON Schema: what is drawn satisfies the schema, what satisfies it in the order and spelling of README.md can be drawn, and
// what is not supported is refused by name and place.
#include "gtest/gtest.h"
#include "runtime/grammar/grammar_samples.h"
#include "runtime/grammar/json_checker.h"
#include "runtime/grammar/json_number.h"

namespace invar::grammar {
namespace {

using Json = CheckedJson;

std::shared_ptr<Grammar> compiled(const std::string& schema) {
  const auto grammar = Grammar::compile(schema_of(schema), sample_tokens());
  EXPECT_TRUE(grammar.ok()) << schema << ": " << grammar.status();
  return grammar.ok() ? *grammar : nullptr;
}

bool takes(const std::string& schema, const std::string& text) {
  std::mt19937 rng(1);
  const auto grammar = compiled(schema);
  return grammar && refusal(grammar, text, &rng).empty();
}

struct Examples {
  const char* schema;
  std::vector<const char*> good, bad;
};

TEST(JsonSchema, Examples) {
  const Examples all[] = {
      {R"({"type":"null"})", {"null"}, {"nul", "true", " null", "null "}},
      {R"({"type":"boolean"})", {"true", "false"}, {"True", "1"}},
      {R"({"type":"integer"})",
       {"0", "-0", "12", "-7", "1234567890123456789"},
       {"01", "1.0", "1e3", "+1", "-", "12345678901234567890"}},
      {R"({"type":"number"})", {"0", "-0.5", "1e5", "1.5E-10", "100"}, {".5", "1.", "01", "1e", "0x1", "NaN", "1e400"}},
      {R"({"type":"string"})",
       {R"("")", R"("a b")", R"("\n\"\\\/\u00e9\uD83D\uDE00")", "\"\xc3\xa9\xf0\x9f\x98\x80\""},
       {"abc", "\"a", "\"\n\"", R"("\x")", R"("\ud800")", R"("\ude00")", R"("\ud800\u0041")", "\"\xff\"", "\"\xed\xa0\x80\"",
        R"("\u12g4")"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", "\"\xc3\xa9\xe2\x82\xac\"", R"("abc")", R"("\n\u0041x")", R"("\uD83D\uDE00a")"},
       {R"("a")", R"("abcd")", "\"\xc3\xa9\"", R"("\uD83D\uDE00")"}},
      {R"x({"type":"string","pattern":"^a+$"})x", {R"("a")", R"("aaa")"}, {R"("")", R"("ab")", R"("\u0061")"}},
      {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")", R"("\nb\"")"}, {R"("a")", R"("")"}},
      {R"({"pattern":"^[\"\\\\\\n]{2}"})", {R"("\"\\")", R"("\n\nrest")"}, {R"("\n")", R"("ab")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("2024-04-31")", R"("24-1-1")", R"("1900-02-29")"}},
      {R"({"type":"string","format":"date-time"})",
       {R"("2024-01-02T03:04:05Z")", R"("2024-01-02T03:04:05.25+01:30")"},
       {R"("2024-01-02")", R"("2024-01-02T24:00:00Z")"}},
      {R"({"type":"string","format":"ipv4"})",
       {R"("0.0.0.0")", R"("255.249.199.1")"},
       {R"("256.1.1.1")", R"("1.1.1")", R"("01.1.1.1")"}},
      {R"({"type":"string","format":"ipv6"})",
       {R"("::")", R"("::1")", R"("1:2:3:4:5:6:7:8")", R"("fe80::1:2")", R"("1::")", R"("1:2:3:4:5:6:7::")"},
       {R"("1:2")", R"(":::")", R"("1:2:3:4:5:6:7:8:9")", R"("1::2::3")"}},
      {R"({"type":"string","format":"uuid"})", {R"("a1b2c3d4-0000-4000-8000-0123456789ab")"}, {R"("a1b2c3d4")"}},
      {R"({"type":"string","format":"email"})", {R"("a.b@example.com")"}, {R"("a@b")", R"("@b.com")", R"("a..b@c.de")"}},
      {R"({"enum":["a",1,null,true,[1,{"x":2}],"a\"b"]})",
       {R"("a")", "1", "null", "true", R"([1,{"x":2}])", R"([1, {"x": 2}])", R"("a\"b")"},
       {R"("b")", "2", "false", "[1]"}},
      {R"({"const":{"a":[]}})", {R"({"a":[]})", "{\n  \"a\": []\n}"}, {"{}", R"({"a":[1]})"}},
      {R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}},
      {R"({"type":["integer","null"]})", {"1", "null"}, {"1.5", "\"\""}},
      {R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]})", {"1", R"("a")"}, {R"("ab")", "null"}},
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":"a"},"x":{"type":"integer"}},"required":["k","x"]},
                    {"type":"object","properties":{"k":{"const":"b"}},"required":["k"]},{"type":"null"}]})",
       {R"({"k":"a","x":1})", R"({"k":"b"})", "null"},
       {R"({"k":"a"})", R"({"k":"c"})"}},
      {R"({"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"type":"integer"}}})", {"3"}, {"null"}},
      {R"({"type":"object"})",
       {"{}", "{ }", R"({"a":1,"b":{"c":[]}})", R"({"a": 1, "b": null})"},
       {"[]", "{,}", R"({"a"})", R"({"a":1,})"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{}},"required":["b"]})",
       {R"({"b":""})", R"({"a":1,"b":""})", R"({"a": 1, "b": "x", "c": [1, 2]})",
        "{\n  \"b\": \"\",\n  \"c\": {\n    \"d\": 1\n  }\n}"},
       {"{}", R"({"a":1})", R"({"b":"","a":1})", R"({"b":"","d":1})", R"({"b":"","b":""})"}},
      {R"({"properties":{}})", {"{}"}, {R"({"a":1})", "1"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"ab":{"type":"integer"}},"additionalProperties":{"type":"string"}})",
       {R"({"a":1})", R"({"b":"x"})", R"({"a":1,"abc":"","\n":"","":""})", R"({"ab":1,"b":""})", "{\"\xc3\xa9\":\"\"}"},
       {R"({"a":"x"})", R"({"ab":""})", R"({"b":1})", R"({"\u0061":"x"})", R"({"b":"","a":1})"}},
      {R"({"type":"object","required":["q"]})", {R"({"q":1})", R"({"q":[],"r":1})"}, {"{}", R"({"r":1})"}},
      {R"({"type":"object","properties":{"a":{}},"required":["z"],"additionalProperties":{"type":"null"}})",
       {R"({"z":null})", R"({"a":1,"z":null,"y":null})"},
       {R"({"a":1})", R"({"z":1})"}},
      {R"({"type":"array"})", {"[]", "[ ]", "[1,\"a\",[]]", "[1, 2]", "[\n  1,\n  2\n]"}, {"[1,]", "[,1]", "{}", "[1 2]"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
       {"[1]", "[1,2,3]"},
       {"[]", "[1,2,3,4]", "[\"a\"]"}},
      {R"({"items":{"type":"integer"},"minItems":3})", {"[1,2,3]", "[1,2,3,4,5]"}, {"[1,2]", "[]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":1})",
       {"[1]", R"([1,"a"])"},
       {"[]", "[\"a\"]", R"([1,"a",2])"}},
      {R"({"prefixItems":[{"type":"integer"}],"items":{"type":"null"}})", {"[]", "[1]", "[1,null,null]"}, {"[null]", "[1,1]"}},
      {R"({"prefixItems":[{"type":"integer"}],"items":false})", {"[]", "[1]"}, {"[1,1]"}},
      {R"({"maxItems":0})", {"[]"}, {"[1]"}},
      {R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v","next"]})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
       {R"({"v":1,"next":{"v":2}})"}},
      {R"({"$ref":"#/definitions/a~1b","definitions":{"a/b":{"type":"array","items":{"$ref":"#/definitions/a~1b"}}}})",
       {"[]", "[[],[[]]]"},
       {"[1]"}},
      {R"({"$ref":"#/properties/a","properties":{"a":{"type":"integer"}}})", {}, {}},
      {"{}", {"1", "[]", R"({"a":null})"}, {"x"}},
      {"true", {"1"}, {"x"}},
  };
  for (const Examples& e : all) {
    if (e.good.empty()) {
      EXPECT_FALSE(Grammar::compile(schema_of(e.schema), sample_tokens()).ok()) << e.schema;
      continue;
    }
    for (const char* text : e.good) EXPECT_TRUE(takes(e.schema, text)) << e.schema << " does not take " << text;
    for (const char* text : e.bad) EXPECT_FALSE(takes(e.schema, text)) << e.schema << " takes " << text;
  }
}

TEST(JsonSchema, WhatIsNotSupportedIsRefusedByNameAndPlace) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"({"type":"object","patternProperties":{}})", "patternProperties", "#/patternProperties"},
      {R"({"properties":{"a":{"not":{}}}})", "\"not\"", "#/properties/a/not"},
      {R"({"items":{"if":{},"then":{}}})", "\"if\"", "#/items/if"},
      {R"({"multipleOf":2})", "multipleOf", "#/multipleOf"},
      {R"({"uniqueItems":true})", "uniqueItems", "#/uniqueItems"},
      {R"({"properties":{"a/b":{"minProperties":1}}})", "minProperties", "#/properties/a~1b/minProperties"},
      {R"({"type":"string","format":"color"})", "color", "#/format"},
      {R"x({"type":"string","pattern":"(?=a)"})x", "lookahead", "#/pattern"},
      {R"({"pattern":"a","maxLength":3})", "maxLength", "#/pattern"},
      {R"({"$ref":"http://x/y"})", "not inside the schema", "#/$ref"},
      {R"({"$ref":"#/nowhere"})", "not in the schema", "#/$ref"},
      {R"({"$ref":"#/$defs/a","minLength":1,"$defs":{"a":{}}})", "minLength", "#/minLength"},
      {R"({"anyOf":[{}],"type":"object"})", "beside anyOf", "#/type"},
      {R"({"allOf":[{},{}]})", "more than one", "#/allOf"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "schema 0 and schema 1", "#/oneOf"},
      {R"({"type":"thing"})", "thing", "#/type"},
      {R"({"type":"array","items":[{}]})", "prefixItems", "#/items"},
      {R"({"minItems":2,"maxItems":1})", "no array", "#"},
      {R"({"minLength":-1})", "-1", "#/minLength"},
      {R"({"type":"integer","minimum":2,"maximum":1})", "no integer", "#"},
      {R"({"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":2})", "no integer", "#"},
      {R"({"minimum":"1"})", "must be a number", "#/minimum"},
      {R"({"minimum":1e300})", "beyond", "#/minimum"},
      {R"({"enum":[]})", "at least one", "#/enum"},
      {R"({"type":"integer","const":"a"})", "type", "#/const"},
      {R"({"properties":{"a":false},"required":["a"]})", "satisfied by nothing", "#/properties/a"},
      {R"({"additionalProperties":false,"required":["a"]})", "additionalProperties is false", "#/required"},
      {R"({"properties":5})", "object", "#/properties"},
      {R"({"$ref":"#"})", "refers to itself", ""},
      {R"({"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}],"$defs":{"a":{"anyOf":[{"$ref":"#"}]}}})", "refers to itself", ""},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no text", ""},
      {R"({"maxLength":1000000})", "too large", ""},
      {"[]", "object or a boolean", "#"},
      {"{", "JSON", ""},
      {R"({"type":"object","type":"array"})", "twice", ""},
  };
  for (const auto& [schema, what, where] : cases) {
    const auto grammar = Grammar::compile(schema_of(schema), sample_tokens());
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument) << schema;
    const std::string message(grammar.status().message());
    EXPECT_NE(message.find(what), std::string::npos) << schema << ": " << message;
    EXPECT_NE(message.find(std::string(where).empty() ? "" : "at " + std::string(where) + ":"), std::string::npos)
        << schema << ": " << message;
  }
  EXPECT_FALSE(Grammar::compile(schema_of(std::string(300, '[') + std::string(300, ']')), sample_tokens()).ok());
}

// Every number of a small world against the bounds.
TEST(JsonSchema, NumbersWithinBounds) {
  std::mt19937 rng(8);
  const auto show = [](double x) {
    std::string text = Json(x).dump();
    return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
  };
  for (int trial = 0; trial < 250; ++trial) {
    const bool integer = trial % 2;
    Json schema = {{"type", integer ? "integer" : "number"}};
    const double scale = trial % 3 == 0 ? 10 : trial % 3 == 1 ? 100 : 1;
    double low = -1e9, high = 1e9;
    const auto value = [&] { return (static_cast<int>(rng() % 4001) - 2000) / scale / (integer && trial % 5 ? 1 / scale : 1); };
    if (rng() % 4) low = value(), schema[rng() % 2 ? "minimum" : "exclusiveMinimum"] = low;
    if (rng() % 4) high = value(), schema[rng() % 2 ? "maximum" : "exclusiveMaximum"] = high;
    const auto grammar = Grammar::compile(schema_of(schema.dump()), sample_tokens());
    bool any = false;
    for (int i = 0; i < 60; ++i) {
      double x = (static_cast<int>(rng() % 4401) - 2200) / scale;
      if (i % 3 == 0) x = low + static_cast<int>(rng() % 5) / 10.0 - 0.2;
      if (i % 3 == 1) x = high + static_cast<int>(rng() % 5) / 10.0 - 0.2;
      if (integer) x = std::round(x);
      x = std::round(x * 100) / 100;
      const std::string text = show(x);
      if (text == "-0" || text.find('e') != std::string::npos || std::abs(x) > 1e8) continue;
      const bool want = satisfies(schema, schema, Json::parse(text));
      any |= want;
      if (!grammar.ok()) {
        ASSERT_FALSE(want) << schema << " " << text << " " << grammar.status();
        continue;
      }
      ASSERT_EQ(refusal(*grammar, text, &rng).empty(), want) << schema << " " << text;
    }
    if (!grammar.ok()) continue;
    for (int i = 0; i < 5; ++i)
      if (const auto text = random_text(*grammar, &rng, 60)) {
        ASSERT_TRUE(Json::accept(*text)) << *text;
        ASSERT_TRUE(satisfies(schema, schema, Json::parse(*text))) << schema << " " << *text;
      }
  }
  EXPECT_EQ(decimal_of("1.50e-3")->fraction, "0015");
  EXPECT_EQ(decimal_of("-12e2")->whole, "1200");
  EXPECT_FALSE(decimal_of("1e99"));
}

// A random schema of the supported subset, and a random value for it: its properties in order, or some of them.
struct Sampled {
  Json schema, value;
};
Sampled sampled(std::mt19937* rng, int depth) {
  const auto dice = [&](uint32_t n) { return (*rng)() % n; };
  const std::vector<std::string> texts = {
      "", "a", "abc", "\xc3\xa9\xe2\x82\xac", "line\nfeed \"x\" \\ tab\t", "\xf0\x9f\x98\x80", "\x01"};
  switch (dice(depth > 0 ? 12 : 7)) {
    case 0:
      return {{{"type", "null"}}, nullptr};
    case 1:
      return {{{"type", "boolean"}}, dice(2) == 0};
    case 2: {
      const int x = static_cast<int>(dice(2000)) - 1000;
      return {dice(2) ? Json{{"type", "integer"}}
                      : Json{{"type", "integer"},
                             {"minimum", x - static_cast<int>(dice(5))},
                             {"maximum", x + static_cast<int>(dice(300))}},
              x};
    }
    case 3: {
      const double x = (static_cast<int>(dice(2000)) - 1000) / 8.0;
      return {
          dice(2) ? Json{{"type", "number"}} : Json{{"type", "number"}, {"minimum", x - dice(3)}, {"exclusiveMaximum", x + 0.5}},
          x};
    }
    case 4: {
      const std::string text = texts[dice(static_cast<uint32_t>(texts.size()))];
      const int64_t length = characters_of(text);
      if (dice(2)) return {Json{{"type", "string"}}, text};
      return {{{"type", "string"},
               {"minLength", std::max<int64_t>(0, length - static_cast<int64_t>(dice(3)))},
               {"maxLength", length + static_cast<int64_t>(dice(3))}},
              text};
    }
    case 5:
      return {{{"type", "string"}, {"pattern", "^[a-c]{1,3}(-[0-9]+)?$"}}, dice(2) ? "abc" : "b-17"};
    case 6: {
      const Json values = {"x", 1, nullptr, false, "\n", Json::array({1, "y"})};
      return {{{"enum", values}}, values[dice(6)]};
    }
    case 7:
    case 8: {
      const Sampled item = sampled(rng, depth - 1);
      Json value = Json::array();
      for (uint32_t n = dice(4); n > 0; --n) value.push_back(item.value);
      Json schema = {{"type", "array"}, {"items", item.schema}};
      if (dice(2)) schema["minItems"] = value.size() - dice(static_cast<uint32_t>(value.size()) + 1);
      if (dice(2)) schema["maxItems"] = value.size() + dice(3);
      return {schema, value};
    }
    case 9: {
      const Sampled a = sampled(rng, depth - 1), b = sampled(rng, depth - 1);
      return {{{"anyOf", Json::array({a.schema, b.schema})}}, dice(2) ? a.value : b.value};
    }
    default: {
      Json properties = Json::object(), required = Json::array(), value = Json::object();
      for (uint32_t n = dice(5); n > 0; --n) {
        const std::string name = std::string(1, static_cast<char>('a' + n)) + (dice(3) ? "" : "\"\xc3\xa9");
        const Sampled p = sampled(rng, depth - 1);
        properties[name] = p.schema;
        const bool needed = dice(2);
        if (needed) required.push_back(name);
        if (needed || dice(2)) value[name] = p.value;
      }
      Json schema = {{"type", "object"}, {"properties", properties}, {"required", required}};
      if (dice(3) == 0) {
        const Sampled extra = sampled(rng, depth - 1);
        schema["additionalProperties"] = extra.schema;
        if (dice(2)) value["zz\t"] = extra.value;
      } else if (dice(2)) {
        schema["additionalProperties"] = false;
      }
      return {schema, value};
    }
  }
}

// json.dumps of Python: a space behind commas and colons.
std::string with_spaces(const Json& v) {
  if (!v.is_structured()) return v.dump();
  std::string out = v.is_object() ? "{" : "[";
  bool first = true;
  for (const auto& [name, child] : v.items()) {
    if (!std::exchange(first, false)) out += ", ";
    if (v.is_object()) out += Json(name).dump() + ": ";
    out += with_spaces(child);
  }
  return out + (v.is_object() ? "}" : "]");
}

TEST(JsonSchema, RandomSchemas) {
  std::mt19937 rng(9);
  int finished = 0;
  for (int trial = 0; trial < 250; ++trial) {
    const Sampled s = sampled(&rng, 1 + static_cast<int>(rng() % 3));
    ASSERT_TRUE(satisfies(s.schema, s.schema, s.value)) << s.schema << " " << s.value;
    const auto grammar = compiled(s.schema.dump());
    ASSERT_TRUE(grammar);
    for (const std::string& text : {s.value.dump(), with_spaces(s.value), s.value.dump(2), s.value.dump(1, '\t')})
      ASSERT_EQ(refusal(grammar, text, &rng), "") << s.schema << "\n" << text;
    for (int i = 0; i < 3; ++i) {
      const auto text = random_text(grammar, &rng, 300);
      if (!text) continue;
      ++finished;
      ASSERT_TRUE(Json::accept(*text)) << s.schema << "\n" << *text;
      ASSERT_TRUE(satisfies(s.schema, s.schema, Json::parse(*text))) << s.schema << "\n" << *text;
    }
  }
  EXPECT_GT(finished, 300);
}

TEST(JsonSchema, TheCheckerNoticesWhatIsWrong) {
  const auto bad = [](const char* schema, const char* value) {
    const Json s = Json::parse(schema);
    return !satisfies(s, s, Json::parse(value));
  };
  EXPECT_TRUE(bad(R"({"type":"integer"})", "1.5"));
  EXPECT_TRUE(bad(R"({"properties":{"a":{"maxLength":1}}})", R"({"a":"bc"})"));
  EXPECT_TRUE(bad(R"({"required":["a"]})", "{}"));
  EXPECT_TRUE(bad(R"({"additionalProperties":false})", R"({"a":1})"));
  EXPECT_TRUE(bad(R"({"items":{"exclusiveMaximum":2}})", "[1,2]"));
  EXPECT_TRUE(bad(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "1"));
  EXPECT_TRUE(bad(R"({"pattern":"^a$"})", R"("b")"));
}

}  // namespace
}  // namespace invar::grammar
