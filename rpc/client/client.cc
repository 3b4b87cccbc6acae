#include "rpc/client/client.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "rpc/proto/health.grpc.pb.h"
#include "rpc/proto/invar.grpc.pb.h"
#include "rpc/tls/tls_probe.h"
#include "rpc/wire/channel_args.h"
#include "rpc/wire/credentials.h"
#include "rpc/wire/delta_merge.h"
#include "rpc/wire/listen.h"
#include "rpc/wire/status.h"

namespace invar::rpc {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kMaxResponse = 512 << 20;  // log-probabilities of a long prompt come in one response
constexpr std::chrono::milliseconds kPoll{100};
constexpr std::chrono::milliseconds kProbe{2000};

}  // namespace

class Client::Impl {
 public:
  explicit Impl(const ClientOptions& options) : options_(options), who_(absl::StrCat("server ", options.address)) {}
  ~Impl();

  absl::Status open();
  void start(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
             std::function<bool(const v1::GenerateResponse&)> on_response, std::function<void(const absl::Status&)> on_done);
  absl::Status check_health(const std::string& service, std::chrono::milliseconds deadline);

  // One unary call of the first connection.
  template <class Request, class Response>
  absl::Status call(grpc::Status (v1::Invar::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response& response, std::chrono::milliseconds deadline) {
    grpc::ClientContext context;
    prepare(context, deadline);
    return from_grpc((stubs_.front().get()->*method)(&context, request, &response), who_);
  }

  const std::string& who() const { return who_; }
  void prepare(grpc::ClientContext& context, std::chrono::milliseconds deadline) const {
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    if (!options_.api_key.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.api_key));
  }

 private:
  class Stream;

  const ClientOptions options_;
  const std::string who_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
  std::vector<std::unique_ptr<v1::Invar::Stub>> stubs_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable closed_;
  std::set<Stream*> streams_;
  int leaving_ = 0;  // streams that are done and not gone
};

// Deletes itself when gRPC is done with it, and says so only then: its context holds the channel, and whoever lets go of the last
// channel of a process waits for gRPC's callback threads to end. One of these may not be the one who does.
class Client::Impl::Stream final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Stream(Impl& impl, const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
         std::function<bool(const v1::GenerateResponse&)> on_response, std::function<void(const absl::Status&)> on_done)
      : impl_(impl), request_(request), on_response_(std::move(on_response)), on_done_(std::move(on_done)) {
    impl.prepare(context_, deadline);
  }

  void start(v1::Invar::Stub& stub) {
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!cancelled_ && !on_response_(response_)) {
      cancelled_ = true;
      context_.TryCancel();
    }
    response_.Clear();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    on_done_(from_grpc(status, impl_.who_));
    Impl& impl = impl_;
    {
      std::lock_guard lock(impl.mutex_);
      impl.streams_.erase(this);
      ++impl.leaving_;
    }
    delete this;
    std::lock_guard lock(impl.mutex_);
    --impl.leaving_;
    impl.closed_.notify_all();
  }

 private:
  Impl& impl_;
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  const std::function<bool(const v1::GenerateResponse&)> on_response_;
  const std::function<void(const absl::Status&)> on_done_;
  v1::GenerateResponse response_;
  bool cancelled_ = false;
};

// A cancelled call is done as soon as gRPC's threads come to it, whatever the server does: the wait needs no deadline of its own.
Client::Impl::~Impl() {
  std::unique_lock lock(mutex_);
  for (Stream* stream : streams_) stream->cancel();
  closed_.wait(lock, [&] { return streams_.empty() && leaving_ == 0; });
}

absl::Status Client::Impl::open() {
  if (absl::Status status = check_address(options_.address, "server address"); !status.ok()) return status;
  if (options_.connections < 1 || options_.connections > 256) {
    return absl::InvalidArgumentError(absl::StrCat("connections ", options_.connections, " is not 1 .. 256"));
  }
  for (int i = 0; i < options_.connections; ++i) {
    grpc::ChannelArguments args = client_args(options_.dead_after, kMaxResponse);
    const auto credentials = channel_credentials(options_.tls, args);
    const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(options_.address, credentials, args);
    stubs_.push_back(v1::Invar::NewStub(channel));
    if (i == 0) health_ = grpc::health::v1::Health::NewStub(channel);
  }
  const Clock::time_point until = Clock::now() + options_.connect_wait;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    const absl::Status status = check_health("", std::max(left, std::chrono::milliseconds(1)));
    // Whatever else is answered, somebody is there.
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return absl::OkStatus();
    // What is wrong with certificates, or with plain text where TLS is spoken, does not mend itself.
    const std::string why = explain_failure(options_.address, options_.tls, kProbe, "--tls-");
    if (!why.empty()) return absl::UnavailableError(absl::StrCat(who_, ": ", why));
    if (Clock::now() + kPoll >= until) {
      return absl::DeadlineExceededError(
          absl::StrCat(who_, ": not there within ", options_.connect_wait.count(), " ms; last answer: ", status.message()));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

void Client::Impl::start(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
                         std::function<bool(const v1::GenerateResponse&)> on_response,
                         std::function<void(const absl::Status&)> on_done) {
  auto* stream = new Stream(*this, request, deadline, std::move(on_response), std::move(on_done));
  {
    std::lock_guard lock(mutex_);
    streams_.insert(stream);
  }
  stream->start(*stubs_[next_.fetch_add(1) % stubs_.size()]);
}

absl::Status Client::Impl::check_health(const std::string& service, std::chrono::milliseconds deadline) {
  grpc::ClientContext context;
  prepare(context, deadline);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = health_->Check(&context, request, &response);
  if (!status.ok()) return from_grpc(status, who_);
  if (response.status() == grpc::health::v1::HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(who_, ": ", service.empty() ? "the process" : service, " is ",
                                             grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status())));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::connect(const ClientOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (absl::Status status = impl->open(); !status.ok()) return status;
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

absl::Status Client::wait_until_serving(std::chrono::milliseconds wait, const std::function<void(const std::string&)>& progress) {
  const Clock::time_point until = Clock::now() + wait;
  std::string told;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    const absl::Status status = check_health(v1::Invar::service_full_name(), std::max(left, std::chrono::milliseconds(1)));
    if (status.ok()) return status;
    const absl::StatusOr<v1::ServerInfo> info = server_info(std::max(left, kPoll));
    const std::string now = info.ok() ? info->progress() : std::string(info.status().message());
    if (progress != nullptr && !now.empty() && now != told) progress(now);
    if (!now.empty()) told = now;
    if (Clock::now() + kPoll >= until) {
      return absl::DeadlineExceededError(
          absl::StrCat(impl_->who(), ": not serving within ", wait.count(), " ms", told.empty() ? "" : ": ", told));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

absl::Status Client::generate(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
                              const std::function<bool(const v1::GenerateResponse&)>& on_response) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  absl::Status result;
  impl_->start(request, deadline, on_response, [&](const absl::Status& status) {
    std::lock_guard lock(mutex);
    result = status;
    done = true;
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done; });  // the call's own deadline ends it
  return result;
}

absl::StatusOr<v1::GenerateResponse> Client::generate_whole(const v1::GenerateRequest& request,
                                                            std::chrono::milliseconds deadline) {
  v1::GenerateResponse whole;
  const absl::Status status = generate(request, deadline, [&](const v1::GenerateResponse& response) {
    merge_response(response, whole);
    return true;
  });
  if (!status.ok()) return status;
  return whole;
}

void Client::start(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
                   std::function<bool(const v1::GenerateResponse&)> on_response,
                   std::function<void(const absl::Status&)> on_done) {
  impl_->start(request, deadline, std::move(on_response), std::move(on_done));
}

absl::StatusOr<v1::ModelInfo> Client::model_info(std::chrono::milliseconds deadline) {
  v1::ModelInfo info;
  const absl::Status status = impl_->call(&v1::Invar::Stub::GetModelInfo, v1::GetModelInfoRequest(), info, deadline);
  if (!status.ok()) return status;
  return info;
}

absl::StatusOr<v1::ServerInfo> Client::server_info(std::chrono::milliseconds deadline) {
  v1::ServerInfo info;
  const absl::Status status = impl_->call(&v1::Invar::Stub::GetServerInfo, v1::GetServerInfoRequest(), info, deadline);
  if (!status.ok()) return status;
  return info;
}

absl::StatusOr<std::vector<int32_t>> Client::tokenize(const std::string& text, bool add_special_tokens,
                                                      std::chrono::milliseconds deadline) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_add_special_tokens(add_special_tokens);
  v1::TokenizeResponse response;
  const absl::Status status = impl_->call(&v1::Invar::Stub::Tokenize, request, response, deadline);
  if (!status.ok()) return status;
  return std::vector<int32_t>(response.ids().begin(), response.ids().end());
}

absl::StatusOr<std::string> Client::detokenize(const std::vector<int32_t>& ids, bool skip_special_tokens,
                                               std::chrono::milliseconds deadline) {
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(ids.begin(), ids.end());
  request.set_skip_special_tokens(skip_special_tokens);
  v1::DetokenizeResponse response;
  const absl::Status status = impl_->call(&v1::Invar::Stub::Detokenize, request, response, deadline);
  if (!status.ok()) return status;
  return response.text();
}

absl::StatusOr<uint64_t> Client::flush_cache(std::chrono::milliseconds deadline) {
  v1::FlushCacheResponse response;
  const absl::Status status = impl_->call(&v1::Invar::Stub::FlushCache, v1::FlushCacheRequest(), response, deadline);
  if (!status.ok()) return status;
  return response.pages();
}

absl::Status Client::abort(const std::string& request_id, std::chrono::milliseconds deadline) {
  v1::AbortRequest request;
  request.set_request_id(request_id);
  v1::AbortResponse response;
  return impl_->call(&v1::Invar::Stub::Abort, request, response, deadline);
}

absl::Status Client::check_health(const std::string& service, std::chrono::milliseconds deadline) {
  return impl_->check_health(service, deadline);
}

}  // namespace invar::rpc
