#include "rpc/http/generation.h"

#include "absl/strings/str_cat.h"
#include "rpc/wire/delta_merge.h"

namespace invar::http {

Generation::Generation(const std::shared_ptr<Engine>& engine, std::vector<v1::GenerateRequest> requests, bool stream,
                       int64_t most_bytes, std::shared_ptr<rpc::RequestMetrics> metrics, std::function<void()> changed)
    : stream_(stream),
      most_bytes_(most_bytes),
      metrics_(std::move(metrics)),
      changed_(std::move(changed)),
      engine_(engine),
      requests_(std::move(requests)),
      waiting_(requests_.size()),
      unfinished_(requests_.size()) {}

absl::Status Generation::submit() {
  const std::shared_ptr<Engine> engine = engine_.lock();
  if (engine == nullptr) return absl::UnavailableError("the server is shutting down");
  for (uint32_t i = 0; i < requests_.size(); ++i) {
    const auto timer = std::make_shared<rpc::RequestTimer>(metrics_);
    const absl::StatusOr<std::string> id = engine->submit(
        requests_[i], [self = shared_from_this(), timer, i](const absl::Status& status, const v1::GenerateResponse* response) {
          timer->take(status, response);
          self->take_response(i, status, response);
        });
    bool ended = false;
    {
      const std::lock_guard lock(mutex_);
      submitted_ += id.ok() ? 1 : 0;
      ended = ended_ && !ended_->ok();
    }
    if (!id.ok()) {
      cancel(id.status());
      return id.status();
    }
    if (ended) {  // cancelled, or one of them failed, while this one was on its way
      abort_all();
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

void Generation::take_response(uint32_t prompt, const absl::Status& status, const v1::GenerateResponse* response) {
  bool notify = false, abort = false;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!status.ok() || response == nullptr) {
      ended_ = status.ok() ? absl::InternalError("the engine ended the request without an answer") : status;
      abort = waiting_.size() > 1;
    } else {
      std::optional<v1::GenerateResponse>& waiting = waiting_[prompt];
      if (!waiting) {
        waiting = *response;
        if (!stream_) bytes_ += static_cast<int64_t>(response->ByteSizeLong());
      } else {
        // A stream's news count only while a write is under way: before, it is our own thread that has not come to them yet.
        if (busy_ || !stream_) bytes_ += static_cast<int64_t>(response->ByteSizeLong());
        rpc::merge_response(*response, *waiting);
      }
      if (response->finished() && --unfinished_ == 0) {
        ended_ = absl::OkStatus();
      } else if (bytes_ > most_bytes_) {
        ended_ = absl::ResourceExhaustedError(
            stream_ ? absl::StrCat("the client reads too slowly: more than ", most_bytes_,
                                   " bytes of answer were waiting for it; the request was ended")
                    : absl::StrCat("the answer is larger than ", most_bytes_,
                                   " bytes; ask for fewer choices or log-probabilities, or stream it"));
        waiting_.assign(waiting_.size(), std::nullopt);
        abort = true;
      }
    }
    if ((stream_ || ended_) && !notified_) notify = notified_ = true;
  }
  if (abort) abort_all();
  if (notify) changed_();
}

Generation::News Generation::take() {
  News news;
  const std::lock_guard lock(mutex_);
  notified_ = false;
  for (uint32_t i = 0; i < waiting_.size(); ++i) {
    if (!waiting_[i]) continue;
    news.responses.emplace_back(i, *std::move(waiting_[i]));
    waiting_[i].reset();
  }
  if (stream_) bytes_ = 0;
  news.ended = ended_;
  return news;
}

void Generation::reader_busy(bool busy) {
  const std::lock_guard lock(mutex_);
  busy_ = busy;
}

void Generation::cancel(const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_ && ended_->ok()) return;
    ended_ = why;
    notified_ = true;
    waiting_.assign(waiting_.size(), std::nullopt);
  }
  abort_all();
}

// NotFound: it ended by itself at the same time.
void Generation::abort_all() {
  const std::shared_ptr<Engine> engine = engine_.lock();
  if (engine == nullptr) return;
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = submitted_;
  }
  for (size_t i = 0; i < count; ++i) engine->abort(requests_[i].request_id()).IgnoreError();
}

}  // namespace invar::http
