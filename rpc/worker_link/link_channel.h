// The worker's end of the worker link: the leader rank of a replica takes plans from it and puts results.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/proto/worker_link.pb.h"
#include "rpc/tls/tls_files.h"
#include "runtime/worker/plan_channel.h"

namespace invar::rpc {

struct LinkOptions {
  std::string coordinator;                           // "host:port", "[v6]:port" or "unix:/path"
  std::chrono::milliseconds wait{60000};             // for the coordinator to come up and answer
  std::chrono::milliseconds dead_after{10000};       // a coordinator that answers no ping for so long is gone
  std::optional<ClientTls> tls;                      // with certificate, key and ca_certificates; absent = plain text
  std::function<void(const std::string&)> progress;  // what is waited for, from the calling thread; may be null
};

class LinkChannel final : public PlanChannel {
 public:
  // Dials until the coordinator is up. FailedPrecondition: it refused, with its reason; DeadlineExceeded: nobody answered within
  // `wait`; InvalidArgument: the address.
  static absl::StatusOr<std::unique_ptr<LinkChannel>> connect(const LinkOptions& options, const v1::Hello& hello);
  ~LinkChannel() override;  // cuts the stream; results not yet sent are lost unless close() came before

  // The coordinator's Shutdown comes out as a plan with `shutdown` set.
  absl::StatusOr<std::optional<v1::StepPlan>> next(std::chrono::milliseconds wait) override;
  void post(const v1::StepResult& result) override;
  // Sends what was posted and ends the stream. DeadlineExceeded, Unavailable.
  absl::Status close(std::chrono::milliseconds wait);

 private:
  class Impl;
  explicit LinkChannel(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace invar::rpc
