#include "rpc/http/service.h"

#include "absl/strings/str_cat.h"

namespace invar::http {

absl::StatusOr<std::unique_ptr<Service>> Service::start(const ServerOptions& server, ApiOptions api,
                                                        std::shared_ptr<rpc::ServingState> state) {
  if (api.requests_per_key < 0)
    return absl::InvalidArgumentError(absl::StrCat("max-requests-per-key ", api.requests_per_key, " is negative"));
  for (const std::string& key : api.api_keys)
    if (key.empty()) return absl::InvalidArgumentError("an API key is empty");
  std::unique_ptr<Service> service(new Service(std::move(api), std::move(state)));
  absl::StatusOr<std::unique_ptr<Server>> started =
      Server::start(server, [api = &service->api_](std::shared_ptr<Exchange> exchange) { api->handle(std::move(exchange)); });
  if (!started.ok()) return started.status();
  service->server_ = *std::move(started);
  return service;
}

void Service::shutdown(std::chrono::milliseconds wait) {
  if (server_ != nullptr) server_->shutdown(wait);
  api_.stop();
}

}  // namespace invar::http
