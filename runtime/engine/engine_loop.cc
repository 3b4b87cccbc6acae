#include "runtime/engine/engine_loop.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "runtime/model_config/message.h"
#include "spdlog/spdlog.h"

namespace invar {
namespace {

// The engine's thread wakes for work; this only bounds how late an overdue step is noticed.
constexpr std::chrono::milliseconds kWatch{100};

}  // namespace

void Engine::Impl::lap(double& part) {
  const Clock::time_point now = Clock::now();
  part += std::chrono::duration<double>(now - lap_).count();
  lap_ = now;
}

void Engine::Impl::run() {
  pthread_setname_np(pthread_self(), "invar-engine");
  while (true) {
    Inbox inbox;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, kWatch, [&] { return stopping_ || !inbox_.empty(); });
      if (stopping_) break;
      std::swap(inbox, inbox_);
    }
    lap_ = Clock::now();
    for (Event& e : inbox.events) {
      if (!replicas_[e.replica]->alive()) continue;
      if (e.result.ok()) {
        take_result(e.replica, *e.result);
      } else {
        lose(e.replica, e.result.status());
      }
    }
    inbox.events.clear();
    lap(counted_.busy.results);
    for (auto& request : inbox.submitted) accept(std::move(request));
    for (const std::string& id : inbox.aborted) cancel(id);
    for (const auto& flush : inbox.flushes) flush->set_value(flush_now());
    lap(counted_.busy.requests);
    submit_plans();
    lap(counted_.busy.plans);
    watch_deadlines();
    publish();
    lap(counted_.busy.statistics);
  }
  Inbox inbox;
  {
    std::lock_guard lock(mutex_);
    std::swap(inbox, inbox_);
  }
  const absl::Status stopped = absl::UnavailableError("the engine was stopped");
  for (const auto& flush : inbox.flushes) flush->set_value(0);
  for (auto& request : inbox.submitted) {
    engine::Request* r = request.get();
    requests_.emplace(r->id(), std::move(request));
  }
  while (!requests_.empty()) finish_with(requests_.begin()->second.get(), stopped);
  publish();
}

int Engine::Impl::least_loaded() const {
  const auto before = [](const engine::Replica& a, const engine::Replica& b) {
    return a.overdue != b.overdue ? b.overdue : a.load < b.load;
  };
  int best = -1;
  for (size_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i]->alive() && (best < 0 || before(*replicas_[i], *replicas_[best]))) best = static_cast<int>(i);
  return best;
}

void Engine::Impl::accept(std::unique_ptr<engine::Request> owned) {
  engine::Request* request = owned.get();
  if (requests_.empty()) last_progress_ = Clock::now();
  requests_.emplace(request->id(), std::move(owned));
  request->replica = least_loaded();
  if (request->replica < 0) {
    absl::Status why;
    {
      std::lock_guard lock(mutex_);
      why = lost_;
    }
    finish_with(request, why);
    return;
  }
  engine::Replica& replica = *replicas_[request->replica];
  replica.load += request->choices();
  const uint32_t now = request->choices_held ? 1 : request->choices();
  for (uint32_t i = 0; i < now; ++i) replica.scheduler().add(request->sequence(i));
}

void Engine::Impl::release_choices(engine::Request* request) {
  request->choices_held = false;
  for (uint32_t i = 1; i < request->choices(); ++i) replicas_[request->replica]->scheduler().add(request->sequence(i));
}

void Engine::Impl::cancel(const std::string& id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;  // finished before this was read
  ++counted_.aborted;
  finish_with(it->second.get(), absl::CancelledError(message("request ", id, " was aborted")));
}

void Engine::Impl::take_result(int index, const v1::StepResult& result) {
  engine::Replica& replica = *replicas_[index];
  const absl::StatusOr<engine::Replica::Matched> matched = replica.match(result);
  if (!matched.ok()) {
    lose(index, matched.status());
    return;
  }
  last_progress_ = Clock::now();
  std::vector<engine::Request*> touched;
  for (const engine::Replica::Draw& draw : matched->draws) {
    engine::Sequence* s = draw.sequence;
    engine::Request* request = s->request;
    for (const v1::TokenResult* r : draw.results) {
      const bool ended = request->take(s, *r);
      replica.scheduler().received(s);
      if (!ended) continue;
      replica.scheduler().remove(s, /*trust_pages=*/r->finite());
      --replica.load;
      break;
    }
    if (request->choices_held && (!request->prompt_logprobs_missing() || s->state == engine::Sequence::State::kDone))
      release_choices(request);
    if (request->has_response() && !std::exchange(request->touched, true)) touched.push_back(request);
  }
  lap(counted_.busy.results);
  for (engine::Request* request : touched) {
    request->touched = false;
    send(request);
  }
  lap(counted_.busy.answers);
}

void Engine::Impl::send(engine::Request* request) {
  const v1::GenerateResponse& response = request->response();
  uint64_t tokens = 0;
  for (const v1::ChoiceDelta& d : response.choices()) tokens += d.token_ids_size();
  counted_.generation_tokens += tokens;
  if (!response.finished()) {
    request->callback(absl::OkStatus(), &response);
    request->response_taken();
    return;
  }
  ++counted_.finished;
  forget(request, [&] { request->callback(absl::OkStatus(), &response); });
}

void Engine::Impl::finish_with(engine::Request* request, const absl::Status& status) {
  if (request->replica >= 0 && replicas_[request->replica]->alive()) {
    engine::Replica& replica = *replicas_[request->replica];
    for (uint32_t i = 0; i < request->choices(); ++i) {
      engine::Sequence* s = request->sequence(i);
      if (s->state == engine::Sequence::State::kDone) continue;
      if (s->state != engine::Sequence::State::kNew) replica.scheduler().remove(s);
      --replica.load;
    }
  }
  forget(request, [&] { request->callback(status, nullptr); });
}

// The id is free again when the last call is made; drain() waits until it has returned.
void Engine::Impl::forget(engine::Request* request, const std::function<void()>& last_call) {
  no_longer_queued(request);
  const auto it = requests_.find(request->id());
  const std::unique_ptr<engine::Request> owned = std::move(it->second);
  requests_.erase(it);
  {
    std::lock_guard lock(mutex_);
    ids_.erase(owned->id());
  }
  counted_.verified_tokens += owned->verified();
  counted_.verification_mismatches += owned->mismatches();
  publish();  // whoever hears the end and asks for statistics finds it in them
  last_call();
  {
    std::lock_guard lock(mutex_);
    --outstanding_;
  }
  done_.notify_all();
}

void Engine::Impl::no_longer_queued(engine::Request* request) {
  if (!std::exchange(request->queued, false)) return;
  std::lock_guard lock(mutex_);
  --queued_;
}

void Engine::Impl::lose(int index, const absl::Status& why) {
  engine::Replica& replica = *replicas_[index];
  spdlog::error("replica {} ({}) is lost: {}", index, replica.facts().layout, std::string(why.message()));
  const std::vector<engine::Sequence*> sequences = replica.lose(why);
  if (first_loss_.empty()) first_loss_ = std::string(why.message());
  const absl::Status gone = absl::UnavailableError(message("replica ", index, " is lost: ", why.message()));
  if (least_loaded() < 0) {
    std::lock_guard lock(mutex_);
    lost_ = gone;
  }
  std::vector<engine::Request*> moved;
  for (auto& [id, request] : requests_)
    if (request->replica == index) moved.push_back(request.get());
  // Prompt and emitted tokens are all here: another replica computes them again, with the same bits, and goes on.
  for (engine::Request* request : moved) {
    request->replica = least_loaded();
    if (request->replica < 0) {
      finish_with(request, gone);
      continue;
    }
    for (uint32_t i = 0; i < request->choices(); ++i)
      replicas_[request->replica]->load += request->sequence(i)->state != engine::Sequence::State::kDone;
  }
  for (engine::Sequence* s : sequences)
    if (least_loaded() >= 0) replicas_[s->request->replica]->scheduler().add(s);
}

void Engine::Impl::submit_plans() {
  bool again = true;
  while (again) {  // once more after a loss: its requests have moved to replicas that were already served
    again = false;
    for (size_t i = 0; i < replicas_.size(); ++i) {
      engine::Replica& replica = *replicas_[i];
      while (replica.alive() && replica.in_flight() < options_.plans_in_flight) {
        v1::StepPlan& plan = plan_;
        absl::Status status;
        std::function<void(const v1::StepPlan&)> observer;
        if (options_.observer) observer = [&](const v1::StepPlan& p) { options_.observer(p, static_cast<int>(i)); };
        const bool submitted = replica.submit_next(observer, &plan, &status);
        if (!status.ok()) {
          lose(static_cast<int>(i), status);
          again = true;
        }
        if (!submitted) break;
        for (const v1::SequenceStart& start : plan.started()) {
          engine::Sequence* s = replica.scheduler().find(start.sequence());
          if (!s->request->queued) continue;
          counted_.prompt_tokens += s->prompt_length;
          counted_.cached_tokens += s->cached_tokens;
          queue_seconds_.observe(std::chrono::duration<double>(Clock::now() - s->request->submitted).count());
          no_longer_queued(s->request);
        }
      }
    }
  }
}

int64_t Engine::Impl::flush_now() {
  int64_t freed = 0;
  for (auto& replica : replicas_)
    if (replica->alive()) freed += replica->scheduler().flush_cache();
  return freed;
}

void Engine::Impl::watch_deadlines() {
  for (size_t i = 0; i < replicas_.size(); ++i) {
    engine::Replica& r = *replicas_[i];
    const bool overdue = r.alive() && r.in_flight() > 0 && Clock::now() - r.step_began() > options_.step_timeout;
    if (overdue && !r.overdue) {
      const std::string stall = describe_stall(r.executor().progress(), Clock::now());
      spdlog::error("replica {}: a step has had no result for {} ms{}{}", i, options_.step_timeout.count(),
                    stall.empty() ? "" : "; ", stall);
    }
    if (!overdue && r.overdue && r.alive()) spdlog::warn("replica {}: the overdue step has come back", i);
    r.overdue = overdue;
  }
}

void Engine::Impl::publish() {
  EngineStats s = counted_;
  s.replicas = static_cast<int>(replicas_.size());
  s.trouble = first_loss_;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const auto& replica = replicas_[i];
    const engine::SchedulerCounts c = replica->scheduler().counts();
    EngineStats::Replica& own = s.per_replica.emplace_back();
    own.alive = replica->alive();
    own.steps = replica->steps();
    own.last_step_seconds = replica->last_step_seconds();
    s.steps += replica->steps();
    s.preemptions += c.preemptions;
    if (!replica->alive()) {
      s.healthy = false;
      continue;
    }
    ++s.replicas_alive;
    if (replica->overdue) {
      s.healthy = false;
      const std::string stall = describe_stall(replica->executor().progress(), Clock::now());
      s.trouble += message(s.trouble.empty() ? "" : "; ", "replica ", i, ": a step has had no result for ",
                           options_.step_timeout.count(), " ms", stall.empty() ? "" : ": ", stall);
    } else {
      ++s.replicas_stepping;
    }
    own.plans_in_flight = replica->in_flight();
    if (own.plans_in_flight > 0)
      own.step_age_seconds = std::max(0.0, std::chrono::duration<double>(Clock::now() - replica->step_began()).count());
    own.running = c.running;
    own.waiting = c.waiting;
    s.running += c.running;
    s.waiting += c.waiting;
    s.pages_total += c.pages_total;
    s.pages_used += c.pages_used;
    s.pages_cached += c.pages_cached;
    s.last_step_seconds = std::max(s.last_step_seconds, replica->last_step_seconds());
  }
  std::lock_guard lock(mutex_);
  s.rejected = published_.rejected;
  s.model_digest_refusals = published_.model_digest_refusals;
  published_ = std::move(s);
  published_progress_ = last_progress_;
  published_at_ = Clock::now();
}

}  // namespace invar
