// What the vectors cannot show: messages, bounds, the clock, sharing.
#include "runtime/chat_template/chat_template.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/chat_template/limits.h"

namespace invar {
namespace {

using Json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

const std::chrono::system_clock::time_point kNow{std::chrono::seconds(1752148800)};

absl::StatusOr<std::string> render(const std::string& text, const Json& variables = Json::object(),
                                   std::chrono::system_clock::time_point now = kNow) {
  const auto parsed = ChatTemplate::parse(text, "file.jinja");
  if (!parsed.ok()) return parsed.status();
  return parsed->render(variables, now);
}

std::string text_of(const std::string& text, const Json& variables = Json::object()) {
  const auto got = render(text, variables);
  return got.ok() ? *got : "failed: " + std::string(got.status().message());
}

// The status of a template that has to fail.
absl::Status failure(const std::string& text, const Json& variables = Json::object()) {
  const auto got = render(text, variables);
  EXPECT_FALSE(got.ok()) << text.substr(0, 200) << " gave " << got->substr(0, 200);
  return got.status();
}

TEST(Messages, QuoteTheLineAndItsNumber) {
  struct Case {
    const char *text, *line, *what, *quoted;
  };
  for (const Case& c : {
           Case{"a\n{{ b c }}\n", "line 2", "unexpected 'c', expected '}}'", "\n  2 | {{ b c }}"},
           Case{"a\nb\n{% foo %}", "line 3", "there is no statement named 'foo'", "\n  3 | {% foo %}"},
           Case{"{% for x in y %}\n", "line 1", "expected '{% endfor %}'", ""},
           Case{"{% if x %}\n{% endfor %}", "line 2", "unexpected 'endfor' inside of 'if'", "\n  2 | {% endfor %}"},
           Case{"\n\n  {{ x | nosuch }}", "line 3", "no filter named 'nosuch'", "\n  3 | {{ x | nosuch }}"},
           Case{"{{ x is nosuch }}", "line 1", "no test named 'nosuch'", ""},
           Case{"{{ 'abc\n }}", "line 1", "a string has no end", ""},
           Case{"x\n{# y\n", "line 2", "missing end of comment", ""},
           Case{"{% raw %}\n", "line 1", "missing end of raw block", ""},
           Case{"{{ (1]] }}", "line 1", "unexpected ']', expected ')'", ""},
           Case{"{{ a ? b }}", "line 1", "unexpected character ?", ""},
           Case{"{% break %}", "line 1", "'break' outside of a loop", ""},
           Case{"\n{{ a.b.c }}", "line 2", "'a' is undefined", "\n  2 | {{ a.b.c }}"},
           Case{"{{\n 1 +\n 'x' }}", "line 2", "unsupported operand type(s) for +: 'int' and 'str'", "\n  2 | 1 +"},
           Case{"{% macro f() %}\n{{ 1 // 0 }}\n{% endmacro %}\n\n{{ f() }}", "line 2", "by zero", "\n  2 | {{ 1 // 0 }}"},
           Case{"{% set x = {} %}\n{{ x.y.z }}", "line 2", "'dict object' has no attribute 'y'", ""},
           Case{"{{ [].append(1) }}", "line 1", "access to attribute 'append' of 'list' object is unsafe", ""},
       }) {
    const absl::Status status = failure(c.text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("chat template file.jinja, "), HasSubstr(c.line), HasSubstr(c.what), HasSubstr(c.quoted)));
  }
}

TEST(Messages, LongLinesAreCut) {
  const absl::Status status = failure("{{ a.b }}" + std::string(5000, 'x') + "\xC3\xA9");
  EXPECT_LT(status.message().size(), 400u);
}

TEST(Messages, OtherFilesAreRefusedByName) {
  for (const char* statement :
       {"include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'", "block b", "autoescape true"}) {
    const absl::Status status = failure(std::string("\n{% ") + statement + " %}");
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << statement;
    const std::string word = std::string(statement).substr(0, std::string(statement).find(' '));
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("line 2"), HasSubstr("'{% " + word + " %}'")));
  }
}

TEST(Messages, UnknownFiltersInBranchesFailWhenReached) {
  EXPECT_EQ(text_of("{% if false %}{{ 1 | nosuch }}{% endif %}a"), "a");
  EXPECT_THAT(std::string(failure("{% if true %}{{ 1 | nosuch }}{% endif %}").message()), HasSubstr("'nosuch'"));
}

TEST(Messages, RaiseExceptionIsHandedOnAsItIs) {
  EXPECT_EQ(failure("\n\n{{ raise_exception('No ' ~ n ~ ' please') }}", {{"n", 5}}), absl::InvalidArgumentError("No 5 please"));
}

TEST(Messages, VariablesAndTextMustBeWellFormed) {
  EXPECT_EQ(render("x", Json::array()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(failure("a\xFFz").message()), HasSubstr("not UTF-8 at byte 1"));
  EXPECT_THAT(std::string(failure("{{ a }}", {{"a", "x\xC3"}}).message()), HasSubstr("not UTF-8"));
  EXPECT_EQ(text_of("x", {{"never named", "\xFF"}}), "x");
  EXPECT_THAT(std::string(failure(std::string(jinja::kMaxSourceBytes + 1, 'x')).message()), HasSubstr("bytes"));
}

// Each would run out of memory, stack or time.
TEST(Bounds, EndInResourceExhausted) {
  const std::string grow =
      "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
  const std::string loop3 =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";
  for (const std::string& text : {
           grow,
           loop3,
           std::string("{{ 'x' * 10000000000 }}"),
           std::string("{{ [0] * 10000000000 }}"),
           std::string("{{ 'x'.center(10000000000) }}"),
           std::string("{{ range(100001) | list }}"),
           std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
           std::string("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
           std::string("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
           std::string("{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}"),
           std::string("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}"),
           std::string("{% for i in range(100) %}{{ 'x' * 1000000 }}{% endfor %}"),
           std::string("{% for i in range(99999) %}{% set x = namespace(a='x' * 10000) %}{% endfor %}"),
           std::string("{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s == s ~ '' }}{% endfor %}"),
           std::string("{% set s = 'a,' * 1000000 %}{% for i in range(999) %}{% set x = s.split(',') %}{% endfor %}"),
           std::string(
               "{% set ns = namespace(x=()) %}{% for i in range(50) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}"),
           std::string(
               "{% set ns = namespace(x=()) %}{% for i in range(50) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ ns.x }}"),
           std::string("{% set d = {'a' * 1000000: 1} %}{% for i in range(99999) %}{{ d['a' * 1000000] }}{% endfor %}"),
           std::string(
               "{% set s = 'a' * 1000000 %}{% for a in range(9999) %}{% for b in range(999) %}{% if s.startswith(s) %}{% endif %}"
               "{% endfor %}{% endfor %}"),
           std::string("{% set s = 'é' * 1000000 %}{% for a in range(9999) %}{% if s[-1] == s[0] %}{% endif %}{% endfor %}"),
           std::string("{{ ('a' * 100000).replace('a', 'b' * 100000) }}"),
           std::string("{{ ('a' * 10000000) | list | tojson(indent=1000) }}"),
       }) {
    EXPECT_EQ(failure(text).code(), absl::StatusCode::kResourceExhausted) << text;
  }
}

TEST(Bounds, HoldForTheParser) {
  const auto repeated = [](const std::string& part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
  };
  for (const std::string& text : {
           "{{ " + repeated("(", 100000),
           "{{ " + repeated("[", 100000),
           "{{ " + repeated("not ", 100000) + "1 }}",
           "{{ " + repeated("-", 100000) + "1 }}",
           "{{ 1" + repeated(" + 1", 100000) + " }}",
           "{{ x" + repeated(".a", 100000) + " }}",
           "{{ x" + repeated("|list", 100000) + " }}",
           "{{ 1" + repeated(" if 1 else 1", 50000) + " }}",
           repeated("{% if 1 %}", 50000),
           "{% set " + repeated("(", 100000),
           "{{ f(" + repeated("a,", 100000) + ") }}",
       }) {
    EXPECT_EQ(failure(text).code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
  }
  // What is long and not deep is no matter.
  EXPECT_EQ(text_of("{{ 1" + repeated(" ~ 1", 10000) + " }}"), std::string(10001, '1'));
}

TEST(Bounds, HoldForVariables) {
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({std::move(deep)});
  EXPECT_EQ(failure("{{ x }}", {{"x", deep}}).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Bounds, SearchingIsLinear) {
  // Quadratic searches would take hours.
  const std::string text =
      "{% set h = 'a' * 4000000 %}{% set n = 'a' * 2000000 ~ 'b' %}{{ n in h }}{{ h.find(n) }}{{ h.rfind('b' ~ n) }}{{ "
      "h.count(n) }}"
      "{{ h.split(n)|length }}{{ h.rsplit('b' ~ n)|length }}{{ h.replace(n, '')|length }}";
  EXPECT_EQ(text_of(text), "False-1-10114000000");
}

TEST(Clock, IsTheCallersAndInUtc) {
  const auto at = [](int64_t seconds) { return std::chrono::system_clock::time_point(std::chrono::seconds(seconds)); };
  const std::string text = "{{ strftime_now('%Y-%m-%d %H:%M:%S %a %b %-d %j %G-W%V') }}";
  EXPECT_EQ(*render(text, Json::object(), at(0)), "1970-01-01 00:00:00 Thu Jan 1 001 1970-W01");
  EXPECT_EQ(*render(text, Json::object(), at(-1)), "1969-12-31 23:59:59 Wed Dec 31 365 1970-W01");
  EXPECT_EQ(*render(text, Json::object(), at(951782400)), "2000-02-29 00:00:00 Tue Feb 29 060 2000-W09");
  EXPECT_EQ(*render(text, Json::object(), at(1609459199)), "2020-12-31 23:59:59 Thu Dec 31 366 2020-W53");
  EXPECT_EQ(*render(text, Json::object(), at(1609459200)), "2021-01-01 00:00:00 Fri Jan 1 001 2020-W53");
  EXPECT_THAT(std::string(failure("{{ strftime_now('%Q') }}").message()), HasSubstr("%Q"));
}

TEST(Values, LargeIntegersStayExact) {
  EXPECT_EQ(text_of("{{ x }} {{ x + 1 }} {{ x | tojson }}", {{"x", 18446744073709551615u}}),
            "18446744073709551615 18446744073709551616 18446744073709551615");
  EXPECT_THAT(std::string(failure("{{ 10 ** 100 }}").message()), HasSubstr("too large"));
}

TEST(Values, KeysKeepTheirOrder) {
  EXPECT_EQ(text_of("{{ x | tojson }}", {{"x", Json::parse(R"({"z":1,"a":2,"m":{"y":[],"b":{}}})")}}),
            R"({"z": 1, "a": 2, "m": {"y": [], "b": {}}})");
  // Enough keys for the dict to be hashed.
  Json many = Json::object();
  for (int i = 99; i >= 0; --i) many["k" + std::to_string(i)] = i;
  EXPECT_EQ(text_of("{{ x.k7 }}{{ x['k99'] }}{{ x.k100 is defined }}{{ 'k50' in x }}{{ x | first }}{{ dict(x, k99=5).k99 }}",
                    {{"x", many}}),
            "799FalseTruek995");
}

TEST(Values, MacrosAndLoopsOutliveTheirScope) {
  EXPECT_EQ(text_of("{% set ns = namespace() %}{% for i in [1, 2] %}{% set y = i * 10 %}{% macro f() %}{{ y }}{{ loop.index }}{% "
                    "endmacro %}"
                    "{% set ns.f = f %}{% set ns.loop = loop %}{% endfor %}{{ ns.f() }} {{ ns.loop.index }}{{ ns.loop.last }}"),
            "202 2True");
}

TEST(Sharing, ThreadsRenderTheSameTemplate) {
  const auto parsed =
      ChatTemplate::parse("{% set x = [1, 'a', {'b': [2.5]}] %}{% for i in range(n) %}{{ x ~ i }}{% endfor %}", "t");
  ASSERT_TRUE(parsed.ok());
  const std::string wanted = *parsed->render({{"n", 50}}, kNow);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) EXPECT_EQ(*parsed->render({{"n", 50}}, kNow), wanted);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace invar
