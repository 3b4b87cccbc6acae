// For tests: HTTP and gRPC over one real engine, with ranks without a model and the demo model's tokenizer.
#pragma once

#include "rpc/http/http_client.h"
#include "rpc/http/service.h"
#include "rpc/server/service_harness.h"

namespace invar::http {

using rpc::soon;
using namespace std::chrono_literals;

struct HttpArrangement {
  rpc::Arrangement rpc;
  ServerOptions http;
  ApiOptions api;

  HttpArrangement() {
    rpc.fake.model.vocab_size = 2048;
    rpc.fake.facts.vocab_size = 2048;
    auto tokenizer = Tokenizer::load(INVAR_SOURCE_DIR "/configs/models/demo-moe");
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    rpc.tokenizer = *std::move(tokenizer);
    http.listen = {"127.0.0.1:0"};
    api.model_names = {"fake", "/models/fake"};
    api.model_path = "/models/fake";
    api.render_chat = [](const Json& variables) -> absl::StatusOr<std::string> {
      std::string text;
      for (const Json& message : variables["messages"]) {
        if (message["role"] == "nobody") return absl::InvalidArgumentError("unknown role nobody");
        absl::StrAppend(&text, "<", message["role"].get<std::string>(), ">", message.value("content", ""), "\n");
      }
      if (variables.contains("tools")) absl::StrAppend(&text, "tools ", variables["tools"].dump(), "\n");
      if (variables.value("shout", false)) text += "!\n";
      if (variables["add_generation_prompt"]) text += "<assistant>";
      return text;
    };
  }
  void pace(std::chrono::microseconds step) {
    rpc.fake.tamper = [step](v1::StepResult*) { std::this_thread::sleep_for(step); };
  }
};

class HttpService {
 public:
  explicit HttpService(const HttpArrangement& given, bool serving = true) : rpc(given.rpc), given_(given) {
    auto started = Service::start(given.http, given.api, rpc.server->state());
    EXPECT_TRUE(started.ok()) << started.status();
    http = *std::move(started);
    if (serving) rpc.serve();
  }
  ~HttpService() { http->shutdown(0ms); }

  const std::string& address() const { return http->addresses()[0]; }
  Reply ask(const std::string& method, const std::string& path, const std::string& body = "",
            const std::string& headers = "") const {
    HttpClient client(address());
    client.send(request_text(method, path, body, headers));
    return client.read(20000, method == "HEAD");
  }
  Reply get(const std::string& path, const std::string& headers = "") const { return ask("GET", path, "", headers); }
  Reply post(const std::string& path, const Json& body, const std::string& headers = "") const {
    return ask("POST", path, body.dump(), headers);
  }
  // The events of a streamed answer, [DONE] checked and left out.
  std::vector<Json> stream(const std::string& path, Json body) const {
    body["stream"] = true;
    const Reply reply = post(path, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    if (reply.status != 200) return {};
    std::vector<std::string> events = events_of(reply.body);
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    std::vector<Json> out;
    for (const std::string& event : events) out.push_back(Json::parse(event, nullptr, false));
    return out;
  }
  EngineStats stats() const { return rpc.engine->stats(); }

  rpc::Service rpc;
  std::unique_ptr<Service> http;

 private:
  const HttpArrangement given_;
};

inline Json completion(const std::vector<int32_t>& prompt, int max_tokens) {
  return {{"model", "fake"}, {"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}, {"return_token_ids", true}};
}

}  // namespace invar::http
