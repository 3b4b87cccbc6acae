// The worker link over loopback: gate and channels in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/link_channel.h"
#include "rpc/worker_link/rank_reporter.h"
#include "rpc/worker_link/relay.h"
#include "rpc/worker_link/worker_gate.h"

namespace invar::rpc {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

parallel::Layout layout(int tp, int dp) { return {.tp = tp, .pp = 1, .ep = 1, .dp = dp}; }

v1::Hello hello(int replica, const parallel::Layout& shape) {
  ReplicaFacts facts;
  facts.pages_per_home = 64;
  facts.max_positions = 1024;
  facts.vocab_size = 512;
  std::vector<RankReport> reports;
  for (int i = 0; i < shape.tp; ++i) {
    reports.push_back({replica * shape.tp + i, absl::StrCat("h", i), getpid(), "cpu", "N1", "D1", "B1", 0, 0});
  }
  return make_hello(replica, shape, facts, reports);
}

WorkerGateOptions gate_options(const parallel::Layout& shape) {
  WorkerGateOptions options;
  options.layout = shape;
  options.build_id = "B1";
  return options;
}

std::unique_ptr<WorkerGate> open_gate(const WorkerGateOptions& options) {
  absl::StatusOr<std::unique_ptr<WorkerGate>> gate = WorkerGate::start(options);
  EXPECT_TRUE(gate.ok()) << gate.status();
  return gate.ok() ? *std::move(gate) : nullptr;
}

LinkOptions dial(const std::string& address, std::chrono::milliseconds wait = 5s) {
  LinkOptions options;
  options.coordinator = address;
  options.wait = wait;
  return options;
}

std::unique_ptr<LinkChannel> join(const std::string& address, const v1::Hello& message) {
  absl::StatusOr<std::unique_ptr<LinkChannel>> channel = LinkChannel::connect(dial(address), message);
  EXPECT_TRUE(channel.ok()) << channel.status();
  return channel.ok() ? *std::move(channel) : nullptr;
}

std::string refusal(const std::string& address, const v1::Hello& message) {
  const absl::Status status = LinkChannel::connect(dial(address), message).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  return std::string(status.message());
}

v1::StepPlan plan(uint64_t step) {
  v1::StepPlan out;
  out.set_step(step);
  out.add_ended(step + 1000);
  return out;
}

v1::StepResult result(uint64_t step) {
  v1::StepResult out;
  out.set_step(step);
  out.add_tokens()->set_token(static_cast<int32_t>(step * 7));
  return out;
}

// Takes plans and answers each until the link ends; returns how it ended. `shutdown` set: by a plan that says so.
struct Worker {
  explicit Worker(std::unique_ptr<LinkChannel> link) : channel(std::move(link)), thread([this] { run(); }) {}
  ~Worker() { join(); }

  void join() {
    if (thread.joinable()) thread.join();
  }

  void run() {
    for (const auto until = std::chrono::steady_clock::now() + 30s; std::chrono::steady_clock::now() < until;) {
      absl::StatusOr<std::optional<v1::StepPlan>> next = channel->next(100ms);
      if (!next.ok()) {
        end = next.status();
        return;
      }
      if (!next->has_value()) continue;
      if ((*next)->shutdown()) {
        shutdown = true;
        end = channel->close(5s);
        return;
      }
      channel->post(result((*next)->step()));
    }
  }

  std::unique_ptr<LinkChannel> channel;
  absl::Status end;
  bool shutdown = false;
  std::thread thread;
};

TEST(WorkerLink, PlansGoOutAndResultsComeBackInOrder) {
  auto gate = open_gate(gate_options(layout(2, 2)));
  std::vector<std::unique_ptr<Worker>> workers;
  for (int replica : {1, 0}) workers.push_back(std::make_unique<Worker>(join(gate->address(), hello(replica, layout(2, 2)))));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok()) << executors.status();
  ASSERT_EQ(executors->size(), 2u);
  const std::vector<v1::ReplicaInfo> replicas = gate->replicas();
  ASSERT_EQ(replicas.size(), 2u);
  EXPECT_EQ(replicas[1].replica(), 1u);
  EXPECT_EQ(replicas[1].ranks(1).rank(), 3u);
  EXPECT_THAT(replicas[1].address(), HasSubstr("127.0.0.1:"));
  for (auto& executor : *executors) {
    EXPECT_EQ(executor->facts().ranks, 2);
    EXPECT_EQ(executor->facts().numerics_id, "N1");
    EXPECT_EQ(executor->facts().pages_per_home, 64);
    constexpr uint64_t kSteps = 500, kAhead = 3;
    for (uint64_t step = 1; step <= kSteps + kAhead; ++step) {
      if (step <= kSteps) {
        ASSERT_TRUE(executor->submit(plan(step)).ok());
      }
      if (step <= kAhead) continue;
      absl::StatusOr<v1::StepResult> next = executor->next(5s);
      ASSERT_TRUE(next.ok()) << next.status();
      ASSERT_EQ(next->step(), step - kAhead);
      ASSERT_EQ(next->tokens(0).token(), static_cast<int32_t>((step - kAhead) * 7));
    }
    EXPECT_EQ(executor->next(10ms).status().code(), absl::StatusCode::kDeadlineExceeded);
    executor->shutdown(5s);
    EXPECT_EQ(executor->submit(plan(501)).code(), absl::StatusCode::kUnavailable);
  }
  for (auto& worker : workers) {
    worker->join();
    EXPECT_TRUE(worker->shutdown);
    EXPECT_TRUE(worker->end.ok()) << worker->end;
  }
}

RankProgress progress_of(int rank, uint64_t steps) {
  RankProgress p;
  p.rank = rank;
  p.host = absl::StrCat("h", rank % 2);
  p.steps_begun = steps + 1;
  p.steps_finished = steps;
  p.collectives_begun = 8 * steps;
  p.collectives_finished = 8 * steps - 1;
  p.phase = "tree all-reduce (gather)";
  p.collective = 41;
  p.waiting = true;
  p.heard = RankProgress::Clock::now();
  p.moved = p.heard - 2s;
  p.step_ended = p.heard - 3s;
  return p;
}

TEST(WorkerLink, RanksSayHowFarTheyAreAndSilenceShows) {
  WorkerGateOptions options = gate_options(layout(2, 2));
  options.report_period = 20ms;
  auto gate = open_gate(options);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int replica : {0, 1}) workers.push_back(std::make_unique<Worker>(join(gate->address(), hello(replica, layout(2, 2)))));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok()) << executors.status();
  Executor& second = *(*executors)[1];
  std::vector<RankProgress> seen = second.progress();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[1].rank, 3);
  EXPECT_EQ(seen[1].host, "h1");
  EXPECT_EQ(seen[1].group, 1);
  EXPECT_EQ(seen[1].steps_begun, 0u) << "nothing was said yet";
  std::atomic<uint64_t> steps{10};
  const auto until = [&](const auto& condition) {
    for (int i = 0; i < 2000 && !condition(); ++i) std::this_thread::sleep_for(5ms);
    return condition();
  };
  {
    const RankReporter reporter(dial(gate->address()), 1, [&] { return progress_of(3, steps); });
    // Of no such rank, from another host than the Hello's, of a replica that there is not: changes nothing.
    const RankReporter nobody(dial(gate->address()), 1, [] { return progress_of(1, 99); });
    RankProgress stranger = progress_of(3, 99);
    stranger.host = "elsewhere";
    const RankReporter other(dial(gate->address()), 1, [=] { return stranger; });
    const RankReporter beyond(dial(gate->address()), 7, [] { return progress_of(3, 99); });
    ASSERT_TRUE(until([&] { return second.progress()[1].steps_finished == 10; }));
    const RankProgress p = second.progress()[1];
    EXPECT_EQ(p.steps_begun, 11u);
    EXPECT_EQ(p.group, 1);
    EXPECT_EQ(p.collectives_begun, 80u);
    EXPECT_EQ(p.collectives_finished, 79u);
    EXPECT_EQ(p.phase, "tree all-reduce (gather)");
    EXPECT_EQ(p.collective, 41u);
    EXPECT_TRUE(p.waiting);
    EXPECT_GE(p.heard - p.moved, 1999ms);
    EXPECT_GE(p.heard - p.step_ended, 2999ms);
    steps = 20;
    ASSERT_TRUE(until([&] { return second.progress()[1].steps_finished == 20; })) << "it says it again";
    std::this_thread::sleep_for(300ms);
    for (const RankProgress& r : second.progress()) EXPECT_NE(r.steps_finished, 99u);
    EXPECT_EQ((*executors)[0]->progress()[1].steps_finished, 0u);
    EXPECT_LT(RankProgress::Clock::now() - second.progress()[1].heard, 5s);
  }
  const auto heard = second.progress()[1].heard;
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(second.progress()[1].heard, heard) << "its process says nothing any more: the age grows";
  for (auto& executor : *executors) executor->shutdown(5s);
}

TEST(WorkerLink, AReporterOutlivesItsCoordinator) {
  std::string address;
  std::atomic<int> asked{0};
  auto gate = open_gate(gate_options(layout(2, 2)));
  address = gate->address();
  const RankReporter reporter(dial(address), 0, [&] {
    ++asked;
    return progress_of(0, 1);
  });
  gate.reset();
  for (int i = 0; i < 2000 && asked < 2; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_GE(asked, 2) << "it asks again, and its end does not wait for an answer";
}

TEST(WorkerLink, RefusesByName) {
  WorkerGateOptions options = gate_options(layout(2, 2));
  std::mutex mutex;
  std::vector<Mismatch> mismatches;
  options.mismatched = [&](Mismatch what) {
    std::lock_guard lock(mutex);
    mismatches.push_back(what);
  };
  auto gate = open_gate(options);
  const v1::Hello good = hello(0, layout(2, 2));
  auto first = join(gate->address(), good);
  ASSERT_NE(first, nullptr);

  v1::Hello other = hello(1, layout(2, 2));
  other.mutable_ranks(1)->set_numerics_id("N9");
  EXPECT_THAT(refusal(gate->address(), other), HasSubstr("refused: rank 3 on host h1: numerics id N9, expected N1"));
  other = hello(1, layout(2, 2));
  other.mutable_ranks(0)->set_numerics_id("N9");  // the whole group agrees with itself, not with the first replica
  other.mutable_ranks(1)->set_numerics_id("N9");
  EXPECT_THAT(refusal(gate->address(), other), HasSubstr("rank 2 on host h0: numerics id N9, expected N1 (and 1 more ranks)"));
  other = hello(1, layout(2, 2));
  for (auto& rank : *other.mutable_ranks()) rank.set_model_digest("D9");
  EXPECT_THAT(refusal(gate->address(), other), HasSubstr("rank 2 on host h0: model digest D9, expected D1"));
  other = hello(1, layout(2, 2));
  for (auto& rank : *other.mutable_ranks()) rank.set_build_id("B9");
  EXPECT_THAT(refusal(gate->address(), other), HasSubstr("rank 2 on host h0: build B9, expected B1"));
  EXPECT_THAT(refusal(gate->address(), hello(1, layout(1, 2))), HasSubstr("layout tp1 pp1 ep1 dp2, expected tp2 pp1 ep1 dp2"));
  EXPECT_THAT(refusal(gate->address(), good), HasSubstr("replica 0 (rank 0 on host h0"));
  EXPECT_THAT(refusal(gate->address(), good), HasSubstr("already joined by replica 0"));

  // Who has other bits to give is counted, by what differs; who has another layout or comes twice is not.
  {
    std::lock_guard lock(mutex);
    EXPECT_EQ(mismatches, (std::vector{Mismatch::kNumericsId, Mismatch::kNumericsId, Mismatch::kModelDigest, Mismatch::kBuild}));
  }
  // None of that hurt the one that is there, and the right one is still taken.
  auto second = join(gate->address(), hello(1, layout(2, 2)));
  ASSERT_NE(second, nullptr);
  EXPECT_TRUE(gate->wait(5s, nullptr).ok());
}

TEST(WorkerLink, WaitSaysWhoIsMissingAndWhy) {
  auto gate = open_gate(gate_options(layout(1, 2)));
  std::vector<std::string> lines;
  auto first = join(gate->address(), hello(0, layout(1, 2)));
  auto late = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(100ms);
    v1::Hello wrong = hello(1, layout(1, 2));
    wrong.mutable_ranks(0)->set_build_id("B9");
    return refusal(gate->address(), wrong);
  });
  const absl::Status status = gate->wait(600ms, [&](const std::string& line) { lines.push_back(line); }).status();
  late.get();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("replica 1 of 2 did not join at 127.0.0.1:"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("last refused: rank 1 on host h0: build B9, expected B1"));
  EXPECT_THAT(lines, Contains("waiting for replica 1 of 2"));
  EXPECT_THAT(lines, Contains(HasSubstr("refused ipv4:127.0.0.1")));

  auto second = join(gate->address(), hello(1, layout(1, 2)));
  EXPECT_TRUE(gate->wait(5s, nullptr).ok());
}

TEST(WorkerLink, InterruptEndsTheWait) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  auto waiting = std::async(std::launch::async, [&] { return gate->wait(20s, nullptr).status(); });
  gate->interrupt(absl::AbortedError("mpirun ended with 1"));
  ASSERT_EQ(waiting.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(waiting.get(), absl::AbortedError("mpirun ended with 1"));
}

TEST(WorkerLink, TheWorkerWaitsForACoordinatorThatIsNotUpYet) {
  const std::string path = absl::StrCat("unix:/tmp/invar_worker_link_", getpid(), ".sock");
  auto joining = std::async(std::launch::async, [&] { return join(path, hello(0, layout(1, 1))); });
  std::this_thread::sleep_for(300ms);
  WorkerGateOptions options = gate_options(layout(1, 1));
  options.listen = path;
  auto gate = open_gate(options);
  ASSERT_EQ(joining.wait_for(8s), std::future_status::ready);
  EXPECT_NE(joining.get(), nullptr);
}

TEST(WorkerLink, TheWorkerGivesUpAtItsDeadline) {
  const std::string nobody = absl::StrCat("unix:/tmp/invar_nobody_", getpid(), ".sock");
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = LinkChannel::connect(dial(nobody, 400ms), hello(0, layout(1, 1))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(nobody + ": not there within 400 ms"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 3s);
  EXPECT_EQ(LinkChannel::connect(dial("nonsense"), hello(0, layout(1, 1))).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(WorkerLink, ALostWorkerIsNoticedByNameAndMayJoinAgain) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  auto channel = join(gate->address(), hello(0, layout(1, 1)));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok());
  Executor& executor = *executors->front();
  ASSERT_TRUE(executor.submit(plan(1)).ok());
  ASSERT_TRUE(executor.submit(plan(2)).ok());
  channel->post(result(1));
  ASSERT_TRUE(executor.next(5s).ok());
  channel.reset();  // without close(): as a killed process
  const absl::Status status = executor.next(5s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("replica 0 (rank 0 on host h0, ipv4:127.0.0.1:"));
  EXPECT_EQ(executor.submit(plan(3)).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(gate->replicas().empty());

  auto again = join(gate->address(), hello(0, layout(1, 1)));
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(gate->wait(5s, nullptr).ok());
}

TEST(WorkerLink, ALostCoordinatorIsNoticed) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  auto channel = join(gate->address(), hello(0, layout(1, 1)));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok());
  ASSERT_TRUE((*executors)[0]->submit(plan(1)).ok());
  auto next = channel->next(5s);
  ASSERT_TRUE(next.ok() && next->has_value());
  EXPECT_EQ((*next)->ended(0), 1001u);
  next = channel->next(10ms);
  ASSERT_TRUE(next.ok());
  EXPECT_FALSE(next->has_value());
  executors->clear();  // the coordinator dies
  gate.reset();
  next = channel->next(5s);
  EXPECT_FALSE(next.ok());
  EXPECT_THAT(std::string(next.status().message()), HasSubstr("coordinator 127.0.0.1:"));
}

TEST(WorkerLink, AFailureReportedByTheWorkerEndsIt) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  auto channel = join(gate->address(), hello(0, layout(1, 1)));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok());
  ASSERT_TRUE((*executors)[0]->submit(plan(1)).ok());
  v1::StepResult failure;
  failure.set_failure("rank 1 on host h1: all-gather 17: expected 64 bytes, got 0");
  channel->post(failure);
  const absl::Status status = (*executors)[0]->next(5s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 on host h1: all-gather 17"));
}

TEST(WorkerLink, AResultNobodyAskedForEndsIt) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  auto channel = join(gate->address(), hello(0, layout(1, 1)));
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok());
  ASSERT_TRUE((*executors)[0]->submit(plan(1)).ok());
  channel->post(result(2));
  const absl::Status status = (*executors)[0]->next(5s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sent a result of step 2, expected 1 of 1 planned"));
}

// The connection stays open and says nothing, as after a power cut: both ends must find out by themselves.
TEST(WorkerLink, ASilentPeerIsNoticedByBothEnds) {
  WorkerGateOptions options = gate_options(layout(1, 1));
  options.heartbeat = 100ms;
  options.link_timeout = 800ms;
  auto gate = open_gate(options);
  Relay relay(gate->address());
  LinkOptions dialling = dial(relay.address());
  dialling.dead_after = 800ms;
  absl::StatusOr<std::unique_ptr<LinkChannel>> channel = LinkChannel::connect(dialling, hello(0, layout(1, 1)));
  ASSERT_TRUE(channel.ok()) << channel.status();
  auto executors = gate->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok());
  // Idle for longer than the time limit: heartbeats and pings keep it.
  EXPECT_EQ((*executors)[0]->next(1500ms).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE((*channel)->next(1ms).ok());

  relay.freeze();
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = (*executors)[0]->next(8s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), AnyOf(HasSubstr("nothing heard for"), HasSubstr("connection")));
  const absl::Status other = (*channel)->next(8s).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kUnavailable) << other;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
}

TEST(WorkerLink, AnAddressInUseIsAnError) {
  auto gate = open_gate(gate_options(layout(1, 1)));
  WorkerGateOptions options = gate_options(layout(1, 1));
  options.listen = gate->address();
  const absl::Status status = WorkerGate::start(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(gate->address()));
}

TEST(WorkerLink, OptionsAreChecked) {
  WorkerGateOptions options = gate_options(layout(0, 1));
  EXPECT_THAT(std::string(WorkerGate::start(options).status().message()), HasSubstr("layout: tp 0"));
  options = gate_options(layout(1, 1));
  options.link_timeout = options.heartbeat;
  EXPECT_THAT(std::string(WorkerGate::start(options).status().message()), HasSubstr("link_timeout 2000 ms"));
  options = gate_options(layout(1, 1));
  for (const char* address : {"", "host", ":80", "host:70000", "host:x", "::1:80", "unix:"}) {
    options.listen = address;
    EXPECT_EQ(WorkerGate::start(options).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace invar::rpc
