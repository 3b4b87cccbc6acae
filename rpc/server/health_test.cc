// grpc.health.v1 as a checker sees it, through the life of a server.
#include <grpcpp/create_channel.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "rpc/proto/health.grpc.pb.h"
#include "rpc/server/service_harness.h"

namespace invar::rpc {
namespace {

using Status = grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

constexpr char kModel[] = "invar.v1.Invar";

// Follows one service name with Watch.
class Watcher {
 public:
  Watcher(const std::string& address, const std::string& service) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = grpc::health::v1::Health::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args));
    context_.set_deadline(std::chrono::system_clock::now() + 60s);
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    reader_ = stub_->Watch(&context_, request);
    thread_ = std::thread([this] {
      for (Status status; reader_->Read(&status);) {
        std::lock_guard lock(mutex_);
        seen_.push_back(status.status());
        changed_.notify_all();
      }
      reader_->Finish();
    });
  }
  ~Watcher() {
    context_.TryCancel();
    thread_.join();
  }
  // The next change; UNKNOWN when none comes.
  Status::ServingStatus next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, 20s, [&] { return !seen_.empty(); })) return Status::UNKNOWN;
    const Status::ServingStatus status = seen_.front();
    seen_.pop_front();
    return status;
  }

 private:
  std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<Status>> reader_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Status::ServingStatus> seen_;
  std::thread thread_;
};

TEST(Health, LoadingServingDraining) {
  Service service{Arrangement()};
  Watcher watcher(service.server->addresses()[0], kModel);
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
  EXPECT_TRUE(service.client->check_health("", 5s).ok());
  EXPECT_EQ(service.client->check_health(kModel, 5s).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service.client->check_health("no.such.Service", 5s).code(), absl::StatusCode::kNotFound);

  service.serve();
  EXPECT_EQ(watcher.next(), Status::SERVING);
  EXPECT_TRUE(service.client->check_health(kModel, 5s).ok());

  service.server->withdraw("waiting for replica 0 of 1");
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
  EXPECT_TRUE(service.client->check_health("", 5s).ok());
  service.serve();
  EXPECT_EQ(watcher.next(), Status::SERVING);

  EXPECT_TRUE(service.server->shutdown(5s));
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
}

TEST(Health, ALostWorkerGroupIsNotServing) {
  Arrangement given;
  given.fake.lose_at_step = 3;
  auto service = serving(given);
  Watcher watcher(service->server->addresses()[0], kModel);
  EXPECT_EQ(watcher.next(), Status::SERVING);
  EXPECT_FALSE(service->client->generate_whole(request_of({1, 2}, 50), 10s).ok());
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
  EXPECT_TRUE(service->client->check_health("", 5s).ok()) << "the process is alive";
  const auto info = service->client->server_info(5s);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->state(), v1::SERVER_STATE_UNHEALTHY);
  EXPECT_THAT(info->progress(), HasSubstr("rank 1 on host b is gone"));
}

TEST(Health, AnOverdueStepIsNotServingUntilItComes) {
  Arrangement given;
  given.fake.hang_at_step = 2;
  given.engine.step_timeout = 50ms;
  auto service = serving(given);
  Watcher watcher(service->server->addresses()[0], kModel);
  EXPECT_EQ(watcher.next(), Status::SERVING);
  std::thread asking([&] { EXPECT_TRUE(service->client->generate_whole(request_of({1, 2}, 5), 30s).ok()); });
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
  service->fakes[0]->release();
  EXPECT_EQ(watcher.next(), Status::SERVING);
  asking.join();
}

TEST(Health, OneReplicaOfTwoIsEnoughToServe) {
  Arrangement given;
  given.replicas = 2;
  given.fake.tamper = [](v1::StepResult*) { std::this_thread::sleep_for(1ms); };
  Service service{given};
  std::vector<std::unique_ptr<Executor>> executors;
  executors.push_back(std::make_unique<engine::FakeExecutor>(given.fake));
  given.fake.lose_at_step = 1;
  executors.push_back(std::make_unique<engine::FakeExecutor>(given.fake));
  service.engine = start_engine(given, std::move(executors));
  service.server->serve(service.engine, {});
  // With both idle the first takes every request; one that never ends keeps it busy, so the next goes to the other and moves
  // back.
  service.client->start(
      request_of({5}, 60000), 60s, [](const v1::GenerateResponse&) { return true; }, [](const absl::Status&) {});
  ASSERT_TRUE(soon([&] { return service.engine->stats().running == 1; }));
  const auto whole = service.client->generate_whole(request_of({1, 2}, 20), 10s);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(tokens_of(*whole), service.wanted({1, 2}, 20));
  ASSERT_TRUE(soon([&] { return service.engine->stats().replicas_alive == 1; }));
  std::this_thread::sleep_for(30ms);  // several health periods
  EXPECT_TRUE(service.client->check_health(kModel, 5s).ok());
  const auto info = service.client->server_info(5s);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->state(), v1::SERVER_STATE_SERVING);
  EXPECT_THAT(info->progress(), HasSubstr("rank 1 on host b is gone"));
}

// Two replicas: the first hangs at its first step, the second is lost at step `lose_second_at` (0 = never).
std::unique_ptr<Service> serving_with_a_hanging_replica(Arrangement given, uint64_t lose_second_at,
                                                        engine::FakeExecutor** hanging) {
  given.engine.step_timeout = 50ms;
  auto service = std::make_unique<Service>(given);
  std::vector<std::unique_ptr<Executor>> executors;
  engine::FakeOptions fake = given.fake;
  fake.hang_at_step = 1;
  auto first = std::make_unique<engine::FakeExecutor>(fake);
  *hanging = first.get();
  executors.push_back(std::move(first));
  fake = given.fake;
  fake.lose_at_step = lose_second_at;
  executors.push_back(std::make_unique<engine::FakeExecutor>(fake));
  service->engine = start_engine(given, std::move(executors));
  service->server->serve(service->engine, {});
  service->client->start(
      request_of({5}, 20), 60s, [](const v1::GenerateResponse&) { return true; }, [](const absl::Status&) {});
  EXPECT_TRUE(soon([&] { return service->engine->stats().replicas_stepping == 1; }));
  return service;
}

TEST(Health, AnOverdueReplicaLeavesTheOtherServing) {
  engine::FakeExecutor* hanging = nullptr;
  const auto service = serving_with_a_hanging_replica({}, 0, &hanging);
  for (int i = 0; i < 4; ++i) {  // past the second in which nothing moves, too
    std::this_thread::sleep_for(350ms);
    EXPECT_TRUE(service->client->check_health(kModel, 5s).ok());
  }
  const auto whole = service->client->generate_whole(request_of({1, 2}, 20), 10s);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(tokens_of(*whole), service->wanted({1, 2}, 20));
  const auto info = service->client->server_info(5s);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->state(), v1::SERVER_STATE_SERVING);
  EXPECT_THAT(info->progress(), HasSubstr("replica 0: a step has had no result"));
  hanging->release();
  EXPECT_TRUE(soon([&] { return service->engine->stats().healthy; }));
}

TEST(Health, WhenTheOnlyReplicaThatStepsIsLostNobodyServes) {
  engine::FakeExecutor* hanging = nullptr;
  const auto service = serving_with_a_hanging_replica({}, 3, &hanging);
  EXPECT_TRUE(service->client->check_health(kModel, 5s).ok());
  Watcher watcher(service->server->addresses()[0], kModel);
  EXPECT_EQ(watcher.next(), Status::SERVING);
  service->client->start(
      request_of({1, 2}, 20), 60s, [](const v1::GenerateResponse&) { return true; }, [](const absl::Status&) {});
  EXPECT_EQ(watcher.next(), Status::NOT_SERVING);
  EXPECT_EQ(service->engine->stats().replicas_alive, 1) << "alive, but not stepping";
  const auto info = service->client->server_info(5s);
  ASSERT_TRUE(info.ok());
  EXPECT_THAT(info->progress(), HasSubstr("rank 1 on host b is gone"));
  EXPECT_THAT(info->progress(), HasSubstr("replica 0: a step has had no result"));
  hanging->release();  // the one that hung comes back, with the other's request too
  EXPECT_EQ(watcher.next(), Status::SERVING);
  EXPECT_TRUE(soon([&] { return service->engine->stats().finished == 2; }));
}

}  // namespace
}  // namespace invar::rpc
