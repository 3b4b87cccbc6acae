// /v1/completions, /v1/chat/completions and /generate: whole and streamed answers, and what is refused.
#include <cstring>

#include "rpc/http/http_harness.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

std::vector<int32_t> ids_of(const Json& list) { return list.get<std::vector<int32_t>>(); }

float float_of(uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

TEST(HttpCompletions, AnswersWithWhatTheEngineSays) {
  HttpService service{HttpArrangement()};
  const Reply reply = service.post("/v1/completions", completion(kPrompt, 20), "X-Request-Id: mine-7\r\n");
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.headers.at("x-request-id"), "mine-7");
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  const Json answer = reply.json();
  EXPECT_EQ(answer["id"], "cmpl-mine-7");
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["model"], "fake");
  EXPECT_EQ(answer["system_fingerprint"], "N1+D1");
  ASSERT_EQ(answer["choices"].size(), 1u);
  const Json& choice = answer["choices"][0];
  const std::vector<int32_t> wanted = service.rpc.wanted(kPrompt, 20);
  EXPECT_EQ(ids_of(choice["token_ids"]), wanted);
  EXPECT_EQ(choice["text"], service.rpc.engine->tokenizer()->decode(wanted, true));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["stop_reason"], nullptr);
  EXPECT_EQ(choice["logprobs"], nullptr);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 8);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 20);
  EXPECT_EQ(answer["usage"]["total_tokens"], 28);
  EXPECT_EQ(answer["invar"]["numerics_id"], "N1");
  EXPECT_EQ(answer["invar"]["model_digest"], "D1");
}

TEST(HttpCompletions, TheDigestIsThatOfGrpc) {
  HttpService service{HttpArrangement()};
  v1::GenerateRequest request = rpc::request_of(kPrompt, 12, 0.7f);
  request.mutable_sampling_params()->set_seed(5);
  const auto whole = service.rpc.client->generate_whole(request, 20s);
  ASSERT_TRUE(whole.ok()) << whole.status();
  Json body = completion(kPrompt, 12);
  body["temperature"] = 0.7;
  body["seed"] = 5;
  const Json answer = service.post("/v1/completions", body).json();
  EXPECT_EQ(answer["invar"]["response_digest"], whole->choices(0).response_digest());
  const Json chunk = service.stream("/v1/completions", body).back();
  EXPECT_EQ(chunk["invar"]["response_digest"], whole->choices(0).response_digest());
  const Json native =
      service
          .post("/generate", {{"input_ids", kPrompt},
                              {"sampling_params", {{"max_new_tokens", 12}, {"temperature", 0.7}, {"sampling_seed", 5}}}})
          .json();
  EXPECT_EQ(native["invar"]["response_digest"], whole->choices(0).response_digest());
  body["seed"] = 6;  // control
  EXPECT_NE(service.post("/v1/completions", body).json()["invar"]["response_digest"], whole->choices(0).response_digest());
}

TEST(HttpCompletions, PromptsOfEveryForm) {
  HttpService service{HttpArrangement()};
  const auto texts = [&](const Json& prompt) {
    Json body = completion({}, 4);
    body["prompt"] = prompt;
    const Reply reply = service.post("/v1/completions", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    std::vector<Json> out;
    const Json answer = reply.json();
    for (const Json& choice : answer["choices"]) {
      EXPECT_EQ(choice["index"], out.size());
      out.push_back(choice["token_ids"]);
    }
    return out;
  };
  const auto ids = *service.rpc.engine->tokenizer()->encode("once upon a time", true);
  const std::vector<Json> one = texts("once upon a time");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(texts(ids), one);
  EXPECT_EQ(texts(Json::array({"once upon a time", "call me"}))[0], one[0]);
  EXPECT_EQ(texts(Json::array({kPrompt, ids}))[1], one[0]);
  EXPECT_EQ(texts(Json::array({"call me", "once upon a time", "call me"})).size(), 3u);
  EXPECT_NE(texts("call me"), one) << "the answer must depend on the prompt";
}

TEST(HttpCompletions, SeveralChoicesOfSeveralPrompts) {
  HttpService service{HttpArrangement()};
  Json body = completion({}, 3);
  body["prompt"] = Json::array({"once upon a time", "call me"});
  body["n"] = 2;
  body["temperature"] = 1;
  body["seed"] = 9;
  body["invar"] = {{"receipt", true}};
  const Json answer = service.post("/v1/completions", body).json();
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  EXPECT_NE(answer["choices"][0]["token_ids"], answer["choices"][1]["token_ids"]);
  ASSERT_EQ(answer["invar"]["choices"].size(), 4u);
  for (const Json& choice : answer["invar"]["choices"])
    EXPECT_EQ(choice["receipt"]["response_digest"], choice["response_digest"]);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
}

TEST(HttpCompletions, EchoAndLogprobs) {
  HttpService service{HttpArrangement()};
  Json body = completion({}, 3);
  body["prompt"] = "once upon a time";
  body["echo"] = true;
  body["logprobs"] = 2;
  body["invar"] = {{"logprob_bits", true}};
  const Json choice = service.post("/v1/completions", body).json()["choices"][0];
  const auto& tokenizer = *service.rpc.engine->tokenizer();
  const auto ids = *tokenizer.encode("once upon a time", true);
  EXPECT_EQ(choice["text"].get<std::string>().rfind("once upon a time", 0), 0u) << choice["text"];
  const Json& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), ids.size() + 3);
  EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  for (size_t i = 1; i < ids.size() + 3; ++i) {
    EXPECT_EQ(logprobs["token_logprobs"][i].get<float>(), float_of(logprobs["token_logprob_bits"][i].get<uint32_t>())) << i;
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 1u);
    EXPECT_LE(logprobs["top_logprobs"][i].size(), 3u);
    EXPECT_TRUE(logprobs["top_logprobs"][i].contains(logprobs["tokens"][i].get<std::string>()));
    EXPECT_GT(logprobs["text_offset"][i], logprobs["text_offset"][i - 1].get<int>() - 1);
  }
  // The prompt alone.
  body["max_tokens"] = 0;
  const Json alone = service.post("/v1/completions", body).json();
  EXPECT_EQ(alone["choices"][0]["text"], "once upon a time");
  EXPECT_EQ(alone["choices"][0]["logprobs"]["tokens"].size(), ids.size());
  EXPECT_EQ(alone["choices"][0]["logprobs"]["token_logprobs"][1], logprobs["token_logprobs"][1]);
  EXPECT_EQ(alone["usage"]["completion_tokens"], 0);
}

TEST(HttpCompletions, EchoAndLogprobsInAStream) {
  HttpService service{HttpArrangement()};
  for (const int most : {5, 0}) {
    Json body = completion({}, most);
    body["prompt"] = Json::array({"once upon a time", "call me"});
    body["n"] = 2;
    body["temperature"] = 1;
    body["seed"] = 4;
    body["echo"] = true;
    body["logprobs"] = 1;
    const Json whole = service.post("/v1/completions", body).json();
    std::vector<std::string> text(4);
    std::vector<std::map<std::string, Json>> columns(4);
    for (const Json& event : service.stream("/v1/completions", body)) {
      const Json& choice = event["choices"][0];
      const size_t index = choice["index"];
      text[index] += choice["text"];
      for (const auto& [name, list] : choice["logprobs"].items())
        for (const Json& one : list) columns[index][name].push_back(one);
    }
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(text[i], whole["choices"][i]["text"]);
      for (const char* name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
        EXPECT_EQ(columns[i][name], whole["choices"][i]["logprobs"][name]) << name << " of choice " << i;
    }
  }
}

TEST(HttpCompletions, TruncatedPromptsAreTheirEnds) {
  HttpService service{HttpArrangement()};
  Json body = completion(kPrompt, 6);
  body["truncate_prompt_tokens"] = 3;
  EXPECT_EQ(ids_of(service.post("/v1/completions", body).json()["choices"][0]["token_ids"]), service.rpc.wanted({9, 2, 6}, 6));
  body["truncate_prompt_tokens"] = 100;
  EXPECT_EQ(ids_of(service.post("/v1/completions", body).json()["choices"][0]["token_ids"]), service.rpc.wanted(kPrompt, 6));
  const auto& tokenizer = *service.rpc.engine->tokenizer();
  const auto ids = *tokenizer.encode("once upon a time", true);
  body["prompt"] = "once upon a time";
  body["truncate_prompt_tokens"] = 2;
  body["echo"] = true;
  const Json choice = service.post("/v1/completions", body).json()["choices"][0];
  EXPECT_EQ(ids_of(choice["token_ids"]), service.rpc.wanted({ids.end() - 2, ids.end()}, 6));
  EXPECT_EQ(choice["text"].get<std::string>().rfind(tokenizer.decode({ids.data() + ids.size() - 2, 2}, false), 0), 0u)
      << choice["text"];
  // A prompt beyond the context is cut to what leaves room for an answer.
  const int64_t longest = service.rpc.engine->options().max_model_len;
  body = completion(std::vector<int32_t>(static_cast<size_t>(longest) + 50, 7), 6);
  EXPECT_EQ(service.post("/v1/completions", body).status, 400);
  body["truncate_prompt_tokens"] = -1;
  EXPECT_EQ(service.post("/v1/completions", body).json()["usage"]["prompt_tokens"], longest - 1);
}

TEST(HttpCompletions, StopStringsAndIdsAsTheyAreAskedFor) {
  HttpService service{HttpArrangement()};
  const auto& tokenizer = *service.rpc.engine->tokenizer();
  const std::vector<int32_t> all = service.rpc.wanted(kPrompt, 10);
  Json body = completion(kPrompt, 10);
  const std::string piece = tokenizer.decode({&all[2], 1}, true);
  body["stop"] = {"never said", piece};
  body["include_stop_str_in_output"] = true;
  const Json choice = service.post("/v1/completions", body).json()["choices"][0];
  EXPECT_EQ(choice["stop_reason"], piece);
  EXPECT_EQ(choice["text"], tokenizer.decode({all.data(), 3}, true));
  body = completion(kPrompt, 3);
  body["logprobs"] = 0;
  body["return_tokens_as_token_ids"] = true;
  const Json tokens = service.post("/v1/completions", body).json()["choices"][0]["logprobs"]["tokens"];
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(tokens[i], absl::StrCat("token_id:", all[i]));
}

TEST(HttpCompletions, GrammarsUnderAllTheirNames) {
  HttpService service{HttpArrangement()};
  const std::string grammar = "root ::= s\ns ::= \"(\" s \")\" | [a-c]{2}";
  const auto is_right = [](std::string text) {
    while (text.size() > 2 && text.front() == '(' && text.back() == ')') text = text.substr(1, text.size() - 2);
    return text.size() == 2 && text.find_first_not_of("abc") == std::string::npos;
  };
  Json body = completion(kPrompt, 60);
  body["temperature"] = 1;
  body["seed"] = 8;
  EXPECT_FALSE(is_right(service.post("/v1/completions", body).json()["choices"][0]["text"]));
  for (const auto& [name, value] :
       {std::pair<const char*, Json>{"guided_grammar", grammar}, {"structured_outputs", {{"grammar", grammar}}}}) {
    Json bound = body;
    bound[name] = value;
    const Json choice = service.post("/v1/completions", bound).json()["choices"][0];
    EXPECT_TRUE(choice["finish_reason"] == "stop" && is_right(choice["text"])) << choice;
  }
  const Json native =
      service
          .post("/generate",
                {{"input_ids", kPrompt}, {"sampling_params", {{"max_new_tokens", 60}, {"sampling_seed", 8}, {"ebnf", grammar}}}})
          .json();
  EXPECT_TRUE(is_right(native["text"])) << native;
}

TEST(HttpCompletions, AStreamSaysWhatAWholeAnswerSays) {
  HttpService service{HttpArrangement()};
  Json body = completion({}, 40);
  body["prompt"] = Json::array({"once upon a time", "call me"});
  body["n"] = 2;
  body["temperature"] = 0.9;
  body["seed"] = 3;
  body["logprobs"] = 1;
  const Json whole = service.post("/v1/completions", body).json();
  body["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", true}};
  const std::vector<Json> events = service.stream("/v1/completions", body);
  std::map<int, std::string> text;
  std::map<int, std::vector<int32_t>> tokens;
  std::map<int, Json> offsets, finish;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    ASSERT_EQ(events[i]["choices"].size(), 1u) << events[i];
    EXPECT_EQ(events[i]["object"], "text_completion");
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    const Json& choice = events[i]["choices"][0];
    const int index = choice["index"];
    text[index] += choice["text"];
    for (const int32_t id : ids_of(choice["token_ids"])) tokens[index].push_back(id);
    for (const Json& offset : choice["logprobs"]["text_offset"]) offsets[index].push_back(offset);
    EXPECT_TRUE(finish[index].is_null()) << "a chunk after the end of choice " << index;
    finish[index] = choice["finish_reason"];
    EXPECT_EQ(events[i]["usage"]["completion_tokens"], tokens[index].size());
  }
  ASSERT_EQ(text.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(text[i], whole["choices"][i]["text"]);
    EXPECT_EQ(tokens[i], ids_of(whole["choices"][i]["token_ids"]));
    EXPECT_EQ(offsets[i], whole["choices"][i]["logprobs"]["text_offset"]);
    EXPECT_EQ(finish[i], "length");
  }
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
  EXPECT_EQ(events.back()["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
  EXPECT_EQ(events.back()["invar"], whole["invar"]);
}

TEST(HttpCompletions, StopsAreNamedAsVllmNamesThem) {
  HttpService service{HttpArrangement()};
  const std::vector<int32_t> all = service.rpc.wanted(kPrompt, 10);
  Json body = completion(kPrompt, 10);
  body["stop_token_ids"] = {all[4]};
  const Json by_id = service.post("/v1/completions", body).json()["choices"][0];
  EXPECT_EQ(by_id["finish_reason"], "stop");
  EXPECT_EQ(by_id["stop_reason"], all[4]);
  body.erase("stop_token_ids");
  const std::string piece = service.rpc.engine->tokenizer()->decode({&all[2], 1}, true);
  ASSERT_FALSE(piece.empty());
  body["stop"] = piece;
  const Json by_text = service.post("/v1/completions", body).json()["choices"][0];
  EXPECT_EQ(by_text["finish_reason"], "stop");
  EXPECT_EQ(by_text["stop_reason"], piece);
  EXPECT_THAT(by_text["text"].get<std::string>(), Not(HasSubstr(piece)));
}

TEST(HttpCompletions, ReceiptsByFieldAndByHeader) {
  HttpService service{HttpArrangement()};
  Json body = completion(kPrompt, 5);
  EXPECT_FALSE(service.post("/v1/completions", body).json()["invar"].contains("receipt"));
  const Json by_header = service.post("/v1/completions", body, "X-Invar-Receipt: 1\r\n").json()["invar"];
  EXPECT_EQ(ids_of(by_header["receipt"]["output_token_ids"]), service.rpc.wanted(kPrompt, 5));
  EXPECT_EQ(by_header["receipt"]["numerics_id"], "N1");
  body["invar"] = {{"receipt", true}};
  EXPECT_EQ(service.post("/v1/completions", body).json()["invar"], by_header);
  EXPECT_EQ(service.stream("/v1/completions", body).back()["invar"], by_header);
}

TEST(HttpCompletions, ARequiredModelDigestMustBeServed) {
  HttpService service{HttpArrangement()};
  Json body = completion(kPrompt, 5);
  body["invar"] = {{"require_model_digest", "D1"}};
  EXPECT_EQ(service.post("/v1/completions", body).status, 200);
  body["invar"] = {{"require_model_digest", "D2"}};
  const Reply refused = service.post("/v1/completions", body);
  EXPECT_EQ(refused.status, 412) << refused.body;
  EXPECT_EQ(refused.json()["error"]["code"], "model_digest_mismatch");
  EXPECT_EQ(refused.json()["error"]["param"], "invar.require_model_digest");
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 5), "X-Invar-Require-Model-Digest: D2\r\n").status, 412);
  EXPECT_THAT(service.get("/metrics").body,
              HasSubstr("invar_digest_mismatches_total{model_name=\"fake\",kind=\"required_model\"} 2\n"));
}

TEST(HttpErrors, NameTheFieldAndLiveOn) {
  HttpService service{HttpArrangement()};
  struct Case {
    const char* path;
    Json change;
    const char* param;
    int status = 400;
  };
  const char* const kText = "/v1/completions";
  const char* const kChat = "/v1/chat/completions";
  const Json schema_missing{{"type", "json_schema"}, {"json_schema", {{"name", "x"}}}};
  const std::vector<Case> cases = {
      {kText, {{"prompt", nullptr}}, "prompt"},
      {kText, {{"prompt", 5}}, "prompt"},
      {kText, {{"prompt", Json::array()}}, "prompt"},
      {kText, {{"prompt", {1, "x"}}}, "prompt"},
      {kText, {{"prompt", {1, -2}}}, "prompt"},
      {kText, {{"prompt", {1, 2048}}}, "prompt[1]"},
      {kText, {{"prompt", Json::array({"a", 5})}}, "prompt[1]"},
      {kText, {{"prompt", std::vector<int>(70000, 1)}}, "prompt"},
      {kText, {{"model", "other"}}, "model", 404},
      {kText, {{"model", 7}}, "model"},
      {kText, {{"temperature", -1}}, "temperature"},
      {kText, {{"temperature", "hot"}}, "temperature"},
      {kText, {{"temperature", 1e39}}, "temperature"},
      {kText, {{"top_p", 0}}, "top_p"},
      {kText, {{"top_p", 1.5}}, "top_p"},
      {kText, {{"top_k", -7}}, "top_k"},
      {kText, {{"top_k", 1.5}}, "top_k"},
      {kText, {{"min_p", 2}}, "min_p"},
      {kText, {{"n", 0}}, "n"},
      {kText, {{"n", 100000}}, "n"},
      {kText, {{"best_of", 3}}, "best_of"},
      {kText, {{"max_tokens", 0}}, "max_tokens"},
      {kText, {{"max_tokens", -3}}, "max_tokens"},
      {kText, {{"max_tokens", "many"}}, "max_tokens"},
      {kText, {{"min_tokens", 1000}}, "min_tokens"},
      {kText, {{"logprobs", 1000}}, "logprobs"},
      {kText, {{"logprobs", true}}, "logprobs"},
      {kText, {{"prompt_logprobs", -1}}, "prompt_logprobs"},
      {kText, {{"presence_penalty", 3}}, "presence_penalty"},
      {kText, {{"frequency_penalty", -3}}, "frequency_penalty"},
      {kText, {{"repetition_penalty", 0}}, "repetition_penalty"},
      {kText, {{"stop", {"a", 5}}}, "stop[1]"},
      {kText, {{"stop", ""}}, "stop[0]"},
      {kText, {{"stop_token_ids", {-5}}}, "stop_token_ids[0]"},
      {kText, {{"seed", "x"}}, "seed"},
      {kText, {{"logit_bias", {{"x", 1}}}}, "logit_bias"},
      {kText, {{"stream", "yes"}}, "stream"},
      {kText, {{"stream_options", {{"include_usage", true}}}}, "stream_options"},
      {kText, {{"use_beam_search", true}}, "use_beam_search"},
      {kText, {{"suffix", "x"}}, "suffix"},
      {kText, {{"response_format", {{"type", "xml"}}}}, "response_format.type"},
      {kText, {{"response_format", schema_missing}}, "response_format.json_schema.schema"},
      {kText, {{"guided_choice", Json::array()}}, "guided_choice"},
      {kText, {{"invar", {{"receipts", true}}}}, "invar.receipts"},
      {kText, {{"prompt_logprobs", 1}, {"stream", true}}, "prompt_logprobs"},
      {kText, {{"truncate_prompt_tokens", 0}}, "truncate_prompt_tokens"},
      {kText, {{"truncate_prompt_tokens", 1 << 30}}, "truncate_prompt_tokens"},
      {kText, {{"response_format", {{"type", "structural_tag"}}}}, "response_format.type"},
      {kText, {{"structured_outputs", {{"structural_tag", "{}"}}}}, "structured_outputs.structural_tag"},
      {kText, {{"guided_grammar", "root ::= ("}}, "guided_grammar"},
      {kText, {{"guided_grammar", "root ::= \"a\""}, {"guided_regex", "a"}}, "guided_regex"},
      {kText, {{"structured_outputs", {{"grammar", "start: \"a\""}}}}, "structured_outputs.grammar"},
      {kChat, {{"messages", nullptr}}, "messages"},
      {kChat, {{"messages", Json::array()}}, "messages"},
      {kChat, {{"messages", Json::array({5})}}, "messages[0]"},
      {kChat, {{"messages", Json::array({{{"content", "x"}}})}}, "messages[0].role"},
      {kChat, {{"messages", Json::array({{{"role", "user"}}})}}, "messages[0].content"},
      {kChat,
       {{"messages", Json::array({{{"role", "user"}, {"content", Json::array({{{"type", "image_url"}}})}}})}},
       "messages[0].content[0].type"},
      {kChat, {{"messages", Json::array({{{"role", "nobody"}, {"content", "x"}}})}}, "messages"},
      {kChat, {{"tool_choice", "required"}}, "tool_choice"},
      {kChat, {{"tools", "hammer"}}, "tools"},
      {kChat, {{"top_logprobs", 3}}, "top_logprobs"},
      {kChat, {{"max_completion_tokens", 0}}, "max_completion_tokens"},
      {kChat, {{"logprobs", true}, {"top_logprobs", 1000}}, "top_logprobs"},
      {kText, {{"guided_grammar", "x"}}, "guided_grammar"},
      {kText, {{"guided_regex", "("}}, "guided_regex"},
      {kText, {{"structured_outputs", {{"regex", "("}}}}, "structured_outputs.regex"},
      {kChat, {{"chat_template", "{{ x }}"}}, "chat_template"},
      {kChat, {{"functions", Json::array({{{"name", "f"}}})}}, "functions"},
      {"/generate", {{"text", nullptr}}, "text"},
      {"/generate", {{"text", "x"}, {"input_ids", {1}}}, "text"},
      {"/generate", {{"image_data", "x"}}, "image_data"},
      {"/generate", {{"sampling_params", {{"max_new_tokens", 0}}}}, "sampling_params.max_new_tokens"},
      {"/generate", {{"sampling_params", {{"temperature", -1}}}}, "sampling_params.temperature"},
      {"/generate", {{"sampling_params", {{"ebnf", "x"}}}}, "sampling_params.ebnf"},
      {"/generate", {{"sampling_params", 5}}, "sampling_params"},
      {"/generate", {{"return_logprob", 5}}, "return_logprob"},
      {"/tokenize", {{"prompt", 5}}, "prompt"},
      {"/detokenize", {{"tokens", "x"}}, "tokens"},
      {"/detokenize", {{"tokens", {1 << 30}}}, "tokens"},
  };
  for (const Case& c : cases) {
    Json body{{"model", "fake"}};
    if (c.path == std::string(kText) || c.path == std::string("/tokenize")) body["prompt"] = "x";
    if (c.path == std::string(kChat)) body["messages"] = Json::array({{{"role", "user"}, {"content", "x"}}});
    if (c.path == std::string("/generate")) body = {{"text", "x"}};
    body.update(c.change);
    const Reply reply = service.post(c.path, body);
    EXPECT_EQ(reply.status, c.status) << c.path << " " << c.change << ": " << reply.body.substr(0, 300);
    const Json error = reply.json().value("error", Json());
    EXPECT_EQ(error.value("param", ""), c.param) << reply.body.substr(0, 300);
    EXPECT_THAT(error.value("message", ""), Not(::testing::IsEmpty()));
    EXPECT_TRUE(error.contains("type") && error.contains("code")) << reply.body;
  }
  for (const char* body : {"", "{", "[]", "5", "{\"prompt\": \"\xff\"}", "{\"prompt\": NaN}", "{\"prompt\": \"\\ud800\"}",
                           "{\"seed\": 1e999, \"prompt\": \"x\"}"}) {
    const Reply reply = service.ask("POST", kText, body,
                                    std::string(body).empty() ? "Content-Type: application/json\r\nContent-Length: 0\r\n" : "");
    EXPECT_EQ(reply.status, 400) << body << " " << reply.body;
    EXPECT_THAT(reply.body, HasSubstr("\"error\"")) << body;
  }
  EXPECT_THAT(service.ask("POST", kText, R"({"prompt": "x", "n": 1, "n": 2})").body, HasSubstr("twice"));
  std::string wide = R"({"prompt": "x")";  // members are not looked up one by one
  for (int i = 0; i < 300000; ++i) absl::StrAppend(&wide, ",\"", i, "\":1");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(service.ask("POST", kText, wide + "}").status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
  EXPECT_EQ(service.ask("POST", kText, "{\"prompt\": " + std::string(5000, '[') + std::string(5000, ']') + "}").status, 400);
  const Reply after = service.post(kText, completion(kPrompt, 4));
  EXPECT_EQ(ids_of(after.json()["choices"][0]["token_ids"]), service.rpc.wanted(kPrompt, 4));
}

TEST(HttpErrors, UnknownFieldsAreIgnoredAsVllmIgnoresThem) {
  HttpService service{HttpArrangement()};
  Json body = completion(kPrompt, 4);
  body["user"] = "me";
  body["no_such_field"] = {1, 2};
  EXPECT_EQ(service.post("/v1/completions", body).status, 200);
}

TEST(HttpErrors, AFullQueueIs429AndALostRankEndsTheStreamWithItsReason) {
  HttpArrangement given;
  given.rpc.engine.max_num_seqs = 1;
  given.rpc.engine.max_queued_requests = 1;
  given.rpc.fake.hang_at_step = 1;
  HttpService service(given);
  HttpClient first(service.address()), second(service.address());
  first.send(request_text("POST", "/v1/completions", completion(kPrompt, 4).dump()));
  ASSERT_TRUE(soon([&] { return service.stats().running == 1; }));
  second.send(request_text("POST", "/v1/completions", completion(kPrompt, 4).dump()));
  ASSERT_TRUE(soon([&] { return service.stats().waiting == 1; }));
  const Reply refused = service.post("/v1/completions", completion(kPrompt, 4));
  EXPECT_EQ(refused.status, 429) << refused.body;
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  // A list of prompts is taken whole or not at all.
  Json list = completion({}, 4);
  list["prompt"] = Json::array({"a", "b"});
  EXPECT_EQ(service.post("/v1/completions", list).status, 429);
  service.rpc.fakes[0]->release();
  EXPECT_EQ(first.read().status, 200);
  EXPECT_EQ(second.read().status, 200);

  HttpArrangement loses;
  loses.rpc.fake.lose_at_step = loses.rpc.fake.hang_at_step = 5;
  HttpService lost(loses);
  Json body = completion(kPrompt, 100);
  body["stream"] = true;
  HttpClient stream(lost.address());
  stream.send(request_text("POST", "/v1/completions", body.dump()));
  ASSERT_EQ(stream.head().status, 200);
  std::string text, piece;
  ASSERT_TRUE(stream.chunk(text));  // a token has left: what fails now can only be an event
  lost.rpc.fakes[0]->release();
  while (stream.chunk(piece)) text += piece;
  EXPECT_TRUE(stream.last_chunk_seen);
  const std::vector<std::string> events = events_of(text);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_THAT(events[events.size() - 2], HasSubstr("rank 1 on host b is gone"));
  const Reply after = lost.post("/v1/completions", completion(kPrompt, 4));
  EXPECT_EQ(after.status, 503) << after.body;
}

TEST(HttpErrors, AStreamThatFailsBeforeItsFirstTokenHasAStatus) {
  const Json messages = Json::array({{{"role", "user"}, {"content", "x"}}});
  const std::vector<std::pair<const char*, Json>> asks = {
      {"/v1/completions", {{"prompt", kPrompt}, {"max_tokens", 20}, {"stream", true}}},
      {"/v1/completions", {{"prompt", {"a", "b"}}, {"max_tokens", 20}, {"stream", true}}},
      {"/v1/chat/completions", {{"messages", messages}, {"max_tokens", 20}, {"stream", true}}},
      {"/generate", {{"input_ids", kPrompt}, {"sampling_params", {{"max_new_tokens", 20}}}, {"stream", true}}}};
  for (const auto& [path, body] : asks) {
    HttpArrangement loses;
    loses.rpc.fake.lose_at_step = 1;
    HttpService lost(loses);
    const Reply reply = lost.post(path, body);
    EXPECT_EQ(reply.status, 503) << path << reply.body;
    EXPECT_THAT(reply.headers.at("content-type"), HasSubstr("application/json"));
    EXPECT_THAT(reply.json()["error"]["message"].get<std::string>(), HasSubstr("rank 1 on host b is gone"));
    EXPECT_EQ(reply.json()["error"]["type"], "service_unavailable_error");
    EXPECT_TRUE(soon([&] { return lost.rpc.server->state()->open_streams() == 0; }));
  }
  // Logits that are not finite in the first step: as a whole answer says it.
  HttpArrangement nan;
  nan.rpc.fake.model.nan_token = kPrompt.back();
  HttpService sick(nan);
  for (const bool stream : {false, true}) {
    Json body = completion(kPrompt, 20);
    body["stream"] = stream;
    const Reply reply = sick.post("/v1/completions", body);
    EXPECT_EQ(reply.status, 500) << stream << reply.body;
    EXPECT_THAT(reply.json()["error"]["message"].get<std::string>(), HasSubstr("NaN"));
  }
  // A connection that was told so goes on.
  HttpClient client(sick.address());
  for (int i = 0; i < 2; ++i) {
    Json body = completion(i == 0 ? kPrompt : std::vector<int32_t>{1, 2}, 3);
    body["stream"] = true;
    client.send(request_text("POST", "/v1/completions", body.dump()));
    EXPECT_EQ(client.read().status, i == 0 ? 500 : 200);
  }
}

TEST(HttpErrors, AStreamHasNoHeadBeforeItHasAnEvent) {
  HttpArrangement given;
  given.rpc.fake.hang_at_step = 1;
  HttpService service(given);
  Json body = completion(kPrompt, 20);
  body["stream"] = true;
  HttpClient client(service.address());
  client.send(request_text("POST", "/v1/completions", body.dump()));
  ASSERT_TRUE(soon([&] { return service.stats().running == 1; }));
  EXPECT_FALSE(client.fill(200));
  service.rpc.engine->shutdown(0ms);  // ends what still runs
  const Reply reply = client.read();
  EXPECT_EQ(reply.status, 503) << reply.body;
  EXPECT_THAT(reply.body, HasSubstr("the engine was stopped"));
}

TEST(HttpChat, RendersTokenisesOnceAndAnswers) {
  HttpService service{HttpArrangement()};
  const auto ids_for = [&](const std::string& text) { return *service.rpc.engine->tokenizer()->encode(text, false); };
  const auto answer_to = [&](Json body) {
    body["max_tokens"] = 6;
    body["temperature"] = 0;
    body["return_token_ids"] = true;
    const Reply reply = service.post("/v1/chat/completions", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json();
  };
  const Json messages =
      Json::array({{{"role", "system"}, {"content", "be brief"}}, {{"role", "user"}, {"content", "hello there"}}});
  const Json answer = answer_to({{"messages", messages}});
  const auto ids = ids_for("<system>be brief\n<user>hello there\n<assistant>");
  EXPECT_EQ(ids_of(answer["prompt_token_ids"]), ids);
  EXPECT_EQ(answer["object"], "chat.completion");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(ids_of(choice["token_ids"]), service.rpc.wanted(ids, 6));
  EXPECT_EQ(choice["message"]["content"], service.rpc.engine->tokenizer()->decode(service.rpc.wanted(ids, 6), true));
  EXPECT_EQ(answer["usage"]["prompt_tokens"], ids.size());

  const Json parts = Json::array(
      {{{"role", "user"}, {"content", Json::array({{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}})}}});
  EXPECT_EQ(ids_of(answer_to({{"messages", parts}})["prompt_token_ids"]), ids_for("<user>a\nb\n<assistant>"));
  EXPECT_EQ(ids_of(answer_to({{"messages", messages}, {"chat_template_kwargs", {{"shout", true}}}})["prompt_token_ids"]),
            ids_for("<system>be brief\n<user>hello there\n!\n<assistant>"));
  const Json tools = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
  EXPECT_EQ(ids_of(answer_to({{"messages", parts}, {"tools", tools}, {"tool_choice", "none"}})["prompt_token_ids"]),
            ids_for("<user>a\nb\ntools " + tools.dump() + "\n<assistant>"));
  const Json begun = Json::array({{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "it is "}}});
  EXPECT_EQ(ids_of(answer_to(
                {{"messages", begun}, {"add_generation_prompt", false}, {"continue_final_message", true}})["prompt_token_ids"]),
            ids_for("<user>a\n<assistant>it is "));
}

TEST(HttpChat, StreamsWithLogprobs) {
  HttpService service{HttpArrangement()};
  Json body{{"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
            {"max_completion_tokens", 12},
            {"temperature", 0},
            {"logprobs", true},
            {"top_logprobs", 2},
            {"invar", {{"logprob_bits", true}}}};
  const Json whole = service.post("/v1/chat/completions", body).json();
  const Json& content = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 12u);
  for (const Json& token : content) {
    EXPECT_LE(token["top_logprobs"].size(), 2u);
    EXPECT_EQ(token["logprob"].get<float>(), float_of(token["logprob_bits"].get<uint32_t>()));
    EXPECT_TRUE(token["bytes"].is_array());
  }
  std::string text;
  Json streamed = Json::array();
  const std::vector<Json> events = service.stream("/v1/chat/completions", body);
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  for (const Json& event : events) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    const Json& choice = event["choices"][0];
    text += choice["delta"].value("content", "");
    if (choice["logprobs"].is_object())
      for (const Json& token : choice["logprobs"]["content"]) streamed.push_back(token);
  }
  EXPECT_EQ(text, whole["choices"][0]["message"]["content"]);
  EXPECT_EQ(streamed, content);
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(events.back()["invar"], whole["invar"]);
}

TEST(HttpChat, WithoutATemplateOnlyCompletions) {
  HttpArrangement given;
  given.api.render_chat = nullptr;
  HttpService service(given);
  const Reply reply = service.post("/v1/chat/completions", {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, HasSubstr("no chat template"));
}

TEST(HttpGenerate, SglangsForm) {
  HttpService service{HttpArrangement()};
  const Json sampling{{"max_new_tokens", 6}, {"temperature", 0}};
  const Json one = service.post("/generate", {{"input_ids", kPrompt}, {"sampling_params", sampling}, {"rid", "r1"}}).json();
  EXPECT_EQ(ids_of(one["output_ids"]), service.rpc.wanted(kPrompt, 6));
  EXPECT_EQ(one["meta_info"]["id"], "r1");
  EXPECT_EQ(one["meta_info"]["finish_reason"]["type"], "length");
  EXPECT_EQ(one["meta_info"]["finish_reason"]["length"], 6);
  EXPECT_EQ(one["meta_info"]["prompt_tokens"], 8);
  EXPECT_EQ(one["meta_info"]["completion_tokens"], 6);
  EXPECT_TRUE(one["meta_info"].contains("cached_tokens"));

  const Json with = service
                        .post("/generate", {{"input_ids", kPrompt},
                                            {"sampling_params", sampling},
                                            {"return_logprob", true},
                                            {"logprob_start_len", 0},
                                            {"top_logprobs_num", 2},
                                            {"return_text_in_logprobs", true},
                                            {"invar", {{"logprob_bits", true}}}})
                        .json()["meta_info"];
  ASSERT_EQ(with["output_token_logprobs"].size(), 6u);
  ASSERT_EQ(with["input_token_logprobs"].size(), 8u);
  EXPECT_EQ(with["input_token_logprobs"][0][0], nullptr);
  EXPECT_EQ(with["input_token_logprobs"][3][1], kPrompt[3]);
  EXPECT_EQ(with["output_token_logprobs"][0][1], service.rpc.wanted(kPrompt, 6)[0]);
  EXPECT_TRUE(with["output_token_logprobs"][0][2].is_string());
  EXPECT_EQ(with["output_token_logprobs"][0][0].get<float>(), float_of(with["output_token_logprobs"][0][3].get<uint32_t>()));
  EXPECT_EQ(with["output_top_logprobs"].size(), 6u);

  const Json list =
      service.post("/generate", {{"text", {"once", "call me"}}, {"sampling_params", Json::array({sampling, sampling})}}).json();
  ASSERT_TRUE(list.is_array());
  ASSERT_EQ(list.size(), 2u);
  EXPECT_NE(list[0]["output_ids"], list[1]["output_ids"]);
  const Json several =
      service.post("/generate", {{"text", "once"}, {"sampling_params", {{"max_new_tokens", 3}, {"n", 3}}}}).json();
  EXPECT_EQ(several.size(), 3u);

  const std::vector<Json> events = service.stream("/generate", {{"input_ids", kPrompt}, {"sampling_params", sampling}});
  EXPECT_EQ(events.back()["text"], one["text"]) << "each event says all so far";
  EXPECT_EQ(events.back()["output_ids"], one["output_ids"]);
  EXPECT_EQ(events.back()["invar"], one["invar"]);
  for (size_t i = 0; i + 1 < events.size(); ++i) EXPECT_EQ(events[i]["meta_info"]["finish_reason"], nullptr);
}

}  // namespace
}  // namespace invar::http
