// One Generate call: between the engine's callback and gRPC's write reactor, for whichever service. Internal to this folder (it
// shows gRPC types).
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/server/request_metrics.h"
#include "rpc/server/serving_state.h"
#include "rpc/server/stream_writer.h"
#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

// Trailers of every Generate call that came to a model, refused or not; the digest where the answer has one choice.
inline constexpr char kNumericsIdTrailer[] = "invar-numerics-id";
inline constexpr char kModelDigestTrailer[] = "invar-model-digest";
inline constexpr char kResponseDigestTrailer[] = "invar-response-digest";

// At most two responses are held: the one being written and one in which everything newer is merged. A reader so slow that the
// second grows beyond the bound loses its request (RESOURCE_EXHAUSTED) rather than the server its memory.
class GenerateStream {
 public:
  virtual ~GenerateStream() = default;
  // Starts what can be started: an abort, a write, the end. Not under mutex_, for gRPC may run reactions before StartWrite
  // returns.
  void pump();

 protected:
  // `method`: a literal, for the log.
  GenerateStream(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer, const StreamOptions& options,
                 grpc::CallbackServerContext* context, const char* method);
  // Submits the request, or ends the call at once.
  void begin(std::shared_ptr<GenerateStream> self, absl::StatusOr<v1::GenerateRequest> request);
  void written(bool ok);
  void cancelled();  // the client cancelled, is gone, or the deadline is over
  void done();

  // The wire form. Called by one thread at a time.
  virtual void encode(v1::GenerateResponse response) = 0;                 // appends messages, perhaps none
  virtual absl::Status encode_end(absl::Status status) = 0;               // after the last response; may append and change it
  virtual size_t encoded() const = 0;                                     // messages appended and not yet written
  virtual void drop() = 0;                                                // nobody reads them
  virtual void write(const std::optional<grpc::Status>& and_finish) = 0;  // the first of them
  virtual void finish(const grpc::Status& status) = 0;

 private:
  void submit(v1::GenerateRequest request);
  void take(const absl::Status& status, const v1::GenerateResponse* response);  // the engine's callback
  void schedule();                                                              // mutex_ is held
  void end(absl::Status status, bool abort);                                    // mutex_ is held; the first end counts
  void add_trailers();                                                          // mutex_ is held
  void log();                                                                   // mutex_ is held

  const std::shared_ptr<ServingState> state_;
  const std::shared_ptr<StreamWriter> writer_;
  const StreamOptions options_;
  grpc::CallbackServerContext* const context_;  // until done()
  const char* const method_;
  const std::string peer_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  const std::chrono::system_clock::time_point deadline_;
  RequestTimer timer_;                    // used by the engine's thread
  std::shared_ptr<GenerateStream> self_;  // until done()

  std::mutex mutex_;
  std::weak_ptr<Engine> engine_;  // weak: the engine holds this stream by its callback
  std::string request_id_;        // empty until submit() returned
  std::string asked_id_;          // the client's, if it gave one
  std::string numerics_id_, model_digest_, response_digest_;
  int digests_ = 0;
  uint64_t prompt_tokens_ = 0, completion_tokens_ = 0;
  v1::GenerateResponse waiting_;
  bool has_waiting_ = false;
  int64_t merged_bytes_ = 0;           // added to waiting_ while a write was under way; its first response may have any size
  std::optional<absl::Status> ended_;  // no more responses are taken
  bool end_encoded_ = false;
  bool gone_ = false;  // nobody reads any more
  bool abort_wanted_ = false;
  bool scheduled_ = false;
  bool writing_ = false;  // a message is being made or written
  bool finished_ = false;
};

// What a service's messages are made of. One object a call.
template <class Message>
class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual void encode(v1::GenerateResponse response, std::deque<Message>& out) = 0;
  // The end of the answer, unless the client itself is gone; the status is the call's.
  virtual absl::Status end(absl::Status status, std::deque<Message>&) { return status; }
};

template <class Message>
class MessageStream final : public grpc::ServerWriteReactor<Message>, public GenerateStream {
 public:
  static MessageStream* start(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                              const StreamOptions& options, grpc::CallbackServerContext* context, const char* method,
                              absl::StatusOr<v1::GenerateRequest> request, std::unique_ptr<Encoder<Message>> encoder) {
    std::shared_ptr<MessageStream> stream(
        new MessageStream(std::move(state), std::move(writer), options, context, method, std::move(encoder)));
    stream->begin(stream, std::move(request));
    return stream.get();
  }

  void OnWriteDone(bool ok) override { written(ok); }
  void OnCancel() override { cancelled(); }
  void OnDone() override { done(); }

 private:
  MessageStream(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer, const StreamOptions& options,
                grpc::CallbackServerContext* context, const char* method, std::unique_ptr<Encoder<Message>> encoder)
      : GenerateStream(std::move(state), std::move(writer), options, context, method), encoder_(std::move(encoder)) {}

  void encode(v1::GenerateResponse response) override { encoder_->encode(std::move(response), messages_); }
  absl::Status encode_end(absl::Status status) override { return encoder_->end(std::move(status), messages_); }
  size_t encoded() const override { return messages_.size(); }
  void drop() override { messages_.clear(); }
  void write(const std::optional<grpc::Status>& and_finish) override {
    outgoing_ = std::move(messages_.front());
    messages_.pop_front();
    if (and_finish.has_value()) {
      this->StartWriteAndFinish(&outgoing_, grpc::WriteOptions(), *and_finish);
    } else {
      this->StartWrite(&outgoing_);
    }
  }
  void finish(const grpc::Status& status) override { this->Finish(status); }

  const std::unique_ptr<Encoder<Message>> encoder_;
  std::deque<Message> messages_;
  Message outgoing_;  // being written
};

}  // namespace invar::rpc
