#include "runtime/worker/local_executor.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/worker/plan_queue.h"

namespace invar {

struct LocalExecutor::State {
  PlanQueue queue;
  std::vector<std::unique_ptr<parallel::Transport>> transports;
  std::vector<std::thread> threads;
  std::vector<RankReport> reports;
  std::vector<std::shared_ptr<const ProgressBoard>> progress;  // by rank
  int first_rank = 0;
  ReplicaFacts facts;
  std::mutex mutex;
  std::condition_variable changed;
  size_t loaded = 0, left = 0;
  absl::Status failure;
  bool shut_down = false;
};

LocalExecutor::LocalExecutor(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<LocalExecutor>> LocalExecutor::start(const LoadedModel& model, const std::string& digest,
                                                                    const LocalOptions& local, const LoadProgressFn& progress) {
  RankOptions options = local.rank;
  // Replicas of one process spread over its GPUs.
  const int others = options.layout.world() - options.layout.replica();
  options.layout.dp = 1;
  const absl::Status fits = parallel::validate(options.layout, {model.config.num_layers, model.config.moe.num_experts});
  if (!fits.ok()) return fits;
  auto executor = std::unique_ptr<LocalExecutor>(new LocalExecutor(std::make_unique<State>()));
  State& s = *executor->state_;
  s.transports = parallel::start_threads(options.layout.world(), {.local_before = local.first_rank, .local_others = others});
  if (local.wrap)
    for (auto& t : s.transports) t = local.wrap(std::move(t));
  const size_t ranks = s.transports.size();
  s.first_rank = local.first_rank;
  s.progress.resize(ranks);
  for (size_t r = 0; r < ranks; ++r)
    s.threads.emplace_back([&s, &model, options, digest, r, progress] {
      pthread_setname_np(pthread_self(), absl::StrCat("invar-rank-", r).c_str());
      parallel::Transport& transport = *s.transports[r];
      absl::Status status;
      try {
        auto rank = Rank::load(transport, model, options, digest, r == 0 ? progress : LoadProgressFn());
        {
          const std::lock_guard lock(s.mutex);
          ++s.loaded;
          if (!rank.ok() && s.failure.ok()) s.failure = rank.status();
          if (rank.ok()) s.progress[r] = (*rank)->progress();
          if (rank.ok() && r == 0) s.facts = (*rank)->facts();
          s.changed.notify_all();
        }
        status = rank.status();
        if (rank.ok()) {
          auto reports = (*rank)->gather_reports();
          if (r == 0) {
            const std::lock_guard lock(s.mutex);
            s.reports = std::move(reports);
            s.changed.notify_all();
          }
          status = (*rank)->run(r == 0 ? &s.queue : nullptr);
        }
      } catch (const std::exception& e) {
        status = absl::UnavailableError(e.what());
      }
      if (!status.ok()) {
        v1::StepResult lost;
        lost.set_failure(std::string(status.message()));
        s.queue.post(lost);
        transport.abort(1);
      }
      const std::lock_guard lock(s.mutex);
      if (!status.ok() && s.failure.ok()) s.failure = status;
      ++s.left;
      s.changed.notify_all();
    });
  std::unique_lock lock(s.mutex);
  s.changed.wait(lock, [&] { return (s.loaded == ranks && !s.reports.empty()) || s.left == ranks; });
  if (!s.failure.ok()) return s.failure;
  return executor;
}

LocalExecutor::~LocalExecutor() {
  shutdown(std::chrono::seconds(10));
  for (std::thread& t : state_->threads) t.join();
}

void LocalExecutor::shutdown(std::chrono::milliseconds wait) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  if (!s.shut_down) {
    s.shut_down = true;
    v1::StepPlan bye;
    bye.set_shutdown(true);
    s.queue.put(bye);
  }
  if (s.changed.wait_for(lock, wait, [&] { return s.left == s.threads.size(); })) return;
  lock.unlock();
  for (auto& t : s.transports) t->interrupt();
}

std::vector<RankProgress> LocalExecutor::progress() const {
  std::vector<RankProgress> all;
  for (const auto& board : state_->progress) all.push_back(board->read());
  for (RankProgress& p : all) p.rank += state_->first_rank;
  return all;
}

const ReplicaFacts& LocalExecutor::facts() const { return state_->facts; }
const std::vector<RankReport>& LocalExecutor::reports() const { return state_->reports; }

absl::Status LocalExecutor::submit(const v1::StepPlan& plan) {
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->failure.ok()) return absl::UnavailableError(state_->failure.message());
  }
  state_->queue.put(plan);
  return absl::OkStatus();
}

absl::StatusOr<v1::StepResult> LocalExecutor::next(std::chrono::milliseconds wait) { return state_->queue.take(wait); }

}  // namespace invar
