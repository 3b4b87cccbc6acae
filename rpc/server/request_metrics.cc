#include "rpc/server/request_metrics.h"

namespace invar::rpc {
namespace {

// vLLM's buckets, with finer ones below for small models.
const std::vector<double> kFirstToken = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                         1.0,   2.5,    5.0,   7.5,  10.0, 20.0, 40.0, 80.0, 160, 640,  2560};
const std::vector<double> kInterToken = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
                                         0.4,    0.5,   0.75,   1.0,   2.5,  5.0,   7.5,  10.0,  20,  40,   80};
const std::vector<double> kEndToEnd = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0,  10,
                                       15,   20,   30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};
const std::vector<double> kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

RequestMetrics::RequestMetrics()
    : time_to_first_token(kFirstToken),
      inter_token(kInterToken),
      end_to_end(kEndToEnd),
      prompt_tokens(kTokens),
      generation_tokens(kTokens) {}

void RequestTimer::take(const absl::Status& status, const v1::GenerateResponse* response) {
  if (!status.ok() || response == nullptr) {
    const bool aborted = status.code() == absl::StatusCode::kCancelled || status.code() == absl::StatusCode::kDeadlineExceeded;
    ++metrics_->finished[aborted ? v1::FINISH_REASON_ABORT : v1::FINISH_REASON_ERROR];
    metrics_->end_to_end.observe(seconds(Clock::now() - began_));
    return;
  }
  const Clock::time_point now = Clock::now();
  for (const v1::ChoiceDelta& delta : response->choices()) {
    if (choices_.size() <= delta.index()) choices_.resize(delta.index() + 1);
    Choice& choice = choices_[delta.index()];
    if (const auto fresh = static_cast<uint64_t>(delta.token_ids_size()); fresh > 0) {
      if (choice.tokens == 0) {
        metrics_->time_to_first_token.observe(seconds(now - began_));
      } else {
        metrics_->inter_token.observe(seconds(now - choice.last) / static_cast<double>(fresh), fresh);
      }
      choice.tokens += fresh;
      choice.last = now;
    }
    const auto reason = static_cast<size_t>(delta.finish_reason());
    if (delta.finish_reason() == v1::FINISH_REASON_UNSPECIFIED || reason >= metrics_->finished.size()) continue;
    ++metrics_->finished[reason];
    metrics_->generation_tokens.observe(static_cast<double>(choice.tokens));
  }
  if (!response->finished()) return;
  metrics_->end_to_end.observe(seconds(now - began_));
  metrics_->prompt_tokens.observe(response->usage().prompt_tokens());
}

}  // namespace invar::rpc
