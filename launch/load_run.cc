#include "launch/load_run.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>

namespace invar::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kGivingUp = 30;    // seconds a target has to end what it was told to give up
constexpr double kShowEvery = 0.1;  // seconds

double cpu_seconds() {
  rusage u;
  getrusage(RUSAGE_SELF, &u);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(u.ru_utime) + seconds(u.ru_stime);
}

class Run {
 public:
  Run(const LoadPlan& plan, const std::string& what)
      : what_(what), terminal_(isatty(STDERR_FILENO) != 0), start_(Clock::now()), cpu_start_(cpu_seconds()) {
    result_.requests.resize(plan.requests.size(), {.status = absl::DeadlineExceededError("no answer in time")});
    last_.resize(plan.requests.size());
  }

  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  // Times from here on are seconds since the start; `arrival` is when request i was planned to come.
  void response(size_t i, double arrival, const v1::GenerateResponse& r) {
    const double t = now() - arrival;
    const std::lock_guard lock(mutex_);
    RequestTimes& times = result_.requests[i];
    int64_t fresh = 0;
    for (const v1::ChoiceDelta& d : r.choices()) {
      fresh += d.token_ids_size();
      if (!d.response_digest().empty()) times.digest = d.response_digest();
    }
    if (r.has_usage()) {
      times.prompt_tokens = r.usage().prompt_tokens();
      times.cached_tokens = r.usage().cached_tokens();
    }
    if (fresh == 0) return;
    int64_t after = fresh;
    if (times.output_tokens == 0) {
      times.first_token = last_[i] = t;
      --after;  // tokens that came with the first one came with no gap
    }
    for (int64_t k = 0; k < after; ++k) times.gaps.push_back((t - last_[i]) / static_cast<double>(after));
    last_[i] = t;
    times.output_tokens += fresh;
    tokens_ += fresh;
  }

  void done(size_t i, double arrival, const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    result_.requests[i].status = status;
    result_.requests[i].end = now() - arrival;
    ++done_;
    changed_.notify_all();
  }

  // True when all are done, false when `until` has passed.
  bool wait(double until, size_t sent) {
    std::unique_lock lock(mutex_);
    for (;;) {
      const double t = now();
      if (terminal_ && t >= shown_ + kShowEvery) {
        shown_ = t;
        std::fprintf(stderr, "\r%s: %zu of %zu answers, %zu running, %.0f tokens a second\033[K", what_.c_str(), done_,
                     result_.requests.size(), sent - done_, static_cast<double>(tokens_) / t);
      }
      if (done_ == result_.requests.size()) return true;
      if (t >= until) return false;
      changed_.wait_for(lock, std::chrono::duration<double>(std::min(until - t, 0.2)));
    }
  }

  LoadResult finish() {
    const std::lock_guard lock(mutex_);
    if (terminal_) std::fputs("\r\033[K", stderr);
    result_.seconds = now();
    result_.cpu_seconds = cpu_seconds() - cpu_start_;
    return result_;  // a copy: a late answer still finds its place
  }

 private:
  const std::string what_;
  const bool terminal_;
  const Clock::time_point start_;
  const double cpu_start_;
  std::mutex mutex_;
  std::condition_variable changed_;
  LoadResult result_;
  std::vector<double> last_;  // when each request's newest token came
  size_t done_ = 0;
  int64_t tokens_ = 0;
  double shown_ = 0;
};

}  // namespace

LoadResult run_load(const LoadPlan& plan, const LoadTarget& target, double timeout, const std::string& what) {
  const auto run = std::make_shared<Run>(plan, what);  // a target that never answers may hold it longer than this function
  for (size_t i = 0; i < plan.requests.size(); ++i) {
    const double at = plan.requests[i].at;
    if (run->now() < at) run->wait(at, i);
    target.start(
        plan.requests[i].request, [run, i, at](const v1::GenerateResponse& r) { run->response(i, at, r); },
        [run, i, at](const absl::Status& status) { run->done(i, at, status); });
  }
  const double last = plan.requests.empty() ? 0 : plan.requests.back().at;
  if (!run->wait(last + timeout, plan.requests.size())) {
    target.give_up();
    run->wait(run->now() + kGivingUp, plan.requests.size());
  }
  return run->finish();
}

}  // namespace invar::launch
