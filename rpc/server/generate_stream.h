// One Generate call: between the engine's callback and gRPC's write reactor. Internal to this folder (it shows gRPC types).
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "rpc/server/serving_state.h"
#include "rpc/server/stream_writer.h"
#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

// At most two responses are held: the one being written and one in which everything newer is merged. A reader so slow that the
// second grows beyond the bound loses its request (RESOURCE_EXHAUSTED) rather than the server its memory.
class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  static GenerateStream* start(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                               int64_t max_buffered_bytes, grpc::CallbackServerContext* context,
                               const v1::GenerateRequest& request);

  // Starts what can be started: an abort, a write, the end. Not under mutex_, for gRPC may run reactions before StartWrite
  // returns.
  void pump();

  void OnWriteDone(bool ok) override;
  void OnCancel() override;  // the client cancelled, is gone, or the deadline is over
  void OnDone() override;

 private:
  GenerateStream(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer, int64_t max_buffered_bytes,
                 grpc::CallbackServerContext* context);
  void submit(const v1::GenerateRequest& request);
  void take(const absl::Status& status, const v1::GenerateResponse* response);  // the engine's callback
  void schedule();                                                              // mutex_ is held
  void end(absl::Status status, bool abort);                                    // mutex_ is held; the first end counts

  const std::shared_ptr<ServingState> state_;
  const std::shared_ptr<StreamWriter> writer_;
  const int64_t max_buffered_bytes_;
  const std::chrono::system_clock::time_point deadline_;
  std::shared_ptr<GenerateStream> self_;  // until OnDone
  v1::GenerateResponse outgoing_;         // being written

  std::mutex mutex_;
  std::weak_ptr<Engine> engine_;  // weak: the engine holds this stream by its callback
  std::string request_id_;        // empty until submit() returned
  v1::GenerateResponse waiting_;
  bool has_waiting_ = false;
  int64_t merged_bytes_ = 0;           // added to waiting_ while a write was under way; its first response may have any size
  std::optional<absl::Status> ended_;  // no more responses are taken
  bool abort_wanted_ = false;
  bool scheduled_ = false;
  bool writing_ = false;
  bool finished_ = false;
};

}  // namespace invar::rpc
