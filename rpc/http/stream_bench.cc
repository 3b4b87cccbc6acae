// What the coordinator itself costs: what it can stream over HTTP, and its share of a step. Real sockets and the real engine;
// ranks whose model is a hash, or, with --model, real ones in this process. Clients, engine, server and ranks share this
// machine's cores.
//   rpc_http_stream_bench [--model FOLDER] [STREAMS [TOKENS_EACH]]
#include <dirent.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/strings/str_format.h"
#include "rpc/http/http_harness.h"
#include "runtime/worker/local_executor.h"

namespace invar::http {
namespace {

using Clock = std::chrono::steady_clock;
double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// The ranks, with a stopwatch: how long they had a plan, and how long they had none and waited for one. Holds the first plans
// back until release(), so that all streams begin together.
class TimedExecutor final : public Executor {
 public:
  explicit TimedExecutor(std::unique_ptr<Executor> inner) : inner_(std::move(inner)) {}
  const ReplicaFacts& facts() const override { return inner_->facts(); }
  absl::Status submit(const v1::StepPlan& plan) override {
    const std::lock_guard lock(mutex_);
    submitted_.push_back(Clock::now());
    if (open_) return inner_->submit(plan);
    held_.push_back(plan);
    return absl::OkStatus();
  }
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) override {
    absl::StatusOr<v1::StepResult> result = inner_->next(wait);
    if (!result.ok()) return result;
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now(), came = submitted_.at(steps_++);
    if (came > last_) waited_ += came - last_;
    busy_ += now - std::max(came, last_);
    last_ = now;
    return result;
  }
  void shutdown(std::chrono::milliseconds wait) override { inner_->shutdown(wait); }

  void release() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    last_ = Clock::now();
    for (const v1::StepPlan& plan : held_) inner_->submit(plan).IgnoreError();
  }
  struct Times {
    size_t steps = 0;
    double busy = 0, waited = 0;
  };
  Times times() const {
    const std::lock_guard lock(mutex_);
    return {steps_, seconds(busy_), seconds(waited_)};
  }

 private:
  const std::unique_ptr<Executor> inner_;
  mutable std::mutex mutex_;
  bool open_ = false;
  std::vector<v1::StepPlan> held_;
  std::vector<Clock::time_point> submitted_;
  size_t steps_ = 0;
  Clock::time_point last_;
  Clock::duration busy_{}, waited_{};
};

// CPU seconds of this process' threads by what they are there for.
std::map<std::string, double> cpu_by_part() {
  std::map<std::string, double> out;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    const std::string folder = absl::StrCat("/proc/self/task/", entry->d_name);
    std::string name, part = "other";
    std::getline(std::ifstream(folder + "/comm"), name);
    uint64_t ran = 0;
    std::ifstream(folder + "/schedstat") >> ran;
    if (name == "invar-engine")
      part = "engine";
    else if (name == "invar-collector")
      part = "collector";
    else if (name.rfind("invar-http", 0) == 0)
      part = "http";
    else if (name.rfind("invar-rank", 0) == 0)
      part = "ranks";
    else if (std::to_string(getpid()) == entry->d_name)
      part = "clients";
    out[part] += 1e-9 * static_cast<double>(ran);
  }
  closedir(tasks);
  return out;
}

struct Served {
  std::shared_ptr<LoadedModel> model;  // null: a hash
  std::shared_ptr<const Tokenizer> tokenizer;
};

std::unique_ptr<Executor> ranks_of(const Served& served, const HttpArrangement& given, int streams, int tokens) {
  if (!served.model) return std::make_unique<engine::FakeExecutor>(given.rpc.fake);
  LocalOptions options;
  options.rank.device.threads = 1;
  options.rank.pages = static_cast<int64_t>(streams) * ((tokens + 2) / 16 + 2);
  options.rank.max_num_seqs = streams;
  auto executor = LocalExecutor::start(*served.model, "a digest", options, {});
  EXPECT_TRUE(executor.ok()) << executor.status();
  return *std::move(executor);
}

int run(const Served& served, int streams, int tokens) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  HttpArrangement given;
  given.http.access_log = false;
  given.rpc.server.access_log = false;
  given.rpc.fake.facts.pages_per_home = 1 << 17;
  HttpService service(given, /*serving=*/false);
  auto timed = std::make_unique<TimedExecutor>(ranks_of(served, given, streams, tokens));
  TimedExecutor& ranks = *timed;
  std::vector<std::unique_ptr<Executor>> executors;
  executors.push_back(std::move(timed));
  ModelConfig config;
  config.vocab_size = given.rpc.fake.model.vocab_size;
  config.max_position_embeddings = given.rpc.fake.facts.max_positions;
  if (served.model) config = served.model->config;
  EngineOptions options;
  options.max_num_seqs = streams;
  auto engine = Engine::start(options, config, served.model ? served.tokenizer : given.rpc.tokenizer, std::move(executors));
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    return 1;
  }
  service.rpc.engine = *std::move(engine);
  service.rpc.server->serve(service.rpc.engine, {});

  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < streams; ++i) {
    clients.push_back(std::make_unique<HttpClient>(service.address()));
    const Json body{{"prompt", {i + 1, 7}}, {"max_tokens", tokens}, {"temperature", 0}, {"stream", true}, {"ignore_eos", true}};
    clients.back()->send(request_text("POST", "/v1/completions", body.dump()));
  }
  if (!soon([&] { return service.rpc.server->state()->open_streams() == streams; })) return 1;
  std::this_thread::sleep_for(20ms);
  const Clock::time_point begin = Clock::now();
  const std::map<std::string, double> cpu_before = cpu_by_part();
  const EngineStats::Busy busy_before = service.stats().busy;
  ranks.release();
  std::vector<pollfd> waiting;
  for (const auto& client : clients) waiting.push_back({client->fd(), POLLIN, 0});
  size_t open = clients.size();
  uint64_t bytes = 0, events = 0;
  std::vector<char> block(1 << 20);
  while (open > 0) {
    poll(waiting.data(), waiting.size(), 1000);
    for (pollfd& p : waiting) {
      if (p.fd < 0 || (p.revents & (POLLIN | POLLHUP)) == 0) continue;
      const ssize_t n = recv(p.fd, block.data(), block.size(), 0);
      if (n <= 0) return 1;
      const std::string_view text(block.data(), static_cast<size_t>(n));
      bytes += text.size();
      for (size_t at = text.find("data: "); at != std::string_view::npos; at = text.find("data: ", at + 6)) ++events;
      if (text.find("0\r\n\r\n") == std::string_view::npos || text.substr(text.size() - 5) != "0\r\n\r\n") continue;
      p.fd = -1;
      --open;
    }
  }
  const double wall = seconds(Clock::now() - begin), all = static_cast<double>(streams) * tokens;
  std::map<std::string, double> cpu = cpu_by_part();
  double total = 0;
  for (auto& [part, spent] : cpu) {
    if (const auto before = cpu_before.find(part); before != cpu_before.end()) spent -= before->second;
    total += spent;
  }
  const EngineStats::Busy busy = service.stats().busy;
  const TimedExecutor::Times times = ranks.times();
  const double a_step = 1e6 / static_cast<double>(times.steps);
  std::printf("%d streams x %d tokens: %.0f tokens/s, %.2f tokens an event, %.0f bytes a token, %.1f us of CPU a token\n",
              streams, tokens, all / wall, all / static_cast<double>(events), static_cast<double>(bytes) / all,
              total / all * 1e6);
  std::printf("  a step: %.1f us = ranks at work %.1f + ranks without a plan %.1f (%.1f %%)\n", wall * a_step,
              times.busy * a_step, times.waited * a_step, 100 * times.waited / (times.busy + times.waited));
  const double plans = busy.plans - busy_before.plans, results = busy.results - busy_before.results,
               answers = busy.answers - busy_before.answers, requests = busy.requests - busy_before.requests,
               statistics = busy.statistics - busy_before.statistics, awake = plans + results + answers + requests + statistics;
  std::printf(
      "  engine's thread: %.1f us awake (%.1f %%): plans %.1f, results %.1f, answers %.1f, requests %.1f, statistics %.1f\n",
      awake * a_step, 100 * awake / wall, plans * a_step, results * a_step, answers * a_step, requests * a_step,
      statistics * a_step);
  // The null model computes in the collector's thread.
  const double coordinator = cpu["engine"] + cpu["http"] + (served.model ? cpu["collector"] : 0);
  const double ranks_cpu = cpu["ranks"] + (served.model ? 0 : cpu["collector"]);
  std::printf(
      "  CPU a step: coordinator %.1f us (engine %.1f, stream writing %.1f%s), ranks %.1f us: coordinator's share of both "
      "%.1f %%; clients %.1f us, other %.1f us\n",
      coordinator * a_step, cpu["engine"] * a_step, cpu["http"] * a_step,
      served.model ? absl::StrCat(", collector ", absl::StrFormat("%.1f", cpu["collector"] * a_step)).c_str() : "",
      ranks_cpu * a_step, 100 * coordinator / (coordinator + ranks_cpu), cpu["clients"] * a_step, cpu["other"] * a_step);
  service.rpc.engine->shutdown(10s);
  return 0;
}

int start(int argc, char** argv) {
  Served served;
  std::vector<int> numbers;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) != "--model" || i + 1 == argc) {
      numbers.push_back(std::atoi(argv[i]));
      continue;
    }
    auto model = open_model({.path = argv[++i]});
    auto tokenizer = Tokenizer::load(argv[i]);
    if (!model.ok() || !tokenizer.ok()) {
      std::fprintf(stderr, "%s %s\n", model.status().ToString().c_str(), tokenizer.status().ToString().c_str());
      return 1;
    }
    served.model = std::make_shared<LoadedModel>(*std::move(model));
    served.tokenizer = *std::move(tokenizer);
  }
  if (!numbers.empty()) return run(served, numbers[0], numbers.size() > 1 ? numbers[1] : 200);
  for (const int streams : {1, 64, 1000}) {
    if (served.model && streams > 64) break;
    if (run(served, streams, streams == 1 && !served.model ? 5000 : 200) != 0) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace invar::http

int main(int argc, char** argv) { return invar::http::start(argc, argv); }
