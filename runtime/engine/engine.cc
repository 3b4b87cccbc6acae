#include "runtime/engine/engine.h"

#include <algorithm>
#include <utility>

#include "runtime/engine/engine_loop.h"
#include "runtime/model_config/message.h"
#include "spdlog/spdlog.h"

namespace invar {
namespace {

// vLLM's buckets, with finer ones below for small models.
const std::vector<double> kQueueSeconds = {0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5,  5.0,
                                           10,     15,    20,   30,   40,  50,  60,  120, 240, 480, 960, 1920, 7680};

absl::Status check_options(const EngineOptions& o) {
  const auto at_least = [](std::string_view field, int64_t value, int64_t least) {
    if (value >= least) return absl::OkStatus();
    return absl::InvalidArgumentError(message(field, " = ", value, " must be at least ", least));
  };
  if (absl::Status s = at_least("max_model_len", o.max_model_len, 0); !s.ok()) return s;
  if (absl::Status s = at_least("max_num_seqs", o.max_num_seqs, 1); !s.ok()) return s;
  if (absl::Status s = at_least("max_num_batched_tokens", o.max_num_batched_tokens, 1); !s.ok()) return s;
  if (absl::Status s = at_least("long_prefill_token_threshold", o.long_prefill_token_threshold, 0); !s.ok()) return s;
  if (absl::Status s = at_least("max_queued_requests", o.max_queued_requests, 1); !s.ok()) return s;
  if (absl::Status s = at_least("plans_in_flight", o.plans_in_flight, 1); !s.ok()) return s;
  return at_least("step_timeout", o.step_timeout.count(), 1);
}

// Sequences move between replicas, so all must compute the same thing.
absl::Status check_replicas(const std::vector<std::unique_ptr<Executor>>& replicas, const ModelConfig& model) {
  if (replicas.empty()) return absl::InvalidArgumentError("the engine needs at least one replica");
  const ReplicaFacts& first = replicas.front()->facts();
  for (size_t i = 0; i < replicas.size(); ++i) {
    const ReplicaFacts& f = replicas[i]->facts();
    const auto refuse = [&](std::string_view field, const auto& value, const auto& wanted) {
      return absl::FailedPreconditionError(message("replica ", i, " has ", field, " = ", value, " where ", wanted, " is needed"));
    };
    if (f.homes < 1) return refuse("homes", f.homes, "at least 1");
    if (f.page_size < 1) return refuse("page_size", f.page_size, "at least 1");
    if (f.pages_per_home < 1) return refuse("pages_per_home", f.pages_per_home, "at least 1");
    if (f.max_positions < 2) return refuse("max_positions", f.max_positions, "at least 2");
    if (f.vocab_size != model.vocab_size) return refuse("vocab_size", f.vocab_size, model.vocab_size);
    if (f.numerics_id != first.numerics_id) return refuse("numerics_id", f.numerics_id, first.numerics_id);
    if (f.model_digest != first.model_digest) return refuse("model_digest", f.model_digest, first.model_digest);
  }
  return absl::OkStatus();
}

// The longest sequence every replica can hold alone: preemption must always be able to let one go on.
absl::StatusOr<int64_t> model_length(const EngineOptions& options, const ModelConfig& model,
                                     const std::vector<std::unique_ptr<Executor>>& replicas) {
  int64_t longest = model.max_position_embeddings > 0 ? model.max_position_embeddings : INT64_MAX;
  std::string by = "the model's max_position_embeddings";
  for (const auto& r : replicas) {
    const ReplicaFacts& f = r->facts();
    if (f.max_positions < longest) longest = f.max_positions, by = "the ranks' position tables";
    if (f.pages_per_home * f.page_size < longest)
      longest = f.pages_per_home * f.page_size, by = message(f.pages_per_home, " KV pages of ", f.page_size, " tokens");
  }
  if (options.max_model_len > longest)
    return absl::InvalidArgumentError(
        message("max_model_len = ", options.max_model_len, " is more than ", longest, ", the limit of ", by));
  const int64_t length = options.max_model_len > 0 ? options.max_model_len : longest;
  if (length < 2)
    return absl::InvalidArgumentError(message("max_model_len = ", length, " leaves no room for a prompt and an answer"));
  return length;
}

}  // namespace

Engine::Impl::Impl(const EngineOptions& options, const ModelConfig& model, std::shared_ptr<const Tokenizer> tokenizer,
                   std::vector<std::unique_ptr<engine::Replica>> replicas)
    : options_(options),
      model_(model),
      replicas_(std::move(replicas)),
      last_progress_(Clock::now()),
      queue_seconds_(kQueueSeconds),
      published_progress_(last_progress_) {
  context_.numerics_id = facts().numerics_id;
  context_.model_digest = facts().model_digest;
  context_.eos_token_ids = model.eos_token_ids;
  context_.tokenizer = std::move(tokenizer);
  limits_.vocab_size = model.vocab_size;
  limits_.max_model_len = options_.max_model_len;
  limits_.seed = options_.seed;
  limits_.defaults = model.generation;
  limits_.tokenizer = context_.tokenizer.get();
  limits_.eos_token_ids = model.eos_token_ids;
  if (context_.tokenizer) {
    grammars_ = std::make_unique<grammar::GrammarCache>(context_.tokenizer, model.vocab_size, model.eos_token_ids);
    limits_.grammars = grammars_.get();
  }
  publish();
  for (size_t i = 0; i < replicas_.size(); ++i)
    replicas_[i]->start_collecting([this, i](absl::StatusOr<v1::StepResult> result) {
      {
        std::lock_guard lock(mutex_);
        inbox_.events.push_back({static_cast<int>(i), std::move(result)});
      }
      wake_.notify_one();
    });
  thread_ = std::thread([this] { run(); });
}

Engine::Impl::~Impl() { stop(); }

void Engine::Impl::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  for (auto& replica : replicas_) replica->stop_collecting();
}

void Engine::Impl::shutdown(std::chrono::milliseconds wait) {
  stop();
  if (std::exchange(shut_, true)) return;
  const Clock::time_point until = Clock::now() + wait;
  for (auto& replica : replicas_) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    replica->executor().shutdown(std::max(left, std::chrono::milliseconds(0)));
  }
}

absl::Status Engine::Impl::refusal() const {
  if (stopping_ || draining_) return absl::UnavailableError("the engine takes no new requests: it is being shut down");
  if (!lost_.ok()) return lost_;
  if (queued_ >= options_.max_queued_requests)
    return absl::ResourceExhaustedError(
        message("the queue is full: ", queued_, " requests wait, max_queued_requests = ", options_.max_queued_requests));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Engine::Impl::submit(v1::GenerateRequest proto, Callback callback) {
  const Clock::time_point submitted = Clock::now();
  std::unique_lock lock(mutex_);
  const auto reject = [&](absl::Status status) {
    ++published_.rejected;
    return status;
  };
  if (absl::Status s = refusal(); !s.ok()) return reject(s);  // an overloaded server does not tokenise first
  if (const std::string& wanted = proto.require_model_digest(); !wanted.empty() && wanted != context_.model_digest) {
    ++published_.model_digest_refusals;
    return reject(absl::FailedPreconditionError(
        message("require_model_digest = ", wanted, ": the model served has ", context_.model_digest)));
  }
  lock.unlock();
  absl::StatusOr<engine::ValidRequest> valid = validate_request(proto, limits_);
  std::unique_ptr<engine::Request> request;
  if (valid.ok()) request = std::make_unique<engine::Request>(*std::move(valid), std::move(callback), context_);
  lock.lock();
  if (!valid.ok()) return reject(valid.status());
  if (absl::Status s = refusal(); !s.ok()) return reject(s);
  std::string id = request->id();
  if (id.empty()) {
    do {
      id = message("request-", ++names_);
    } while (ids_.contains(id));
  } else if (ids_.contains(id)) {
    return reject(absl::AlreadyExistsError(message("request_id = \"", id, "\" is in use")));
  }
  request->submitted = submitted;
  request->admit(id, ++arrivals_);
  ids_.insert(id);
  ++queued_;
  ++outstanding_;
  inbox_.submitted.push_back(std::move(request));
  lock.unlock();
  wake_.notify_one();
  return id;
}

absl::Status Engine::Impl::abort(const std::string& request_id) {
  {
    std::lock_guard lock(mutex_);
    if (!ids_.contains(request_id)) return absl::NotFoundError(message("request_id = \"", request_id, "\" is not known"));
    inbox_.aborted.push_back(request_id);
  }
  wake_.notify_one();
  return absl::OkStatus();
}

int64_t Engine::Impl::flush_cache() {
  if (std::this_thread::get_id() == thread_.get_id()) return flush_now();
  auto freed = std::make_shared<std::promise<int64_t>>();
  std::future<int64_t> future = freed->get_future();
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return 0;
    inbox_.flushes.push_back(std::move(freed));
  }
  wake_.notify_one();
  // The engine's thread never blocks, so this is soon; a callback that breaks its promise must not hang us too.
  return future.wait_for(std::chrono::seconds(30)) == std::future_status::ready ? future.get() : 0;
}

EngineStats Engine::Impl::stats() const {
  std::lock_guard lock(mutex_);
  EngineStats s = published_;
  s.seconds_since_progress =
      outstanding_ > 0 ? std::max(0.0, std::chrono::duration<double>(Clock::now() - published_progress_).count()) : 0;
  s.seconds_since_turn = std::chrono::duration<double>(Clock::now() - published_at_).count();
  return s;
}

std::vector<RankStats> Engine::Impl::ranks() const {
  std::vector<double> busy;  // how long the oldest plan under way has been there; negative = none
  {
    std::lock_guard lock(mutex_);
    const double since = std::chrono::duration<double>(Clock::now() - published_at_).count();
    for (const EngineStats::Replica& r : published_.per_replica)
      busy.push_back(r.plans_in_flight > 0 ? r.step_age_seconds + since : -1);
  }
  std::vector<RankStats> out;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    std::vector<RankProgress> ranks = replicas_[i]->executor().progress();
    const Clock::time_point now = Clock::now();
    const auto age = [&](Clock::time_point then) { return std::max(0.0, std::chrono::duration<double>(now - then).count()); };
    for (RankProgress& r : ranks) {
      RankStats& s = out.emplace_back();
      s.replica = static_cast<int>(i);
      s.heard_age = age(r.heard);
      if (busy[i] >= 0) {
        s.step_age = std::min(busy[i], age(r.step_ended));
        s.progress_age = std::min(busy[i], age(r.moved));
      }
      s.progress = std::move(r);
    }
  }
  return out;
}

bool Engine::Impl::drain(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return done_.wait_for(lock, wait, [&] { return outstanding_ == 0; });
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::start(const EngineOptions& options, const ModelConfig& model,
                                                      std::shared_ptr<const Tokenizer> tokenizer,
                                                      std::vector<std::unique_ptr<Executor>> executors) {
  if (absl::Status s = check_options(options); !s.ok()) return s;
  if (absl::Status s = check_replicas(executors, model); !s.ok()) return s;
  const absl::StatusOr<int64_t> length = model_length(options, model, executors);
  if (!length.ok()) return length.status();
  EngineOptions effective = options;
  effective.max_model_len = *length;
  engine::SchedulerLimits limits;
  limits.max_num_seqs = options.max_num_seqs;
  limits.max_num_batched_tokens = options.max_num_batched_tokens;
  limits.longest_chunk =
      options.long_prefill_token_threshold > 0 ? options.long_prefill_token_threshold : options.max_num_batched_tokens;
  limits.prefix_caching = options.enable_prefix_caching;
  std::vector<std::unique_ptr<engine::Replica>> replicas;
  for (auto& e : executors) replicas.push_back(std::make_unique<engine::Replica>(std::move(e), limits));
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(effective, model, std::move(tokenizer), std::move(replicas))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

absl::StatusOr<std::string> Engine::submit(v1::GenerateRequest request, Callback callback) {
  return impl_->submit(std::move(request), std::move(callback));
}
absl::Status Engine::abort(const std::string& request_id) { return impl_->abort(request_id); }
int64_t Engine::flush_cache() { return impl_->flush_cache(); }
EngineStats Engine::stats() const { return impl_->stats(); }
std::vector<RankStats> Engine::ranks() const { return impl_->ranks(); }
const Histogram& Engine::queue_seconds() const { return impl_->queue_seconds(); }
const ReplicaFacts& Engine::facts() const { return impl_->facts(); }
const EngineOptions& Engine::options() const { return impl_->options(); }
const ModelConfig& Engine::model() const { return impl_->model(); }
std::shared_ptr<const Tokenizer> Engine::tokenizer() const { return impl_->tokenizer(); }
bool Engine::drain(std::chrono::milliseconds wait) { return impl_->drain(wait); }
void Engine::shutdown(std::chrono::milliseconds wait) { impl_->shutdown(wait); }

}  // namespace invar
