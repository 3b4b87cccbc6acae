// The paths of the HTTP service: OpenAI's, vLLM's and SGLang's, over the engine that is served.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rpc/http/ask.h"
#include "rpc/http/call.h"
#include "rpc/http/exchange.h"
#include "rpc/http/key_limits.h"
#include "rpc/http/work_pool.h"
#include "rpc/server/serving_state.h"
#include "rpc/wire/api_keys.h"

namespace invar::http {

// Which pages of other origins a browser lets ask. No origins: none.
struct CorsOptions {
  std::vector<std::string> allowed_origins;  // "*" = all
  std::vector<std::string> allowed_methods = {"*"};
  std::vector<std::string> allowed_headers = {"*"};
  bool allow_credentials = false;
};

struct ApiOptions {
  std::vector<std::string> model_names;  // the first is shown, all are taken
  std::string model_path;
  std::vector<std::string> api_keys;  // none: everybody may ask
  int requests_per_key = 0;           // running at once; 0 = no limit
  Call::Limits limits;
  CorsOptions cors;
  RenderChat render_chat;                        // null = no chat template
  std::optional<tool_call::Format> tool_format;  // of tool_choice = "auto"; none = not enabled
  int threads = 2;                               // of the work pool
};

class Api {
 public:
  Api(ApiOptions options, std::shared_ptr<rpc::ServingState> state);
  ~Api() { stop(); }
  // The Handler of a server.
  void handle(std::shared_ptr<Exchange> exchange);
  // Waits for the work under way. After the server that calls handle().
  void stop() { pool_->stop(); }

 private:
  using Work = void (Api::*)(const std::shared_ptr<Exchange>&);
  struct Route {
    Work work = nullptr;
    bool open = false;    // without a key
    bool prompt = false;  // answered at once, on the connection's thread: health must not wait behind a long prompt
  };
  using Methods = std::map<std::string, Route>;

  void handle_checked(std::shared_ptr<Exchange> exchange);
  const Methods* find(const std::string& path) const;

  void health(const std::shared_ptr<Exchange>& exchange);
  void version(const std::shared_ptr<Exchange>& exchange);
  void metrics(const std::shared_ptr<Exchange>& exchange);
  void models(const std::shared_ptr<Exchange>& exchange);
  void page(const std::shared_ptr<Exchange>& exchange);
  void tokenize(const std::shared_ptr<Exchange>& exchange);
  void detokenize(const std::shared_ptr<Exchange>& exchange);
  void completions(const std::shared_ptr<Exchange>& exchange);
  void chat_completions(const std::shared_ptr<Exchange>& exchange);
  void generate(const std::shared_ptr<Exchange>& exchange);
  void flush_cache(const std::shared_ptr<Exchange>& exchange);
  void model_info(const std::shared_ptr<Exchange>& exchange);
  void server_info(const std::shared_ptr<Exchange>& exchange);

  using Parse = absl::StatusOr<Ask> (*)(const Json&, const ModelFacts&);
  using Make = std::unique_ptr<Answer> (*)(AnswerFacts, Ask);
  void answer(const std::shared_ptr<Exchange>& exchange, const char* id_prefix, Parse parse, Make make);
  ModelFacts facts_of(const Engine& engine) const;
  std::string model_name() const;
  int key_of(const Exchange& exchange) const;

  const ApiOptions options_;
  const std::shared_ptr<rpc::ServingState> state_;
  const rpc::ApiKeys keys_;
  KeyLimits key_limits_;
  std::map<std::string, Methods> routes_;
  const std::shared_ptr<WorkPool> pool_;
};

}  // namespace invar::http
