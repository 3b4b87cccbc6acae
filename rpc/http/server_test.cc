// Connections: many at once, slow, broken and hostile ones, and TLS.
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "rpc/http/http_harness.h"
#include "rpc/tls/test_certificates.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

std::string streamed(int max_tokens, int logprobs = -1) {
  Json body = completion(kPrompt, max_tokens);
  body["stream"] = true;
  if (logprobs >= 0) body["logprobs"] = logprobs;
  return request_text("POST", "/v1/completions", body.dump());
}

void append_ids(const std::string& event, std::vector<int32_t>& ids) {
  const Json json = Json::parse(event, nullptr, false);
  for (const Json& id : json["choices"][0]["token_ids"]) ids.push_back(id);
}

size_t entries_of(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

TEST(HttpStreams, AThousandAtOnceNeedNoThreadEach) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  ASSERT_GE(limit.rlim_cur, 2200u) << "this test needs 2,200 descriptors";
  constexpr int kStreams = 1000, kTokens = 20;
  HttpArrangement given;
  given.rpc.fake.hang_at_step = 1;
  given.rpc.fake.facts.pages_per_home = 8192;
  HttpService service(given);
  const size_t threads = entries_of("/proc/self/task");
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<HttpClient>(service.address()));
    ASSERT_TRUE(clients.back()->connected()) << i;
    Json body = completion({i + 1, 7}, kTokens);
    body["stream"] = true;
    clients.back()->send(request_text("POST", "/v1/completions", body.dump()));
  }
  ASSERT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == kStreams; }));
  EXPECT_LE(entries_of("/proc/self/task"), threads + 4) << "a few pollers of gRPC may come and go";
  EXPECT_EQ(service.get("/health").status, 200) << "and there is room for others";
  service.rpc.fakes[0]->release();
  for (int i = 0; i < kStreams; ++i) {
    const Reply reply = clients[i]->read();
    ASSERT_EQ(reply.status, 200) << i;
    std::vector<int32_t> ids;
    const std::vector<std::string> events = events_of(reply.body);
    ASSERT_EQ(events.back(), "[DONE]") << i;
    for (size_t e = 0; e + 1 < events.size(); ++e) append_ids(events[e], ids);
    ASSERT_EQ(ids, service.rpc.wanted({i + 1, 7}, kTokens)) << i;
  }
  EXPECT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == 0; }));
  clients.clear();
  EXPECT_TRUE(soon([&] { return service.http->connections() == 0; }));
}

TEST(HttpStreams, AClientThatLeavesFreesItsPages) {
  HttpArrangement given;
  given.pace(500us);
  HttpService service(given);
  {
    HttpClient stream(service.address());
    stream.send(streamed(50000));
    ASSERT_EQ(stream.head().status, 200);
    ASSERT_TRUE(soon([&] { return service.stats().running == 1; }));
  }
  EXPECT_TRUE(soon([&] { return service.stats().aborted == 1 && service.stats().pages_used == 0; }));
  {
    HttpClient whole(service.address());
    whole.send(request_text("POST", "/v1/completions", completion(kPrompt, 50000).dump()));
    ASSERT_TRUE(soon([&] { return service.stats().running == 1; }));
  }
  EXPECT_TRUE(soon([&] { return service.stats().aborted == 2 && service.stats().pages_used == 0; }))
      << "also one that waits for a whole answer";
  {
    HttpClient list(service.address());
    Json body = completion({}, 50000);
    body["prompt"] = Json::array({"a", "b", "c"});
    list.send(request_text("POST", "/v1/completions", body.dump()));
    ASSERT_TRUE(soon([&] { return service.stats().running == 3; }));
  }
  EXPECT_TRUE(soon([&] { return service.stats().aborted == 5 && service.stats().pages_used == 0; }));
  EXPECT_TRUE(soon([&] { return service.http->connections() == 0; }));
}

TEST(HttpStreams, AReaderTooSlowForTheBoundLosesItsRequestOnly) {
  HttpArrangement given;
  given.api.limits.most_buffered_bytes = 20000;
  HttpService service(given);
  HttpClient slow(service.address(), nullptr, 4096);
  slow.send(streamed(60000, 20));
  ASSERT_TRUE(soon([&] { return service.stats().aborted == 1; })) << "the engine must be free of it before anything is read";
  const Reply other = service.post("/v1/completions", completion(kPrompt, 50));
  EXPECT_EQ(other.status, 200);
  const Reply reply = slow.read();
  const std::vector<std::string> events = events_of(reply.body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_THAT(events[events.size() - 2], HasSubstr("reads too slowly: more than 20000 bytes"));
  std::vector<int32_t> ids;
  for (size_t e = 0; e + 2 < events.size(); ++e) append_ids(events[e], ids);
  EXPECT_EQ(ids, service.rpc.wanted(kPrompt, static_cast<int64_t>(ids.size()))) << "what came before the end must be a prefix";
}

TEST(HttpStreams, AReaderThatStandsStillIsCut) {
  HttpArrangement given;
  given.http.write_timeout = 300ms;
  HttpService service(given);
  HttpClient still(service.address(), nullptr, 4096);
  Json body = completion(kPrompt, 20000);
  body["logprobs"] = 20;
  still.send(request_text("POST", "/v1/completions", body.dump()));
  ASSERT_TRUE(soon([&] { return service.stats().finished == 1; }));
  EXPECT_TRUE(soon([&] { return service.http->connections() == 0; })) << "a whole answer waits for nobody for ever";
}

TEST(HttpStreams, WhatASlowReaderMissedComesMergedAndWhole) {
  HttpService service{HttpArrangement()};
  HttpClient slow(service.address(), nullptr, 4096);
  slow.send(streamed(2000, 5));
  ASSERT_TRUE(soon([&] { return service.stats().finished == 1; }));
  const std::vector<std::string> events = events_of(slow.read().body);
  std::vector<int32_t> ids;
  for (size_t e = 0; e + 1 < events.size(); ++e) append_ids(events[e], ids);
  EXPECT_EQ(ids, service.rpc.wanted(kPrompt, 2000));
}

// Good, bad, cancelled and half-sent requests from eight sides. What was there before is there afterwards, and every answer is
// right.
TEST(HttpStreams, ASoakLeavesNothingBehind) {
  HttpArrangement given;
  given.http.access_log = false;
  given.rpc.engine.max_num_seqs = 32;
  HttpService service(given);
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 5)).status, 200);  // what is made once is made
  ASSERT_TRUE(soon([&] { return service.http->connections() == 0; }));
  const size_t descriptors = entries_of("/proc/self/fd");
  std::atomic<int> right{0}, wrong{0};
  std::vector<std::thread> sides;
  for (uint32_t side = 0; side < 8; ++side) {
    sides.emplace_back([&, side] {
      std::mt19937 random(side);
      for (int i = 0; i < 250; ++i) {
        HttpClient client(service.address());
        const std::vector<int32_t> prompt = {static_cast<int32_t>(random() % 2000), static_cast<int32_t>(side), 5};
        const int tokens = 1 + static_cast<int>(random() % 30);
        Json body = completion(prompt, tokens);
        switch (random() % 6) {
          case 0:  // leaves before the answer
            body["max_tokens"] = 5000;
            client.send(request_text("POST", "/v1/completions", body.dump()));
            break;
          case 1: {  // leaves within the stream
            body["max_tokens"] = 5000;
            body["stream"] = true;
            client.send(request_text("POST", "/v1/completions", body.dump()));
            client.head();
            break;
          }
          case 2:  // half a request
            client.send(request_text("POST", "/v1/completions", body.dump()).substr(0, 40 + random() % 100));
            break;
          case 3:  // refused
            body["temperature"] = -1;
            client.send(request_text("POST", "/v1/completions", body.dump()));
            client.read().status == 400 ? ++right : ++wrong;
            break;
          default: {
            client.send(request_text("POST", "/v1/completions", body.dump()));
            const Json answer = client.read().json();
            const bool same = answer.is_object() && answer.contains("choices") &&
                              answer["choices"][0]["token_ids"].get<std::vector<int32_t>>() == service.rpc.wanted(prompt, tokens);
            same ? ++right : ++wrong;
          }
        }
      }
    });
  }
  for (std::thread& side : sides) side.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(right, 500);
  EXPECT_TRUE(soon([&] { return service.http->connections() == 0; }));
  EXPECT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == 0; }));
  EXPECT_TRUE(soon([&] { return service.stats().pages_used == 0 && service.stats().running == 0; }));
  EXPECT_LE(entries_of("/proc/self/fd"), descriptors);
  EXPECT_TRUE(service.rpc.fakes[0]->report()->violations.empty());
}

TEST(HttpConnections, AreKeptAndPipelined) {
  HttpService service{HttpArrangement()};
  HttpClient client(service.address());
  const std::string ask = request_text("POST", "/v1/completions", completion(kPrompt, 5).dump());
  for (int i = 0; i < 3; ++i) {
    client.send(ask);
    EXPECT_EQ(client.read().status, 200);
  }
  // Several at once: answered one after the other, in order, streams among them.
  std::string all;
  for (int i = 0; i < 5; ++i) {
    absl::StrAppend(&all, request_text("GET", absl::StrCat("/nowhere", i), "", absl::StrCat("X-Request-Id: r", i, "\r\n")));
    absl::StrAppend(&all, streamed(5), ask);
  }
  client.send(all);
  for (int i = 0; i < 5; ++i) {
    const Reply missing = client.read();
    EXPECT_EQ(missing.status, 404);
    EXPECT_EQ(missing.headers.at("x-request-id"), absl::StrCat("r", i));
    const Reply stream = client.read();
    EXPECT_EQ(stream.headers.at("content-type"), "text/event-stream; charset=utf-8");
    EXPECT_THAT(stream.body, HasSubstr("[DONE]"));
    EXPECT_THAT(client.read().body, HasSubstr("text_completion"));
  }
  EXPECT_EQ(service.http->connections(), 1);
  // A request in single bytes.
  for (const char c : ask) client.send(std::string(1, c));
  EXPECT_EQ(client.read().status, 200);
  client.send(request_text("GET", "/health", "", "Connection: close\r\n"));
  EXPECT_EQ(client.read().headers["connection"], "close");
  EXPECT_TRUE(client.closed());
}

TEST(HttpConnections, FormsOfRequests) {
  HttpService service{HttpArrangement()};
  const std::string body = completion(kPrompt, 5).dump();
  HttpClient chunked(service.address());
  chunked.send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (size_t i = 0; i < body.size(); i += 10)
    chunked.send(absl::StrCat(absl::Hex(body.substr(i, 10).size()), "\r\n", body.substr(i, 10), "\r\n"));
  chunked.send("0\r\n\r\n");
  EXPECT_EQ(chunked.read().status, 200);

  HttpClient careful(service.address());
  careful.send(absl::StrCat(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: ",
      body.size(), "\r\n\r\n"));
  ASSERT_TRUE(careful.fill());
  careful.send(body);
  EXPECT_EQ(careful.read().status, 200);

  HttpClient old(service.address());
  old.send(absl::StrCat("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ",
                        streamed(5).size() - streamed(5).find("{"), "\r\n\r\n", streamed(5).substr(streamed(5).find("{"))));
  const Reply reply = old.read();
  EXPECT_EQ(reply.headers.count("transfer-encoding"), 0u) << "1.0 knows no chunks";
  EXPECT_THAT(reply.body, HasSubstr("[DONE]"));

  HttpClient proxied(service.address());
  proxied.send("GET http://somewhere:80/health?x=1 HTTP/1.1\r\nHost: somewhere\r\n\r\n");
  EXPECT_EQ(proxied.read().status, 200);
}

// Wherever the network cuts a body of chunks, also one without any, and between any two bytes: the answer is the same.
TEST(HttpConnections, ChunksMayArriveInAnyPieces) {
  HttpService service{HttpArrangement()};
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string body = completion(kPrompt, 2).dump(), chunk = absl::StrCat(absl::Hex(body.size()), ";e=1\r\n", body, "\r\n");
  HttpClient client(service.address());
  for (const auto& [chunks, status] : {std::pair{chunk + "0\r\n\r\n", 200},
                                       {chunk + "0;x=y\r\nTrailer: z\r\n\r\n", 200},
                                       {std::string("0\r\n\r\n"), 400},
                                       {std::string("0;x\r\nTrailer: z\r\n\r\n"), 400}}) {
    const size_t last = chunks.rfind("0", chunks.size() - 4);
    for (size_t cut = last; cut < chunks.size(); ++cut)
      for (const size_t then : {size_t{1}, chunks.size()}) {
        client.send(head + chunks.substr(0, cut));
        std::this_thread::sleep_for(2ms);  // the next bytes are another read
        for (size_t at = cut; at < chunks.size(); at += then) {
          client.send(chunks.substr(at, then));
          if (then == 1) std::this_thread::sleep_for(1ms);
        }
        ASSERT_EQ(client.read().status, status) << cut << " of " << chunks.size() << " bytes, then " << then << " at a time";
      }
  }
}

TEST(HttpConnections, WhatIsTooLargeOrNoHttpIsRefusedAndTheServerLivesOn) {
  HttpArrangement given;
  given.http.max_request_bytes = 10000;
  given.http.max_header_bytes = 2048;
  HttpService service(given);
  const auto answer_to = [&](const std::string& bytes) {
    HttpClient client(service.address());
    client.send(bytes);
    const Reply reply = client.read();
    EXPECT_TRUE(client.closed()) << bytes.substr(0, 60);
    return reply.status;
  };
  EXPECT_EQ(answer_to("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n"), 413) << "unread";
  EXPECT_EQ(answer_to("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 400);
  EXPECT_EQ(answer_to(absl::StrCat("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", absl::Hex(20000), "\r\n",
                                   std::string(20000, 'x'))),
            413);
  EXPECT_EQ(answer_to(absl::StrCat("GET /health HTTP/1.1\r\nX: ", std::string(5000, 'x'), "\r\n\r\n")), 431);
  EXPECT_EQ(answer_to(absl::StrCat("GET /", std::string(5000, 'x'), " HTTP/1.1\r\n\r\n")), 431);
  for (const char* bytes :
       {"hello\r\n\r\n", "GET /health\r\n\r\n", "GET /health HTTP/9.9\r\n\r\n", "GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"}) {
    EXPECT_EQ(answer_to(bytes), 400) << bytes;
  }
  EXPECT_EQ(service.post("/v1/completions", completion(kPrompt, 5)).status, 200);
  EXPECT_TRUE(soon([&] { return service.http->connections() == 0; }));
}

TEST(HttpConnections, SlowAndIdleOnesAreClosed) {
  HttpArrangement given;
  given.http.header_timeout = 200ms;
  given.http.body_timeout = 200ms;
  given.http.idle_timeout = 200ms;
  HttpService service(given);
  HttpClient silent(service.address()), slow_head(service.address()), slow_body(service.address()), idle(service.address());
  slow_head.send("GET /health HT");
  slow_body.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  idle.send(request_text("GET", "/health"));
  EXPECT_EQ(idle.read().status, 200);
  EXPECT_TRUE(silent.closed());
  EXPECT_EQ(slow_head.read().status, 408);
  EXPECT_EQ(slow_body.read().status, 408);
  EXPECT_TRUE(idle.closed());
}

TEST(HttpConnections, BeyondTheLimitTheyAreTurnedAway) {
  HttpArrangement given;
  given.http.max_connections = 3;
  HttpService service(given);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<HttpClient>(service.address()));
    clients.back()->send(request_text("GET", "/health"));
    EXPECT_EQ(clients.back()->read().status, 200);
  }
  HttpClient more(service.address());
  EXPECT_EQ(more.read().status, 503);
  clients.pop_back();
  EXPECT_TRUE(soon([&] { return service.get("/health").status == 200; }));
}

TEST(HttpConnections, AnAddressInUseIsNamed) {
  HttpService service{HttpArrangement()};
  HttpArrangement second;
  second.http.listen = {service.address()};
  const auto started = Service::start(second.http, second.api, service.rpc.server->state());
  EXPECT_EQ(started.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(started.status().message()), HasSubstr(service.address()));
  second.http.listen = {"nonsense"};
  EXPECT_EQ(Service::start(second.http, second.api, service.rpc.server->state()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HttpConnections, UnixSockets) {
  const std::string path = absl::StrCat("/tmp/invar_http_", getpid(), ".sock");
  HttpArrangement given;
  given.http.listen = {absl::StrCat("unix:", path), "127.0.0.1:0"};
  const HttpService other{HttpArrangement()};
  const auto start = [&] { return Service::start(given.http, given.api, other.rpc.server->state()).status(); };
  {
    HttpService service(given);
    ASSERT_EQ(service.http->addresses()[0], given.http.listen[0]);
    HttpClient local(service.address()), tcp(service.http->addresses()[1]);
    std::string bodies[2];
    for (int i = 0; i < 2; ++i) {
      HttpClient& client = i == 0 ? local : tcp;
      client.send(request_text("POST", "/v1/completions", completion(kPrompt, 20).dump()) + streamed(20));
      bodies[i] = client.read().json()["invar"]["response_digest"].dump();
      EXPECT_THAT(client.read().body, HasSubstr(bodies[i])) << "whole and streamed, on one connection";
    }
    EXPECT_EQ(bodies[0].size(), 66u);
    EXPECT_EQ(bodies[0], bodies[1]);
    {
      HttpClient leaving(service.address());
      leaving.send(streamed(50000));
      ASSERT_EQ(leaving.head().status, 200);
    }
    EXPECT_TRUE(soon([&] { return service.stats().running == 0 && service.stats().pages_used == 0; }));

    given.http.listen = {given.http.listen[0]};
    EXPECT_EQ(start().code(), absl::StatusCode::kUnavailable) << "its clients would be another server's";
    EXPECT_THAT(std::string(start().message()), HasSubstr(path));
    EXPECT_EQ(service.get("/health").status, 200) << "the first one still has its socket";
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "somebody's file";
  EXPECT_EQ(start().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::filesystem::file_size(path), 15u);
  std::filesystem::remove(path);
  {  // What a killed server leaves is no hindrance.
    sockaddr_un left{};
    left.sun_family = AF_UNIX;
    path.copy(left.sun_path, sizeof left.sun_path - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&left), sizeof left), 0);
    close(fd);
    HttpService service(given);
    EXPECT_EQ(service.get("/health").status, 200);
  }
  for (const std::string& bad : {std::string(), std::string(108, 'x')}) {
    given.http.listen = {absl::StrCat("unix:", bad)};
    EXPECT_EQ(start().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

struct ClientContext {
  explicit ClientContext(const rpc::TestCertificates& certificates, const std::string& own = "")
      : context(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_load_verify_locations(context, certificates.path("ca.pem").c_str(), nullptr);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    if (own.empty()) return;
    SSL_CTX_use_certificate_file(context, certificates.path(own + ".pem").c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, certificates.path(own + ".key").c_str(), SSL_FILETYPE_PEM);
  }
  ~ClientContext() { SSL_CTX_free(context); }
  SSL_CTX* context;
};

TEST(HttpTls, StreamsAndClientCertificates) {
  rpc::TestCertificates certificates("test CA"), strangers("other CA");
  certificates.sign("server", "127.0.0.1");
  certificates.sign("client", "client");
  strangers.sign("client", "client");
  ASSERT_TRUE(certificates.ok() && strangers.ok());
  const auto whole = [&](HttpService& service, SSL_CTX* context) {
    HttpClient client(service.address(), context);
    client.send(streamed(30));
    return client.read();
  };
  HttpArrangement given;
  given.http.tls = rpc::ServerTls{certificates.material("server"), rpc::ClientCertificate::kNone};
  {
    HttpService service(given);
    const ClientContext client(certificates), stranger(strangers);
    EXPECT_THAT(whole(service, client.context).body, HasSubstr("[DONE]"));
    EXPECT_EQ(whole(service, stranger.context).status, 0) << "a client that trusts another CA must notice";
    EXPECT_NE(service.get("/health").status, 200) << "plain text on a TLS port";
    EXPECT_THAT(whole(service, client.context).body, HasSubstr("[DONE]"));
  }
  given.http.tls->client = rpc::ClientCertificate::kRequired;
  HttpService mutual(given);
  const ClientContext nameless(certificates), known(certificates, "client");
  EXPECT_THAT(whole(mutual, known.context).body, HasSubstr("[DONE]"));
  EXPECT_EQ(whole(mutual, nameless.context).status, 0);
  const ClientContext forged(strangers, "client");
  SSL_CTX_load_verify_locations(forged.context, certificates.path("ca.pem").c_str(), nullptr);
  EXPECT_EQ(whole(mutual, forged.context).status, 0) << "a certificate of another CA";
  EXPECT_THAT(whole(mutual, known.context).body, HasSubstr("[DONE]"));
}

}  // namespace
}  // namespace invar::http
