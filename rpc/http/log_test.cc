// What is logged: one line a request with its id, whatever came of it; never a key, a certificate's key, a prompt or an answer,
// at the most talkative level either.
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "rpc/http/http_harness.h"
#include "rpc/tls/test_certificates.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Takes the place of the program's log while it lives.
class Captured {
 public:
  Captured() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>("captured", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_level(spdlog::level::trace);
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
  }
  ~Captured() { spdlog::set_default_logger(before_); }
  // When nobody logs any more.
  std::vector<std::string> lines() const { return absl::StrSplit(text_.str(), '\n', absl::SkipEmpty()); }

 private:
  std::ostringstream text_;
  const std::shared_ptr<spdlog::logger> before_;
};

std::vector<std::string> with(const std::vector<std::string>& lines, const std::string& words) {
  std::vector<std::string> out;
  for (const std::string& line : lines)
    if (line.find(words) != std::string::npos) out.push_back(line);
  return out;
}

std::string id_in(const std::string& line) {
  const size_t at = line.find("request_id=");
  if (at == std::string::npos) return "";
  return line.substr(at + 11, line.find_first_of(" :\n", at + 11) - at - 11);
}

TEST(Log, EachRequestHasItsLineWithItsIdAndNoSecretIsInIt) {
  const std::vector<std::string> secrets = {"sk-the-first-key-5d1c", "sk-the-second-key-77aa", "sk-nobodys-key-31fe",
                                            "c2VjcmV0OnNlY3JldA=="};
  const std::string prompt = "xylophone-prompt";
  rpc::TestCertificates certificates("log");
  certificates.sign("server", "127.0.0.1");
  ASSERT_TRUE(certificates.ok());
  const Captured log;
  int http = 0, grpc = 0;
  std::string answer, pem;
  {
    HttpArrangement given;
    given.api.api_keys = given.rpc.server.api_keys = {secrets[0], secrets[1]};
    HttpService service(given);
    const auto header = [](const std::string& scheme, const std::string& key) {
      return absl::StrCat("Authorization: ", scheme, " ", key, "\r\n");
    };
    const auto ask = [&](const std::string& path, const Json& body, const std::string& headers) {
      ++http;
      return service.post(path, body, headers);
    };
    const Json body{{"prompt", prompt}, {"max_tokens", 8}, {"temperature", 0}, {"api_key", secrets[2]}};
    const Reply good = ask("/v1/completions", body, header("Bearer", secrets[0]) + "X-Request-Id: my-own-id\r\n");
    EXPECT_EQ(good.status, 200);
    answer = good.json()["choices"][0]["text"];
    Json streamed = body;
    streamed["stream"] = true;
    EXPECT_EQ(ask("/v1/completions", streamed, header("Bearer", secrets[1])).status, 200);
    EXPECT_EQ(ask("/v1/completions", body, header("Bearer", secrets[2])).status, 401);
    EXPECT_EQ(ask("/v1/completions", body, header("Basic", secrets[3])).status, 401);
    EXPECT_EQ(ask("/v1/completions", body, header("", secrets[0])).status, 401);
    EXPECT_EQ(ask("/v1/completions", body, "X-Api-Key: " + secrets[0] + "\r\n").status, 401);
    EXPECT_EQ(ask("/v1/completions?api_key=" + secrets[0], body, "").status, 401);
    Json wrong = body;
    wrong["temperature"] = -1;
    EXPECT_EQ(ask("/v1/completions", wrong, header("Bearer", secrets[0])).status, 400);
    wrong["temperature"] = secrets[0];
    EXPECT_EQ(ask("/v1/completions", wrong, header("Bearer", secrets[0])).status, 400);
    EXPECT_EQ(ask("/v1/chat/completions", {{"messages", Json::array({{{"role", "nobody"}, {"content", prompt}}})}},
                  header("Bearer", secrets[0]))
                  .status,
              400);
    for (const char* path : {"/health", "/metrics", "/v1/models", "/nowhere"}) {
      ++http;
      const Reply reply = service.get(path, header("Bearer", secrets[0]));
      for (const std::string& secret : secrets) EXPECT_THAT(reply.body, Not(HasSubstr(secret))) << path;
    }
    ++http;
    EXPECT_THAT(service.get("/get_server_info", header("Bearer", secrets[1])).body, Not(HasSubstr("sk-the")));
    // No HTTP at all: the connection's own answer has a line and an id too.
    HttpClient hostile(service.address());
    hostile.send(absl::StrCat("NONSENSE ", secrets[0], "\r\nAuthorization ", secrets[0], "\r\n\r\n"));
    EXPECT_EQ(hostile.read().status, 400);
    ++http;
    // A client that leaves.
    {
      HttpClient leaves(service.address());
      Json endless = streamed;
      endless["max_tokens"] = 2000;
      endless["ignore_eos"] = true;
      leaves.send(request_text("POST", "/v1/completions", endless.dump(), header("Bearer", secrets[0])));
      ASSERT_EQ(leaves.head().status, 200);
      ++http;
    }

    const auto call = [&](const std::string& key, const std::string& id) {
      rpc::ClientOptions options;
      options.address = service.rpc.server->addresses()[0];
      options.api_key = key;
      auto client = rpc::Client::connect(options);
      EXPECT_TRUE(client.ok()) << client.status();
      v1::GenerateRequest request = rpc::request_of({1, 2, 3}, 4);
      request.set_request_id(id);
      ++grpc;
      return (*client)->generate_whole(request, 10s).status();
    };
    EXPECT_TRUE(call(secrets[0], "grpc-own-id").ok());
    EXPECT_TRUE(call(secrets[1], "").ok());
    EXPECT_FALSE(call(secrets[2], "").ok());
    EXPECT_TRUE(call(secrets[0], "two lines\nrequest_id=forged").ok());
    ASSERT_TRUE(soon([&] { return service.rpc.server->state()->open_streams() == 0; }));
  }
  {
    HttpArrangement secure;
    secure.http.tls = rpc::ServerTls{certificates.material("server"), rpc::ClientCertificate::kNone};
    secure.rpc.server.tls = secure.http.tls;
    rpc::ServerOptions options = secure.rpc.server;
    auto server = rpc::Server::start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    auto started = Service::start(secure.http, secure.api, (*server)->state());
    ASSERT_TRUE(started.ok()) << started.status();
    (*started)->shutdown(0ms);
    pem = certificates.text("server.key");
    ASSERT_GT(pem.size(), 100u);
  }
  const std::vector<std::string> lines = log.lines();
  ASSERT_FALSE(lines.empty());
  for (const std::string& line : lines) {
    for (const std::string& secret : secrets) EXPECT_THAT(line, Not(HasSubstr(secret)));
    EXPECT_THAT(line, Not(HasSubstr(prompt)));
    EXPECT_THAT(line, Not(HasSubstr("PRIVATE KEY")));
    EXPECT_THAT(line, Not(HasSubstr(pem.substr(40, 40))));
    ASSERT_GE(answer.size(), 8u);
    EXPECT_THAT(line, Not(HasSubstr(answer)));
  }
  const std::vector<std::string> of_http = with(lines, "http peer="), of_grpc = with(lines, "grpc peer=");
  EXPECT_EQ(of_http.size(), static_cast<size_t>(http));
  EXPECT_EQ(of_grpc.size(), static_cast<size_t>(grpc));
  std::set<std::string> ids;
  for (const std::string& line : of_http) {
    EXPECT_FALSE(id_in(line).empty()) << line;
    EXPECT_TRUE(ids.insert(id_in(line)).second) << "an id of its own: " << line;
  }
  EXPECT_TRUE(ids.contains("my-own-id"));
  // Whatever else is said of a request names it too.
  const std::vector<std::string> unread = with(lines, "fields that nobody reads");
  EXPECT_GE(unread.size(), 3u);
  for (const std::string& line : unread) EXPECT_TRUE(ids.contains(id_in(line))) << line;
  EXPECT_EQ(with(lines, " incomplete").size(), 1u);
  for (const std::string& line : of_grpc) EXPECT_THAT(line, HasSubstr("method=invar.v1.Invar/Generate"));
  EXPECT_EQ(with(of_grpc, "request_id=grpc-own-id ").size(), 1u);
  EXPECT_EQ(with(of_grpc, "status=UNAUTHENTICATED").size(), 1u);
  EXPECT_EQ(with(of_grpc, "request_id=two lines\\nrequest_id=forged").size(), 1u) << "one line stays one line";
  EXPECT_EQ(with(of_grpc, "prompt_tokens=3 completion_tokens=4 digest=").size(), 3u);
  EXPECT_FALSE(with(lines, "with TLS: CN=server").empty());
}

}  // namespace
}  // namespace invar::http
