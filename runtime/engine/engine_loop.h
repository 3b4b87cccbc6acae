// What is behind Engine: the thread that owns all requests, and the inbox through which everybody else talks to it.
#pragma once

#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "runtime/engine/choice_output.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/replica.h"
#include "runtime/engine/request.h"
#include "runtime/engine/validate.h"

namespace invar {

class Engine::Impl {
 public:
  using Clock = std::chrono::steady_clock;

  Impl(const EngineOptions& options, const ModelConfig& model, std::shared_ptr<const Tokenizer> tokenizer,
       std::vector<std::unique_ptr<engine::Replica>> replicas);
  ~Impl();

  absl::StatusOr<std::string> submit(v1::GenerateRequest request, Callback callback);
  absl::Status abort(const std::string& request_id);
  int64_t flush_cache();
  EngineStats stats() const;
  std::vector<RankStats> ranks() const;
  const Histogram& queue_seconds() const { return queue_seconds_; }
  bool drain(std::chrono::milliseconds wait);
  void stop();
  void shutdown(std::chrono::milliseconds wait);

  const EngineOptions& options() const { return options_; }
  const ModelConfig& model() const { return model_; }
  const ReplicaFacts& facts() const { return replicas_.front()->facts(); }
  std::shared_ptr<const Tokenizer> tokenizer() const { return context_.tokenizer; }

 private:
  struct Event {
    int replica;
    absl::StatusOr<v1::StepResult> result;
  };
  struct Inbox {
    std::vector<std::unique_ptr<engine::Request>> submitted;
    std::vector<std::string> aborted;
    std::vector<Event> events;
    std::vector<std::shared_ptr<std::promise<int64_t>>> flushes;
    bool empty() const { return submitted.empty() && aborted.empty() && events.empty() && flushes.empty(); }
  };

  absl::Status refusal() const;  // why no request can be taken now; under the mutex

  // Engine's thread.
  void run();
  void accept(std::unique_ptr<engine::Request> request);
  void cancel(const std::string& id);
  void take_result(int index, const v1::StepResult& result);
  void release_choices(engine::Request* request);
  void lose(int index, const absl::Status& why);
  void submit_plans();
  int64_t flush_now();
  void send(engine::Request* request);
  void finish_with(engine::Request* request, const absl::Status& status);
  void forget(engine::Request* request, const std::function<void()>& last_call);
  void no_longer_queued(engine::Request* request);
  int least_loaded() const;  // among those that step, else among those that live; -1 = none lives
  void watch_deadlines();
  void publish();
  void lap(double& part);  // adds the time since the last call

  const EngineOptions options_;
  const ModelConfig model_;
  engine::EngineContext context_;
  std::unique_ptr<grammar::GrammarCache> grammars_;  // null without a tokenizer
  engine::ValidationLimits limits_;
  std::vector<std::unique_ptr<engine::Replica>> replicas_;

  // Engine's thread only.
  std::map<std::string, std::unique_ptr<engine::Request>> requests_;
  Clock::time_point last_progress_;
  Clock::time_point lap_;
  std::string first_loss_;  // empty = no replica was lost
  EngineStats counted_;
  v1::StepPlan plan_;  // being built; kept, for the memory of its chunks

  // Shared.
  Histogram queue_seconds_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, done_;
  Inbox inbox_;
  std::unordered_set<std::string> ids_;  // of requests not yet finished
  int64_t outstanding_ = 0;              // requests whose last callback has not returned
  int64_t queued_ = 0;
  uint64_t arrivals_ = 0;
  uint64_t names_ = 0;
  bool draining_ = false, stopping_ = false, shut_ = false;
  absl::Status lost_;  // why no replica is left
  EngineStats published_;
  Clock::time_point published_progress_, published_at_;
  std::thread thread_;
};

}  // namespace invar
