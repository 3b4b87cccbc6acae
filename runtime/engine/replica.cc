#include "runtime/engine/replica.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "runtime/model_config/message.h"

namespace invar::engine {
namespace {

// How long the collector waits at once; it also bounds how long stopping takes.
constexpr std::chrono::milliseconds kPoll{25};

struct BySequence {
  bool operator()(const v1::TokenResult* r, uint64_t sequence) const { return r->sequence() < sequence; }
  bool operator()(uint64_t sequence, const v1::TokenResult* r) const { return sequence < r->sequence(); }
};

}  // namespace

Replica::Replica(std::unique_ptr<Executor> executor, const SchedulerLimits& limits)
    : executor_(std::move(executor)), scheduler_(limits, executor_->facts()) {}

Replica::~Replica() { stop_collecting(); }

void Replica::start_collecting(OnResult on_result) {
  // It waits while nothing is in flight too: that is how the loss of an idle worker group is noticed.
  collector_ = std::thread([this, on_result = std::move(on_result)] {
    pthread_setname_np(pthread_self(), "invar-collector");
    while (!stop_) {
      absl::StatusOr<v1::StepResult> result = executor_->next(kPoll);
      if (absl::IsDeadlineExceeded(result.status())) continue;
      if (result.ok() && !result->failure().empty()) result = absl::UnavailableError(result->failure());
      const bool lost = !result.ok();
      on_result(std::move(result));
      if (lost) return;
    }
  });
}

void Replica::stop_collecting() {
  stop_ = true;
  if (collector_.joinable()) collector_.join();
}

bool Replica::submit_next(const std::function<void(const v1::StepPlan&)>& observer, v1::StepPlan* plan, absl::Status* status) {
  plan->Clear();
  std::vector<ExpectedDraws> expected;
  if (!scheduler_.build(plan, &expected)) return false;
  plan->set_step(next_step_++);
  if (observer) observer(*plan);
  in_flight_.push_back({plan->step(), std::move(expected), Clock::now()});
  *status = executor_->submit(*plan);
  return status->ok();
}

absl::StatusOr<Replica::Matched> Replica::match(const v1::StepResult& result) {
  if (in_flight_.empty() || in_flight_.front().step != result.step())
    return absl::InternalError(message("the ranks answered step ", result.step(), " where ",
                                       in_flight_.empty() ? "no step" : message("step ", in_flight_.front().step),
                                       " was awaited"));
  const std::vector<ExpectedDraws> expected = std::move(in_flight_.front().expected);
  const Clock::time_point began = step_began(), now = Clock::now();
  last_step_seconds_ = std::chrono::duration<double>(now - began).count();
  last_result_ = now;
  in_flight_.pop_front();
  ++steps_;

  // Nothing is allocated a sequence: this runs between any two steps.
  Matched matched;
  std::vector<const v1::TokenResult*>& all = matched.results;
  for (const v1::TokenResult& r : result.tokens()) all.push_back(&r);
  const auto in_order = [](const auto* a, const auto* b) {
    return a->sequence() != b->sequence() ? a->sequence() < b->sequence() : a->position() < b->position();
  };
  if (!std::is_sorted(all.begin(), all.end(), in_order)) std::sort(all.begin(), all.end(), in_order);
  for (const ExpectedDraws& e : expected) {
    Sequence* s = scheduler_.find(e.sequence);
    if (!s) continue;  // ended meanwhile: surplus
    const auto [begin, end] = std::equal_range(all.begin(), all.end(), e.sequence, BySequence());
    const std::span<const v1::TokenResult* const> results(begin, end);
    const auto bad = [&](const auto&... what) {
      return absl::InternalError(
          message("step ", result.step(), ", sequence ", e.sequence, " (request ", *s->request_id, "): ", what...));
    };
    if (static_cast<int64_t>(results.size()) != e.count) return bad(results.size(), " draws came, ", e.count, " were asked for");
    for (int64_t i = 0; i < e.count; ++i) {
      if (results[i]->position() != e.first + i)
        return bad("a draw for position ", results[i]->position(), " came, position ", e.first + i, " was asked for");
      if (results[i]->finite() && (results[i]->token() < 0 || results[i]->token() >= facts().vocab_size))
        return bad("token ", results[i]->token(), " at position ", e.first + i, " is not in the vocabulary of ",
                   facts().vocab_size);
    }
    matched.draws.push_back({s, results});
  }
  return matched;
}

std::vector<Sequence*> Replica::lose(const absl::Status& why) {
  alive_ = false;
  failure_ = why;
  in_flight_.clear();
  load = 0;
  return scheduler_.abandon();
}

}  // namespace invar::engine
