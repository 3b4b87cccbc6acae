// A client of invar.v1.Invar: for `invar complete`, `chat`, `verify` and `bench`.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/proto/invar.pb.h"
#include "rpc/tls/tls_files.h"

namespace invar::rpc {

struct ClientOptions {
  std::string address;  // "host:port", "[v6]:port" or "unix:/path"
  std::chrono::milliseconds connect_wait{10000};
  int connections = 1;                          // streams go over them in turn; one carries thousands
  std::chrono::milliseconds dead_after{40000};  // a server that answers no ping for so long is gone: UNAVAILABLE
  std::optional<ClientTls> tls;                 // absent = plain text
  std::string api_key;                          // sent with every call; empty = none
};

// Every call has a deadline; errors carry the server's code and message, the message with "server ADDRESS: " before it.
// May be used by any number of threads at once.
class Client {
 public:
  // DeadlineExceeded when no server answers within connect_wait, InvalidArgument for the address; Unavailable says what is wrong
  // with the certificates, or with plain text where TLS is spoken, when that is why.
  static absl::StatusOr<std::unique_ptr<Client>> connect(const ClientOptions& options);
  ~Client();  // cancels what runs; waits for its on_done, and until nothing of it is left

  // Waits until the model is loaded and steps are made. `progress` (may be null) hears what the server waits for when that
  // changes.
  absl::Status wait_until_serving(std::chrono::milliseconds wait, const std::function<void(const std::string&)>& progress);

  // Blocks until the last response. `on_response` is called from another thread, in order, one at a time; returning false cancels
  // the request, which then is CANCELLED.
  absl::Status generate(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
                        const std::function<bool(const v1::GenerateResponse&)>& on_response);
  // All responses of generate() made one.
  absl::StatusOr<v1::GenerateResponse> generate_whole(const v1::GenerateRequest& request, std::chrono::milliseconds deadline);

  // Without a thread each: for thousands at once. Callbacks come from a few gRPC threads and should return soon; `on_done` is the
  // last. `on_response` returning false cancels.
  void start(const v1::GenerateRequest& request, std::chrono::milliseconds deadline,
             std::function<bool(const v1::GenerateResponse&)> on_response, std::function<void(const absl::Status&)> on_done);

  absl::StatusOr<v1::ModelInfo> model_info(std::chrono::milliseconds deadline);
  absl::StatusOr<v1::ServerInfo> server_info(std::chrono::milliseconds deadline);
  absl::StatusOr<std::vector<int32_t>> tokenize(const std::string& text, bool add_special_tokens,
                                                std::chrono::milliseconds deadline);
  absl::StatusOr<std::string> detokenize(const std::vector<int32_t>& ids, bool skip_special_tokens,
                                         std::chrono::milliseconds deadline);
  absl::StatusOr<uint64_t> flush_cache(std::chrono::milliseconds deadline);  // pages freed
  absl::Status abort(const std::string& request_id, std::chrono::milliseconds deadline);
  // grpc.health.v1: OK = SERVING, Unavailable = not, NotFound = no such service. "" asks for the process, "invar.v1.Invar" for
  // the model.
  absl::Status check_health(const std::string& service, std::chrono::milliseconds deadline);

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::rpc
