#include "rpc/server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rpc/server/health.h"
#include "rpc/server/invar_service.h"
#include "rpc/server/vllm_engine_service.h"
#include "rpc/wire/channel_args.h"
#include "rpc/wire/credentials.h"
#include "rpc/wire/listen.h"

namespace invar::rpc {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kClientDeadAfter{60000};
constexpr std::chrono::milliseconds kLastWrites{2000};  // for what is already answered to reach its clients
constexpr std::chrono::milliseconds kClose{200};        // for health watchers and the like, which never end by themselves

}  // namespace

class Server::Impl {
 public:
  explicit Impl(const ServerOptions& options)
      : options_(options),
        state_(std::make_shared<ServingState>()),
        writer_(std::make_shared<StreamWriter>()),
        keys_(std::make_shared<const ApiKeys>(options.api_keys)),
        service_(state_, writer_, keys_, StreamOptions{options.max_buffered_bytes, options.access_log}),
        vllm_service_(state_, writer_, keys_, StreamOptions{options.max_buffered_bytes, options.access_log}) {}

  ~Impl() {
    shutdown(std::chrono::milliseconds(0));
    writer_->stop();
  }

  absl::Status open() {
    if (options_.max_request_bytes < 1024) {
      return absl::InvalidArgumentError(absl::StrCat("max_request_bytes ", options_.max_request_bytes, " is less than 1024"));
    }
    if (options_.max_buffered_bytes < 0) {
      return absl::InvalidArgumentError(absl::StrCat("max_buffered_bytes ", options_.max_buffered_bytes, " is negative"));
    }
    if (options_.health_period.count() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("health_period ", options_.health_period.count(), " ms is less than 1"));
    }
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    set_server_args(builder, kClientDeadAfter, options_.max_request_bytes);
    builder.RegisterService(&service_);
    builder.RegisterService(&vllm_service_);
    absl::StatusOr<Listening> listening = listen(builder, options_.listen, server_credentials(options_.tls));
    if (!listening.ok()) return listening.status();
    listening_ = *std::move(listening);
    health_ = std::make_unique<Health>(*listening_.server->GetHealthCheckService(), state_, options_.health_period);
    spdlog::info(
        "listening on {}{}", absl::StrJoin(listening_.addresses, ", "),
        options_.tls.has_value() ? absl::StrCat(" with TLS: ", describe_certificate(options_.tls->own.certificates)) : "");
    return absl::OkStatus();
  }

  bool shutdown(std::chrono::milliseconds wait) {
    if (listening_.server == nullptr) return true;
    const Clock::time_point until = Clock::now() + wait;
    const std::shared_ptr<Engine> engine = state_->begin_drain();
    health_->update();
    bool drained = engine == nullptr || wait.count() == 0 || engine->drain(wait);
    // Answers are complete in the engine before they have reached their clients.
    const Clock::time_point last = wait.count() == 0 ? until : std::max(until, Clock::now() + kLastWrites);
    while (drained && state_->open_streams() > 0 && Clock::now() < last)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    drained = drained && state_->open_streams() == 0;
    health_.reset();
    listening_.server->Shutdown(std::chrono::system_clock::now() + kClose);
    listening_.server.reset();
    return drained;
  }

  const ServerOptions options_;
  const std::shared_ptr<ServingState> state_;
  const std::shared_ptr<StreamWriter> writer_;
  const std::shared_ptr<const ApiKeys> keys_;
  InvarService service_;
  VllmEngineService vllm_service_;
  Listening listening_;
  std::unique_ptr<Health> health_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::start(const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (absl::Status status = impl->open(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

const std::vector<std::string>& Server::addresses() const { return impl_->listening_.addresses; }
const std::shared_ptr<ServingState>& Server::state() const { return impl_->state_; }
void Server::set_progress(const std::string& what) { impl_->state_->set_progress(what); }

void Server::serve(std::shared_ptr<Engine> engine, v1::ServerInfo info) {
  impl_->state_->serve(std::move(engine), std::move(info));
  impl_->health_->update();
}

void Server::withdraw(const std::string& why) {
  impl_->state_->withdraw(why);
  impl_->health_->update();
}

bool Server::shutdown(std::chrono::milliseconds wait) { return impl_->shutdown(wait); }

}  // namespace invar::rpc
