#include "rpc/http/cors.h"

#include <algorithm>

#include "absl/strings/str_join.h"

namespace invar::http {
namespace {

using Headers = std::vector<std::pair<std::string, std::string>>;

bool has(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

Headers headers_for(const Request& request, const CorsOptions& options) {
  const std::string* origin = request.header("origin");
  if (origin == nullptr || options.allowed_origins.empty()) return {};
  const bool any = has(options.allowed_origins, "*");
  if (!any && !has(options.allowed_origins, *origin)) return {};
  // With credentials a browser takes no "*".
  Headers out{{"Access-Control-Allow-Origin", any && !options.allow_credentials ? "*" : *origin}, {"Vary", "Origin"}};
  if (options.allow_credentials) out.emplace_back("Access-Control-Allow-Credentials", "true");
  return out;
}

class CorsExchange final : public Exchange {
 public:
  CorsExchange(std::shared_ptr<Exchange> under, Headers headers) : under_(std::move(under)), headers_(std::move(headers)) {}
  const Request& request() const override { return under_->request(); }
  void respond(Response response) override { under_->respond(added(std::move(response))); }
  void stream(Response head, std::shared_ptr<BodySource> source) override {
    under_->stream(added(std::move(head)), std::move(source));
  }
  void wake() override { under_->wake(); }
  void on_end(std::function<void(bool)> ended) override { under_->on_end(std::move(ended)); }
  void note(const std::string& words) override { under_->note(words); }

 private:
  Response added(Response response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    return response;
  }
  const std::shared_ptr<Exchange> under_;
  const Headers headers_;
};

}  // namespace

std::shared_ptr<Exchange> with_cors(std::shared_ptr<Exchange> exchange, const CorsOptions& options) {
  Headers headers = headers_for(exchange->request(), options);
  if (headers.empty()) return exchange;
  headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id");
  return std::make_shared<CorsExchange>(std::move(exchange), std::move(headers));
}

bool answer_preflight(Exchange& exchange, const CorsOptions& options) {
  const Request& request = exchange.request();
  const std::string* method = request.header("access-control-request-method");
  if (request.method != "OPTIONS" || method == nullptr) return false;
  Headers headers = headers_for(request, options);
  if (headers.empty()) return false;
  const std::string* wanted = request.header("access-control-request-headers");
  headers.emplace_back("Access-Control-Allow-Methods",
                       has(options.allowed_methods, "*") ? *method : absl::StrJoin(options.allowed_methods, ", "));
  if (wanted != nullptr)
    headers.emplace_back("Access-Control-Allow-Headers",
                         has(options.allowed_headers, "*") ? *wanted : absl::StrJoin(options.allowed_headers, ", "));
  headers.emplace_back("Access-Control-Max-Age", "600");
  Response response;
  response.status = 204;
  response.content_type.clear();
  response.headers = std::move(headers);
  exchange.respond(std::move(response));
  return true;
}

}  // namespace invar::http
