#include "rpc/server/serving_state.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar::rpc {
namespace {

// Serving = a replica lives and makes steps: a server with one replica of two left answers every request, and a load balancer
// that took it off would make a small loss a whole one. Empty text = all is well.
struct Condition {
  v1::ServerState state;
  std::string trouble;
};

Condition condition_of(const Engine& engine) {
  const EngineStats stats = engine.stats();
  const double limit = std::chrono::duration<double>(engine.options().step_timeout).count() + 1;
  if (stats.seconds_since_turn > limit)
    return {v1::SERVER_STATE_UNHEALTHY, absl::StrFormat("the engine has not gone round for %.0f s", stats.seconds_since_turn)};
  if (stats.replicas_stepping == 0) return {v1::SERVER_STATE_UNHEALTHY, stats.trouble};
  // The engine sees overdue steps itself and goes round them; work that waits with no step under way has no such reason.
  if (stats.seconds_since_progress > limit && stats.replicas_stepping == stats.replicas_alive) {
    return {v1::SERVER_STATE_UNHEALTHY,
            absl::StrFormat("work is pending and nothing has moved for %.0f s", stats.seconds_since_progress)};
  }
  return {v1::SERVER_STATE_SERVING, stats.trouble};
}

void fill(const EngineStats& stats, v1::ServerStats& out) {
  out.set_steps(stats.steps);
  out.set_running(static_cast<uint64_t>(stats.running));
  out.set_waiting(static_cast<uint64_t>(stats.waiting));
  out.set_pages_total(static_cast<uint64_t>(stats.pages_total));
  out.set_pages_used(static_cast<uint64_t>(stats.pages_used));
  out.set_pages_cached(static_cast<uint64_t>(stats.pages_cached));
  out.set_prompt_tokens(stats.prompt_tokens);
  out.set_generation_tokens(stats.generation_tokens);
  out.set_cached_tokens(stats.cached_tokens);
  out.set_preemptions(stats.preemptions);
  out.set_aborted(stats.aborted);
  out.set_finished(stats.finished);
  out.set_rejected(stats.rejected);
  out.set_last_step_seconds(stats.last_step_seconds);
  out.set_seconds_since_progress(stats.seconds_since_progress);
}

}  // namespace

void ServingState::set_progress(std::string what) {
  std::lock_guard lock(mutex_);
  progress_ = std::move(what);
}

void ServingState::serve(std::shared_ptr<Engine> engine, v1::ServerInfo info) {
  std::lock_guard lock(mutex_);
  engine_ = std::move(engine);
  info_ = std::move(info);
  progress_.clear();
}

std::shared_ptr<Engine> ServingState::withdraw(std::string why) {
  std::lock_guard lock(mutex_);
  progress_ = std::move(why);
  return std::move(engine_);
}

std::shared_ptr<Engine> ServingState::begin_drain() {
  std::lock_guard lock(mutex_);
  draining_ = true;
  return engine_;
}

absl::StatusOr<std::shared_ptr<Engine>> ServingState::engine() const {
  std::lock_guard lock(mutex_);
  if (draining_) return absl::UnavailableError("the server is draining: it finishes what runs and takes nothing new");
  if (engine_ == nullptr) return absl::UnavailableError(absl::StrCat("the server is loading: ", progress_));
  return engine_;
}

std::shared_ptr<Engine> ServingState::loaded_engine() const {
  std::lock_guard lock(mutex_);
  return engine_;
}

v1::ServerState ServingState::state() const {
  std::shared_ptr<Engine> engine;
  {
    std::lock_guard lock(mutex_);
    if (draining_) return v1::SERVER_STATE_DRAINING;
    if (engine_ == nullptr) return v1::SERVER_STATE_LOADING;
    engine = engine_;
  }
  return condition_of(*engine).state;
}

v1::ServerInfo ServingState::info() const {
  v1::ServerInfo info;
  std::shared_ptr<Engine> engine;
  bool draining = false;
  {
    std::lock_guard lock(mutex_);
    info = info_;
    info.set_progress(progress_);
    engine = engine_;
    draining = draining_;
  }
  info.set_state(v1::SERVER_STATE_LOADING);
  if (engine != nullptr) {
    const ReplicaFacts& facts = engine->facts();
    const Condition condition = condition_of(*engine);
    info.set_state(condition.state);
    info.set_progress(condition.trouble);
    info.set_model_digest(facts.model_digest);
    info.set_numerics_id(facts.numerics_id);
    info.set_vocab_size(static_cast<uint32_t>(facts.vocab_size));
    info.set_max_model_len(static_cast<uint64_t>(engine->options().max_model_len));
    info.set_tokenizer(engine->tokenizer() != nullptr);
    if (info.model_name().empty()) info.set_model_name(engine->options().served_model_name);
    fill(engine->stats(), *info.mutable_stats());
  }
  if (draining) info.set_state(v1::SERVER_STATE_DRAINING);
  info.mutable_stats()->set_open_streams(static_cast<uint64_t>(open_streams()));
  info.set_uptime_seconds(std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
  return info;
}

}  // namespace invar::rpc
