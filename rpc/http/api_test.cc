// The paths beside generation: health, models, tokenizer, metrics, keys, cross-origin requests, drain.
#include <future>

#include "rpc/http/http_harness.h"
#include "rpc/http/key_limits.h"
#include "rpc/http/static_file.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

double metric(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name);
  if (at == std::string::npos) return -1;
  return std::stod(text.substr(text.find(' ', at + 1)));
}

TEST(HttpHealth, LoadingServingStuckAndDraining) {
  HttpArrangement given;
  given.rpc.engine.step_timeout = 50ms;
  given.rpc.fake.hang_at_step = 3;
  HttpService service(given, /*serving=*/false);
  service.rpc.server->set_progress("waiting for replica 1 of 1");
  const Reply loading = service.get("/health");
  EXPECT_EQ(loading.status, 503);
  EXPECT_THAT(loading.body, HasSubstr("waiting for replica 1 of 1"));
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 4)).status, 503);
  EXPECT_EQ(service.get("/v1/models").status, 503);
  EXPECT_EQ(service.get("/metrics").status, 200);
  service.rpc.serve();
  EXPECT_EQ(service.get("/health").status, 200);
  EXPECT_EQ(service.get("/ping").status, 200);
  EXPECT_EQ(service.ask("HEAD", "/health").status, 200);
  // A step without a result: not a busy server but one that stopped.
  HttpClient waiting(service.address());
  waiting.send(request_text("POST", "/v1/completions", completion(kPrompt, 20).dump()));
  EXPECT_TRUE(soon([&] { return service.get("/health").status == 503; }));
  EXPECT_THAT(service.get("/health").body, HasSubstr("a step has had no result"));
  service.rpc.fakes[0]->release();
  EXPECT_EQ(waiting.read().status, 200);
  EXPECT_TRUE(soon([&] { return service.get("/health").status == 200; }));
}

TEST(HttpHealth, ABusyServerIsHealthy) {
  HttpArrangement given;
  given.pace(2ms);
  given.rpc.engine.max_num_seqs = 1;
  HttpService service(given);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<HttpClient>(service.address()));
    clients.back()->send(request_text("POST", "/v1/completions", completion({i + 1, 2}, 400).dump()));
  }
  ASSERT_TRUE(soon([&] { return service.stats().waiting >= 10; }));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(service.get("/health").status, 200);
}

TEST(HttpHealth, ADrainTurnsHealthFirstAndFinishesStreams) {
  HttpArrangement given;
  given.pace(1ms);
  HttpService service(given);
  HttpClient client(service.address());
  Json body = completion(kPrompt, 300);
  body["stream"] = true;
  client.send(request_text("POST", "/v1/completions", body.dump()));
  ASSERT_EQ(client.head().status, 200);
  std::string piece, text;
  ASSERT_TRUE(client.chunk(piece));
  auto drained = std::async(std::launch::async, [&] { return service.rpc.server->shutdown(20s); });
  EXPECT_TRUE(soon([&] { return service.get("/health").status == 503; })) << "health must turn while the stream runs";
  EXPECT_THAT(service.get("/health").body, HasSubstr("draining"));
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 4)).status, 503);
  text = piece;
  while (client.chunk(piece)) text += piece;
  EXPECT_TRUE(client.last_chunk_seen);
  EXPECT_TRUE(drained.get()) << "the drain must have waited for the stream";
  EXPECT_EQ(events_of(text).back(), "[DONE]");
  std::vector<int32_t> ids;
  for (const std::string& event : events_of(text))
    if (const Json json = Json::parse(event, nullptr, false); json.is_object())
      for (const Json& id : json["choices"][0]["token_ids"]) ids.push_back(id);
  EXPECT_EQ(ids, service.rpc.wanted(kPrompt, 300));
  service.http->shutdown(1s);
  HttpClient late(service.address());
  EXPECT_FALSE(late.connected());
}

TEST(HttpApi, TellsOfTheModelAndTheServer) {
  HttpService service{HttpArrangement()};
  const Json models = service.get("/v1/models").json();
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"][0]["id"], "fake");
  EXPECT_EQ(models["data"][0]["max_model_len"], service.rpc.engine->options().max_model_len);
  EXPECT_EQ(models["data"][0]["invar"]["model_digest"], "D1");
  EXPECT_EQ(service.get("/v1/models/fake").json()["id"], "fake");
  EXPECT_EQ(service.get("/v1/models//models/fake").status, 200);
  EXPECT_EQ(service.get("/v1/models/other").status, 404);
  EXPECT_EQ(service.get("/version").json()["version"], "B1");
  EXPECT_EQ(service.get("/get_model_info").json()["is_generation"], true);
  EXPECT_EQ(service.get("/get_server_info").json()["state"], "SERVER_STATE_SERVING");
  EXPECT_THAT(service.get("/").body, Not(::testing::IsEmpty()));
  const Reply flushed = service.ask("POST", "/flush_cache");
  EXPECT_EQ(flushed.status, 200);
  EXPECT_THAT(flushed.body, HasSubstr("Cache flushed"));
}

TEST(HttpApi, TokenizesAsVllmDoes) {
  HttpService service{HttpArrangement()};
  const auto& tokenizer = *service.rpc.engine->tokenizer();
  const auto ids = *tokenizer.encode("once upon a time", true);
  const Json text =
      service.post("/tokenize", {{"model", "fake"}, {"prompt", "once upon a time"}, {"return_token_strs", true}}).json();
  EXPECT_EQ(text["tokens"], Json(ids));
  EXPECT_EQ(text["count"], ids.size());
  EXPECT_EQ(text["token_strs"][0], tokenizer.token_text(ids[0]));
  EXPECT_EQ(text["max_model_len"], service.rpc.engine->options().max_model_len);
  const Json chat = service.post("/tokenize", {{"messages", Json::array({{{"role", "user"}, {"content", "a"}}})}}).json();
  EXPECT_EQ(chat["tokens"], Json(*tokenizer.encode("<user>a\n<assistant>", false)));
  EXPECT_EQ(service.post("/detokenize", {{"tokens", ids}}).json()["prompt"], "once upon a time");
}

TEST(HttpApi, PathsMethodsAndTypes) {
  HttpService service{HttpArrangement()};
  EXPECT_EQ(service.get("/nowhere").status, 404);
  const Reply wrong = service.get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(service.ask("DELETE", "/health").status, 405);
  EXPECT_EQ(service.get("/health?verbose=1").status, 200);
  EXPECT_EQ(service.get("/health/").status, 200);
  HttpClient form(service.address());
  const std::string body = completion(kPrompt, 4).dump();
  form.send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: ", body.size(),
                         "\r\n\r\n", body));
  EXPECT_EQ(form.read().status, 415) << "another origin's page could send that unasked";
}

TEST(HttpApi, MetricsCount) {
  HttpService service{HttpArrangement()};
  const std::string before = service.get("/metrics").body;
  EXPECT_EQ(metric(before, "invar_generation_tokens_total"), 0);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(service.post("/v1/completions", completion(kPrompt, 10)).status, 200);
  ASSERT_TRUE(service.rpc.client->generate_whole(rpc::request_of(kPrompt, 10), 10s).ok());
  const Reply reply = service.get("/metrics");
  EXPECT_THAT(reply.headers.at("content-type"), HasSubstr("text/plain; version=0.0.4"));
  const std::string& text = reply.body;
  EXPECT_EQ(metric(text, "invar_generation_tokens_total"), 40);
  EXPECT_EQ(metric(text, "invar_prompt_tokens_total"), 32);
  EXPECT_EQ(metric(text, "invar_request_success_total{model_name=\"fake\",finished_reason=\"length\"}"), 4) << "gRPC's count too";
  EXPECT_EQ(metric(text, "invar_time_to_first_token_seconds_count"), 4);
  EXPECT_EQ(metric(text, "invar_time_to_first_token_seconds_bucket{model_name=\"fake\",le=\"+Inf\"}"), 4);
  EXPECT_EQ(metric(text, "invar_time_per_output_token_seconds_count"), 36);
  EXPECT_EQ(metric(text, "invar_e2e_request_latency_seconds_count"), 4);
  EXPECT_EQ(metric(text, "invar_num_requests_running"), 0);
  EXPECT_EQ(metric(text, "invar_replicas_alive"), 1);
  EXPECT_EQ(metric(text, "invar_serving"), 1);
  EXPECT_GT(metric(text, "invar_engine_steps_total"), 0);
  EXPECT_GT(metric(text, "invar_prefix_cache_queries_total"), 0);
  EXPECT_GT(metric(text, "process_open_fds"), 3);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (line[0] == '#') continue;
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) << line;
  }
}

TEST(HttpKeys, AreWantedForWhatCostsAndNeverForHealth) {
  HttpArrangement given;
  given.api.api_keys = {"first key", "second"};
  HttpService service(given);
  for (const char* path : {"/health", "/metrics", "/version", "/ping", "/"}) EXPECT_EQ(service.get(path).status, 200) << path;
  for (const char* path : {"/v1/models", "/flush_cache", "/get_server_info", "/get_model_info"})
    EXPECT_EQ(service.get(path).status, 401) << path;
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/generate", "/tokenize", "/detokenize"})
    EXPECT_EQ(service.ask("POST", path, "{}").status, 401) << path;
  for (const char* header : {"", "Authorization: Bearer wrong\r\n", "Authorization: first key\r\n", "Authorization: Bearer \r\n",
                             "Authorization: Bearer first\r\n"}) {
    const Reply refused = service.post("/v1/completions", completion(kPrompt, 4), header);
    EXPECT_EQ(refused.status, 401) << header;
    EXPECT_EQ(refused.json()["error"]["code"], "invalid_api_key");
    EXPECT_THAT(refused.body, Not(HasSubstr("first key")));
    EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  }
  for (const char* header : {"Authorization: Bearer first key\r\n", "authorization: bearer second\r\n"})
    EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 4), header).status, 200) << header;
}

TEST(HttpKeys, HaveEachTheirOwnLimit) {
  HttpArrangement given;
  given.api.api_keys = {"a", "b"};
  given.api.requests_per_key = 2;
  given.rpc.fake.hang_at_step = 1;
  HttpService service(given);
  const auto send = [&](HttpClient& client, const char* key) {
    client.send(request_text("POST", "/v1/completions", completion(kPrompt, 4).dump(),
                             absl::StrCat("Authorization: Bearer ", key, "\r\n")));
  };
  HttpClient one(service.address()), two(service.address()), other(service.address());
  send(one, "a");
  send(two, "a");
  ASSERT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == 2; }));
  const Reply refused = service.post("/v1/completions", completion(kPrompt, 4), "Authorization: Bearer a\r\n");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.json()["error"]["code"], "rate_limit_exceeded");
  send(other, "b");
  ASSERT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == 3; })) << "another key has a limit of its own";
  service.rpc.fakes[0]->release();
  for (HttpClient* client : {&one, &two, &other}) EXPECT_EQ(client->read().status, 200);
  EXPECT_TRUE(
      soon([&] { return service.post("/v1/completions", completion(kPrompt, 4), "Authorization: Bearer a\r\n").status == 200; }));
}

TEST(HttpCors, OnlyWhereAllowed) {
  HttpArrangement given;
  given.api.cors.allowed_origins = {"https://page.example"};
  HttpService service(given);
  const std::string ours = "Origin: https://page.example\r\n", theirs = "Origin: https://other.example\r\n";
  const Reply preflight =
      service.ask("OPTIONS", "/v1/completions", "",
                  ours + "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://page.example");
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "content-type");
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 4), ours).headers.at("access-control-allow-origin"),
            "https://page.example");
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 4), theirs).headers.count("access-control-allow-origin"), 0u);
  EXPECT_EQ(service.ask("OPTIONS", "/v1/completions", "", theirs + "Access-Control-Request-Method: POST\r\n").status, 405);
  HttpService closed{HttpArrangement()};
  EXPECT_EQ(closed.get("/health", ours).headers.count("access-control-allow-origin"), 0u)
      << "by default no other origin may read";
}

}  // namespace
}  // namespace invar::http
