#include "rpc/server/generate_stream.h"

#include <grpcpp/server_context.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/wire/delta_merge.h"
#include "rpc/wire/status.h"

namespace invar::rpc {

GenerateStream* GenerateStream::start(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                                      int64_t max_buffered_bytes, grpc::CallbackServerContext* context,
                                      const v1::GenerateRequest& request) {
  std::shared_ptr<GenerateStream> stream(new GenerateStream(std::move(state), std::move(writer), max_buffered_bytes, context));
  stream->self_ = stream;
  stream->state_->stream_opened();
  stream->submit(request);
  stream->pump();
  return stream.get();
}

GenerateStream::GenerateStream(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                               int64_t max_buffered_bytes, grpc::CallbackServerContext* context)
    : state_(std::move(state)),
      writer_(std::move(writer)),
      max_buffered_bytes_(max_buffered_bytes),
      deadline_(context->deadline()) {}

void GenerateStream::submit(const v1::GenerateRequest& request) {
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  if (!engine.ok()) {
    std::lock_guard lock(mutex_);
    return end(engine.status(), false);
  }
  absl::StatusOr<std::string> id = (*engine)->submit(
      request,
      [self = self_](const absl::Status& status, const v1::GenerateResponse* response) { self->take(status, response); });
  std::lock_guard lock(mutex_);
  if (!id.ok()) return end(id.status(), false);
  engine_ = *engine;
  request_id_ = *std::move(id);
}

void GenerateStream::take(const absl::Status& status, const v1::GenerateResponse* response) {
  std::lock_guard lock(mutex_);
  if (ended_.has_value()) return;
  if (!status.ok() || response == nullptr) {
    end(status.ok() ? absl::InternalError("the engine ended the request without an answer") : status, false);
  } else {
    if (!has_waiting_) {
      waiting_ = *response;
      has_waiting_ = true;
      merged_bytes_ = 0;
    } else {
      // Only while a write is under way: before, it is our own writer that has not come to it yet.
      if (writing_) merged_bytes_ += static_cast<int64_t>(response->ByteSizeLong());
      merge_response(*response, waiting_);
    }
    if (response->finished()) {
      end(absl::OkStatus(), false);
    } else if (merged_bytes_ > max_buffered_bytes_) {
      has_waiting_ = false;
      waiting_.Clear();
      end(absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: more than ", max_buffered_bytes_,
                                                    " bytes of answer were waiting for it; the request was ended")),
          true);
    }
  }
  schedule();
}

void GenerateStream::end(absl::Status status, bool abort) {
  if (ended_.has_value()) return;
  ended_ = std::move(status);
  abort_wanted_ = abort;
}

void GenerateStream::schedule() {
  if (scheduled_ || (writing_ && !abort_wanted_)) return;  // OnWriteDone goes on
  scheduled_ = true;
  writer_->push(self_);
}

void GenerateStream::pump() {
  std::unique_lock lock(mutex_);
  scheduled_ = false;
  if (abort_wanted_ && !request_id_.empty()) {
    abort_wanted_ = false;
    std::shared_ptr<Engine> engine = engine_.lock();
    lock.unlock();
    // NotFound: it ended by itself at the same time.
    if (engine != nullptr) engine->abort(request_id_).IgnoreError();
    engine.reset();  // not under the mutex: if it is the last reference, the engine waits for a callback that may want the mutex
    lock.lock();
  }
  if (writing_ || finished_) return;
  if (has_waiting_) {
    outgoing_ = std::exchange(waiting_, {});
    has_waiting_ = false;
    writing_ = true;
    const bool last = finished_ = ended_.has_value();
    const absl::Status status = ended_.value_or(absl::OkStatus());
    lock.unlock();
    if (last) {
      StartWriteAndFinish(&outgoing_, grpc::WriteOptions(), to_grpc(status));
    } else {
      StartWrite(&outgoing_);
    }
  } else if (ended_.has_value()) {
    finished_ = true;
    const absl::Status status = *ended_;
    lock.unlock();
    Finish(to_grpc(status));
  }
}

void GenerateStream::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) {
      has_waiting_ = false;
      end(absl::CancelledError("the client is gone"), true);
    }
  }
  pump();
}

void GenerateStream::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    has_waiting_ = false;
    const bool late = std::chrono::system_clock::now() >= deadline_;
    end(late ? absl::DeadlineExceededError("the call's deadline is over") : absl::CancelledError("cancelled by the client"),
        true);
  }
  pump();
}

void GenerateStream::OnDone() {
  state_->stream_closed();
  std::shared_ptr<GenerateStream> self;  // outlives the lock on the mutex in it
  std::lock_guard lock(mutex_);
  self = std::exchange(self_, nullptr);
}

}  // namespace invar::rpc
