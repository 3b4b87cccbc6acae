#include "rpc/http/call.h"

#include "rpc/http/error_body.h"

namespace invar::http {
namespace {

absl::Status explained(const absl::Status& given) {
  // A schema that costs too much is the client's, and trying again does not mend it.
  const absl::Status status = given.code() == absl::StatusCode::kResourceExhausted && given.message().substr(0, 7) == "guided_"
                                  ? absl::InvalidArgumentError(given.message())
                                  : given;
  if (status.code() == absl::StatusCode::kFailedPrecondition && status.message().substr(0, 20) == "require_model_digest")
    return with_details(status, 412, "model_digest_mismatch", "invar.require_model_digest");
  if (status.code() == absl::StatusCode::kResourceExhausted) return with_details(status, 429, "rate_limit_exceeded");
  return status;
}

}  // namespace

Call::Call(std::shared_ptr<Exchange> exchange, std::shared_ptr<rpc::ServingState> state, std::shared_ptr<WorkPool> pool,
           std::unique_ptr<Answer> answer, std::shared_ptr<void> held)
    : exchange_(std::move(exchange)),
      state_(std::move(state)),
      pool_(std::move(pool)),
      answer_(std::move(answer)),
      held_(std::move(held)) {}

void Call::start(std::shared_ptr<Exchange> exchange, const std::shared_ptr<Engine>& engine,
                 std::shared_ptr<rpc::ServingState> state, std::shared_ptr<WorkPool> pool, std::unique_ptr<Answer> answer,
                 std::vector<v1::GenerateRequest> requests, const Limits& limits, std::shared_ptr<void> held) {
  const bool stream = answer->ask().stream;
  auto call = std::make_shared<Call>(exchange, state, std::move(pool), std::move(answer), std::move(held));
  // Weak: the engine holds the callback, and the call outlives its answer in no case.
  auto changed = [weak = std::weak_ptr<Call>(call), stream] {
    const std::shared_ptr<Call> call = weak.lock();
    if (call == nullptr) return;
    if (stream && call->streaming_) {
      call->exchange_->wake();
    } else {
      call->pool_->post(call->exchange_->request().request_id,
                        [call, stream] { stream ? call->begin_stream() : call->answer_whole(); });
    }
  };
  call->generation_ = std::make_shared<Generation>(engine, std::move(requests), stream,
                                                   stream ? limits.most_buffered_bytes : limits.most_answer_bytes,
                                                   state->metrics(), std::move(changed));
  state->stream_opened();
  exchange->on_end([call](bool complete) { call->over(complete); });
  if (absl::Status status = call->generation_->submit(); !status.ok())
    return exchange->respond(error_response(renamed(explained(status), call->answer_->ask().field_names)));
}

void Call::begin_stream() {
  streaming_ = true;  // before taking: what comes from here on is told by a wake(), which finds it when the stream has begun
  Generation::News news = generation_->take();
  if (news.ended && !news.ended->ok()) return refuse(*news.ended);
  bool tokens = false;
  absl::Status failure;
  for (const auto& [prompt, response] : news.responses)
    for (const v1::ChoiceDelta& choice : response.choices()) {
      tokens |= choice.token_ids_size() > 0;
      if (choice.finish_reason() == v1::FINISH_REASON_ERROR) failure = absl::InternalError(choice.stop_reason());
    }
  if (!tokens && !failure.ok()) {
    generation_->cancel(failure);
    return refuse(failure);
  }
  first_ = std::move(news);
  Response head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  exchange_->stream(std::move(head), shared_from_this());
}

bool Call::pull(std::string& out) {
  if (first_) {
    const Generation::News news = *std::exchange(first_, std::nullopt);
    if (!events(news, out)) return false;
  }
  generation_->reader_busy(false);
  if (!events(generation_->take(), out)) return false;
  if (!out.empty()) generation_->reader_busy(true);
  return true;
}

bool Call::events(const Generation::News& news, std::string& out) {
  for (const auto& [prompt, response] : news.responses) answer_->events(prompt, response, out);
  if (!news.ended) return true;
  exchange_->note(answer_->summary());
  if (news.ended->ok()) {
    answer_->last_events(out);
  } else {
    add_event(out, error_json(*news.ended));
    add_event(out, "[DONE]");
    exchange_->note("error=\"" + std::string(news.ended->message().substr(0, 200)) + "\"");
  }
  return false;
}

void Call::refuse(const absl::Status& why) { exchange_->respond(error_response(explained(why))); }

void Call::answer_whole() {
  Generation::News news = generation_->take();
  if (!news.ended) return;
  if (!news.ended->ok()) return refuse(*news.ended);
  std::vector<v1::GenerateResponse> responses;
  for (auto& [prompt, response] : news.responses) responses.push_back(std::move(response));
  for (const v1::GenerateResponse& response : responses)
    for (const v1::ChoiceDelta& choice : response.choices())
      if (choice.finish_reason() == v1::FINISH_REASON_ERROR) return refuse(absl::InternalError(choice.stop_reason()));
  Response response;
  response.body = answer_->whole(responses);
  exchange_->note(answer_->summary());
  exchange_->respond(std::move(response));
}

void Call::over(bool complete) {
  if (!complete) generation_->cancel(absl::CancelledError("the client is gone"));
  held_.reset();
  state_->stream_closed();
}

}  // namespace invar::http
