// Tools: forced and chosen calls, whole and streamed, and what is refused before any work.
#include <set>

#include "rpc/http/http_harness.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;

Json tool(const char* name, const Json& parameters) {
  return {{"type", "function"}, {"function", {{"name", name}, {"description", "does things"}, {"parameters", parameters}}}};
}

const Json& tools() {
  static const Json all = Json::array(
      {tool("weather", {{"type", "object"},
                        {"properties", {{"city", {{"type", "string"}, {"maxLength", 8}}}, {"unit", {{"enum", {"c", "f"}}}}}},
                        {"required", {"city", "unit"}}}),
       tool("time", {{"type", "object"},
                     {"properties", {{"zone", {{"$ref", "#/$defs/zone"}}}}},
                     {"required", {"zone"}},
                     {"$defs", {{"zone", {{"type", "integer"}, {"minimum", -12}, {"maximum", 14}}}}}})});
  return all;
}

Json chat(int max_tokens) {
  return {{"messages", Json::array({{{"role", "user"}, {"content", "how is the weather"}}})},
          {"max_tokens", max_tokens},
          {"temperature", 1},
          {"seed", 3},
          {"tools", tools()}};
}

// What a stream said, put together as clients do it.
Json joined(const std::vector<Json>& events, size_t index = 0) {
  Json message{{"content", ""}, {"tool_calls", Json::array()}};
  std::string finish;
  for (const Json& event : events)
    for (const Json& choice : event["choices"]) {
      if (choice["index"] != index) continue;
      const Json& delta = choice["delta"];
      if (delta.contains("content"))
        message["content"] = message["content"].get<std::string>() + delta["content"].get<std::string>();
      for (const Json& call : delta.value("tool_calls", Json::array())) {
        const size_t at = call["index"];
        Json& calls = message["tool_calls"];
        if (at == calls.size()) {
          EXPECT_EQ(call["type"], "function");
          calls.push_back(
              {{"id", call["id"]}, {"type", "function"}, {"function", {{"name", call["function"]["name"]}, {"arguments", ""}}}});
        } else {
          EXPECT_FALSE(call.contains("id")) << call;
        }
        std::string& arguments = calls[at]["function"]["arguments"].get_ref<std::string&>();
        arguments += call["function"]["arguments"].get<std::string>();
      }
      if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
    }
  return {{"message", message}, {"finish_reason", finish}};
}

// A whole answer's message as a stream's joined one.
Json plain(const Json& choice) {
  const Json& message = choice["message"];
  return {{"message",
           {{"content", message["content"].is_null() ? Json("") : message["content"]},
            {"tool_calls", message.value("tool_calls", Json::array())}}},
          {"finish_reason", choice["finish_reason"]}};
}

TEST(HttpTools, RequiredCallsAreMadeUnderTheirSchemas) {
  HttpService service{HttpArrangement()};
  Json body = chat(400);
  body["tool_choice"] = "required";
  body["n"] = 3;
  const Json answer = service.post("/v1/chat/completions", body).json();
  ASSERT_EQ(answer["choices"].size(), 3u) << answer;
  std::set<std::string> ids;
  int finished = 0;
  for (const Json& choice : answer["choices"]) {
    const Json& message = choice["message"];
    EXPECT_TRUE(message["content"].is_null()) << choice;
    ASSERT_GE(message["tool_calls"].size(), 1u) << choice;
    if (choice["finish_reason"] == "length") continue;
    ++finished;
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    for (const Json& call : message["tool_calls"]) {
      EXPECT_EQ(call["id"].get<std::string>().rfind("chatcmpl-tool-", 0), 0u);
      EXPECT_TRUE(ids.insert(call["id"]).second) << "an id twice";
      const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false);
      if (call["function"]["name"] == "weather") {
        EXPECT_TRUE(arguments["city"].is_string() && (arguments["unit"] == "c" || arguments["unit"] == "f")) << call;
      } else {
        EXPECT_EQ(call["function"]["name"], "time");
        EXPECT_TRUE(arguments["zone"] >= -12 && arguments["zone"] <= 14) << call;
      }
    }
  }
  EXPECT_GT(finished, 0);
  // Again: the same, ids too. Streamed: the same.
  EXPECT_EQ(service.post("/v1/chat/completions", body).json()["choices"], answer["choices"]);
  const std::vector<Json> events = service.stream("/v1/chat/completions", body);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(joined(events, i), plain(answer["choices"][i]));
  EXPECT_EQ(events.back()["invar"], answer["invar"]);
  // Another seed, other ids and calls.
  body["seed"] = 4;
  EXPECT_NE(service.post("/v1/chat/completions", body).json()["choices"], answer["choices"]);
}

TEST(HttpTools, OneCallWhereSeveralAreNotWanted) {
  HttpService service{HttpArrangement()};
  Json body = chat(300);
  body["tool_choice"] = "required";
  body["parallel_tool_calls"] = false;
  for (const int seed : {1, 2, 3, 4, 5, 6}) {
    body["seed"] = seed;
    const Json choice = service.post("/v1/chat/completions", body).json()["choices"][0];
    EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
  }
}

TEST(HttpTools, ANamedFunctionIsCalled) {
  HttpService service{HttpArrangement()};
  Json body = chat(200);
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "time"}}}};
  body["logprobs"] = true;
  const Json choice = service.post("/v1/chat/completions", body).json()["choices"][0];
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
  const Json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["name"], "time");
  const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false);
  EXPECT_TRUE(arguments["zone"].is_number_integer()) << call;
  EXPECT_EQ(choice["finish_reason"], "stop") << "as OpenAI and vLLM";
  EXPECT_GT(choice["logprobs"]["content"].size(), 3u);
  EXPECT_EQ(joined(service.stream("/v1/chat/completions", body)), plain(choice));
}

TEST(HttpTools, CutOffByTheLimitIsALength) {
  HttpService service{HttpArrangement()};
  Json body = chat(6);
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "weather"}}}};
  const Json choice = service.post("/v1/chat/completions", body).json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
  // Wherever a list of calls is cut off: no content behind its first call, and the stream says the same.
  for (int most = 20; most < 120; most += 9) {
    body = chat(most);
    body["tool_choice"] = "required";
    const Json cut = service.post("/v1/chat/completions", body).json()["choices"][0];
    EXPECT_TRUE(cut["message"]["content"].is_null() || !cut["message"].contains("tool_calls")) << cut;
    EXPECT_EQ(joined(service.stream("/v1/chat/completions", body)), plain(cut)) << most;
  }
}

// The model is made to write what a trained one would, by a constraint.
TEST(HttpTools, ChosenCallsAreReadFromTheModelsForm) {
  struct Form {
    const char* name;
    const char* regex;
    const char* content;
    std::vector<const char*> calls;
  };
  const std::vector<Form> forms = {
      {"hermes",
       "Let me see\\. <tool_call>\\n\\{\"name\": \"time\", \"arguments\": \\{\"zone\": [1-9][0-9]?\\}\\}\\n</tool_call>\\n"
       "<tool_call>\\{\"arguments\": \\{\"city\": \"[a-z]{3,9}\"\\}, \"name\": \"weather\"\\}</tool_call>",
       "Let me see. ",
       {"time", "weather"}},
      {"llama3_json", "\\{\"name\": \"time\", \"parameters\": \\{\"zone\": [1-9][0-9]?\\}\\}", "", {"time"}},
      {"mistral",
       "[A-Z][a-z]{2}\\.\\[TOOL_CALLS\\] ?\\[\\{\"name\": \"time\", \"arguments\": \\{\"zone\": [0-9]\\}\\}, \\{\"name\": "
       "\"time\", "
       "\"arguments\": \\{\"zone\": [0-9]\\}\\}\\]",
       nullptr,
       {"time", "time"}}};
  for (const Form& form : forms) {
    HttpArrangement given;
    given.api.tool_format = *tool_call::format_named(form.name);
    HttpService service(given);
    Json body = chat(300);
    body["guided_regex"] = form.regex;
    const Json answer = service.post("/v1/chat/completions", body).json();
    ASSERT_TRUE(answer.contains("choices")) << answer;
    const Json& choice = answer["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
    ASSERT_EQ(choice["message"]["tool_calls"].size(), form.calls.size()) << choice;
    for (size_t i = 0; i < form.calls.size(); ++i) {
      const Json& call = choice["message"]["tool_calls"][i];
      EXPECT_EQ(call["function"]["name"], form.calls[i]);
      EXPECT_TRUE(Json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false).is_object()) << call;
      EXPECT_EQ(call["id"].get<std::string>().size(), form.name == std::string("mistral") ? 9u : 46u);
    }
    if (form.content != nullptr) {
      EXPECT_EQ(plain(choice)["message"]["content"], form.content);
    }
    EXPECT_EQ(joined(service.stream("/v1/chat/completions", body)), plain(choice)) << form.name;
    EXPECT_EQ(service.post("/v1/chat/completions", body).json()["choices"], answer["choices"]);
    body["parallel_tool_calls"] = false;
    EXPECT_EQ(service.post("/v1/chat/completions", body).json()["choices"][0]["message"]["tool_calls"].size(), 1u);
    EXPECT_EQ(joined(service.stream("/v1/chat/completions", body))["message"]["tool_calls"].size(), 1u);
    // Not asked to call: the text as it is.
    body["tool_choice"] = "none";
    const Json text = service.post("/v1/chat/completions", body).json()["choices"][0];
    EXPECT_FALSE(text["message"].contains("tool_calls"));
    EXPECT_THAT(text["message"]["content"].get<std::string>(), HasSubstr("\"time\""));
    EXPECT_EQ(text["finish_reason"], "stop");
  }
}

TEST(HttpTools, TextWithoutCallsIsContent) {
  HttpArrangement given;
  given.api.tool_format = tool_call::Format::kHermes;
  HttpService service(given);
  Json body = chat(20);
  body["guided_regex"] = "It is <b>[a-z]{3,5}</b>";
  const Json choice = service.post("/v1/chat/completions", body).json()["choices"][0];
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  EXPECT_THAT(choice["message"]["content"].get<std::string>(), HasSubstr("It is <b>"));
  EXPECT_EQ(joined(service.stream("/v1/chat/completions", body)), plain(choice));
}

TEST(HttpTools, WhatCannotBeIsRefusedByName) {
  HttpService service{HttpArrangement()};
  struct Case {
    Json change;
    const char* param;
    const char* message;
  };
  const Json named{{"type", "function"}, {"function", {{"name", "dance"}}}};
  const std::vector<Case> cases = {
      {Json::object(), "tools", "--enable-auto-tool-choice"},
      {{{"tool_choice", "auto"}}, "tool_choice", "--tool-call-parser"},
      {{{"tool_choice", "any"}}, "tool_choice", "required"},
      {{{"tool_choice", 5}}, "tool_choice", "5"},
      {{{"tool_choice", named}}, "tool_choice", "dance"},
      {{{"tool_choice", {{"type", "function"}}}}, "tool_choice.function", "missing"},
      {{{"tool_choice", {{"type", "custom"}, {"function", {{"name", "time"}}}}}}, "tool_choice.type", "function"},
      {{{"tool_choice", "required"}, {"tools", nullptr}}, "tool_choice", "needs tools"},
      {{{"tool_choice", "required"}, {"tools", Json::array()}}, "tool_choice", "needs tools"},
      {{{"tool_choice", named}, {"tools", nullptr}}, "tool_choice", "needs tools"},
      {{{"tool_choice", "required"}, {"guided_regex", "a"}}, "tool_choice", "exclude"},
      {{{"tool_choice", "required"}, {"response_format", {{"type", "json_object"}}}}, "tool_choice", "exclude"},
      {{{"tools", "hammer"}}, "tools", "list"},
      {{{"tools", {5}}}, "tools[0]", "object"},
      {{{"tools", Json::array({Json::object()})}}, "tools[0].function", "missing"},
      {{{"tools", Json::array({{{"type", "web_search"}}})}}, "tools[0].type", "web_search"},
      {{{"tools", Json::array({{{"type", "function"}, {"function", Json::object()}}})}}, "tools[0].function.name", "missing"},
      {{{"tools", Json::array({tool("f", 5)})}}, "tools[0].function.parameters", "object"},
      {{{"tools", Json::array({{{"type", "function"}, {"function", {{"parameters", Json::object()}}}}})},
        {"tool_choice", "required"}},
       "tools[0].function.name",
       "missing"},
      {{{"tools", Json::array({tool("f", {{"not", Json::object()}})})}, {"tool_choice", "required"}}, "tools", "not"},
      {{{"parallel_tool_calls", "no"}}, "parallel_tool_calls", "true or false"},
  };
  for (const Case& c : cases) {
    Json body = chat(10);
    body.update(c.change);
    const Reply reply = service.post("/v1/chat/completions", body);
    EXPECT_EQ(reply.status, 400) << c.change << reply.body;
    const Json error = reply.json().value("error", Json());
    EXPECT_EQ(error.value("param", ""), c.param) << reply.body;
    EXPECT_THAT(error.value("message", ""), HasSubstr(c.message));
  }
  // Tools that are only shown to the model need nothing.
  Json body = chat(3);
  body["tool_choice"] = "none";
  EXPECT_EQ(service.post("/v1/chat/completions", body).status, 200);
}

}  // namespace
}  // namespace invar::http
