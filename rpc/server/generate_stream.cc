#include "rpc/server/generate_stream.h"

#include <spdlog/spdlog.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "rpc/wire/delta_merge.h"
#include "rpc/wire/status.h"

namespace invar::rpc {

GenerateStream::GenerateStream(std::shared_ptr<ServingState> state, std::shared_ptr<StreamWriter> writer,
                               const StreamOptions& options, grpc::CallbackServerContext* context, const char* method)
    : state_(std::move(state)),
      writer_(std::move(writer)),
      options_(options),
      context_(context),
      method_(method),
      peer_(context->peer()),
      deadline_(context->deadline()),
      timer_(state_->metrics()) {}

void GenerateStream::begin(std::shared_ptr<GenerateStream> self, absl::StatusOr<v1::GenerateRequest> request) {
  self_ = std::move(self);
  state_->stream_opened();
  if (request.ok()) {
    submit(*std::move(request));
  } else {
    std::lock_guard lock(mutex_);
    end(request.status(), false);
  }
  pump();
}

void GenerateStream::submit(v1::GenerateRequest request) {
  const absl::StatusOr<std::shared_ptr<Engine>> engine = state_->engine();
  asked_id_ = request.request_id();
  if (!engine.ok()) {
    std::lock_guard lock(mutex_);
    return end(engine.status(), false);
  }
  {  // Before the first response may come.
    std::lock_guard lock(mutex_);
    numerics_id_ = (*engine)->facts().numerics_id;
    model_digest_ = (*engine)->facts().model_digest;
  }
  absl::StatusOr<std::string> id = (*engine)->submit(
      std::move(request),
      [self = self_](const absl::Status& status, const v1::GenerateResponse* response) { self->take(status, response); });
  std::lock_guard lock(mutex_);
  if (!id.ok()) return end(id.status(), false);
  engine_ = *engine;
  request_id_ = *std::move(id);
}

void GenerateStream::take(const absl::Status& status, const v1::GenerateResponse* response) {
  timer_.take(status, response);
  std::lock_guard lock(mutex_);
  if (ended_.has_value()) return;
  if (!status.ok() || response == nullptr) {
    end(status.ok() ? absl::InternalError("the engine ended the request without an answer") : status, false);
  } else {
    for (const v1::ChoiceDelta& choice : response->choices()) {
      if (!choice.response_digest().empty()) response_digest_ = choice.response_digest(), ++digests_;
      completion_tokens_ += static_cast<uint64_t>(choice.token_ids_size());
    }
    if (response->has_usage()) prompt_tokens_ = response->usage().prompt_tokens();
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
    } else if (merged_bytes_ > options_.max_buffered_bytes) {
      has_waiting_ = false;
      waiting_.Clear();
      gone_ = true;  // for the encoder: no more messages are made of it
      end(absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: more than ", options_.max_buffered_bytes,
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
  if (scheduled_ || (writing_ && !abort_wanted_)) return;  // who writes goes on
  scheduled_ = true;
  writer_->push(self_);
}

void GenerateStream::add_trailers() {
  if (model_digest_.empty()) return;  // no model was asked
  context_->AddTrailingMetadata(kNumericsIdTrailer, numerics_id_);
  context_->AddTrailingMetadata(kModelDigestTrailer, model_digest_);
  if (digests_ == 1 && ended_->ok()) context_->AddTrailingMetadata(kResponseDigestTrailer, response_digest_);
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
  writing_ = true;  // from here on this thread makes and writes messages, until OnWriteDone
  for (;;) {
    if (gone_) drop();
    if (encoded() == 0 && has_waiting_) {
      v1::GenerateResponse response = std::exchange(waiting_, {});
      has_waiting_ = false;
      lock.unlock();
      encode(std::move(response));
      lock.lock();
      continue;
    }
    const bool last = ended_.has_value() && !has_waiting_;
    if (last && !end_encoded_) {
      end_encoded_ = true;
      absl::Status status = *ended_;
      if (gone_) continue;
      lock.unlock();
      status = encode_end(std::move(status));
      lock.lock();
      ended_ = std::move(status);
      continue;
    }
    if (encoded() == 0 && !last) {
      writing_ = false;
      return;
    }
    std::optional<grpc::Status> and_finish;
    if (last && encoded() <= 1) {
      finished_ = true;
      add_trailers();
      and_finish = to_grpc(*ended_);
    }
    const bool nothing = encoded() == 0;
    lock.unlock();
    return nothing ? finish(*and_finish) : write(and_finish);
  }
}

void GenerateStream::written(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) {
      has_waiting_ = false;
      gone_ = true;
      end(absl::CancelledError("the client is gone"), true);
    }
  }
  pump();
}

void GenerateStream::cancelled() {
  {
    std::lock_guard lock(mutex_);
    has_waiting_ = false;
    gone_ = true;
    const bool late = std::chrono::system_clock::now() >= deadline_;
    end(late ? absl::DeadlineExceededError("the call's deadline is over") : absl::CancelledError("cancelled by the client"),
        true);
  }
  pump();
}

void GenerateStream::done() {
  state_->stream_closed();
  std::shared_ptr<GenerateStream> self;  // outlives the lock on the mutex in it
  std::lock_guard lock(mutex_);
  log();
  self = std::exchange(self_, nullptr);
}

// As HTTP's: never a key, a prompt or an answer. Ids are the client's words: escaped, and cut.
void GenerateStream::log() {
  if (!options_.access_log) return;
  const std::string& id = request_id_.empty() ? asked_id_ : request_id_;
  const absl::Status status = ended_.value_or(absl::OkStatus());
  const std::string digest = digests_ == 1 && status.ok() ? absl::StrCat(" digest=", response_digest_) : "";
  spdlog::info("grpc peer={} method={} status={} ms={:.1f} request_id={} prompt_tokens={} completion_tokens={}{}", peer_, method_,
               absl::StatusCodeToString(status.code()),
               std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began_).count(),
               id.empty() ? "-" : absl::CHexEscape(id.substr(0, 200)), prompt_tokens_, completion_tokens_, digest);
}

}  // namespace invar::rpc
