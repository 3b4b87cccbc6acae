// For tests: a server over the real engine and ranks without a model, and a client of it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "rpc/client/client.h"
#include "rpc/server/server.h"
#include "runtime/engine/fake_executor.h"

namespace invar::rpc {

using namespace std::chrono_literals;

// Waits for what another thread brings about; a bound that only a hang reaches.
template <class Condition>
bool soon(Condition condition, std::chrono::milliseconds most = 20s) {
  for (const auto until = std::chrono::steady_clock::now() + most; !condition(); std::this_thread::sleep_for(1ms)) {
    if (std::chrono::steady_clock::now() > until) return false;
  }
  return true;
}

inline v1::GenerateRequest request_of(const std::vector<int32_t>& prompt, uint32_t max_tokens, float temperature = 0) {
  v1::GenerateRequest request;
  request.mutable_prompt_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  request.mutable_sampling_params()->set_max_tokens(max_tokens);
  request.mutable_sampling_params()->set_temperature(temperature);
  return request;
}

inline std::vector<int32_t> tokens_of(const v1::GenerateResponse& response, int choice = 0) {
  const auto& ids = response.choices(choice).token_ids();
  return {ids.begin(), ids.end()};
}

struct Arrangement {
  EngineOptions engine;
  engine::FakeOptions fake;
  ServerOptions server;
  std::shared_ptr<const Tokenizer> tokenizer;
  int replicas = 1;

  Arrangement() {
    fake.model.vocab_size = 512;
    fake.facts.pages_per_home = 4096;
    fake.facts.max_positions = 65536;
    fake.facts.vocab_size = fake.model.vocab_size;
    fake.facts.numerics_id = "N1";
    fake.facts.model_digest = "D1";
    fake.facts.layout = "tp1 pp1 ep1";
    server.listen = {"127.0.0.1:0"};
    server.health_period = 5ms;
  }
};

inline std::shared_ptr<Engine> start_engine(const Arrangement& given, std::vector<std::unique_ptr<Executor>> executors) {
  ModelConfig model;
  model.vocab_size = given.fake.model.vocab_size;
  model.max_position_embeddings = given.fake.facts.max_positions;
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::start(given.engine, model, given.tokenizer, std::move(executors));
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? std::shared_ptr<Engine>(*std::move(engine)) : nullptr;
}

class Service {
 public:
  explicit Service(const Arrangement& given) : given_(given) {
    absl::StatusOr<std::unique_ptr<Server>> started = Server::start(given.server);
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    client = connect();
  }

  // The engine is given to the server only here: before, it is loading.
  void serve() {
    std::vector<std::unique_ptr<Executor>> executors;
    for (int i = 0; i < given_.replicas; ++i) {
      auto executor = std::make_unique<engine::FakeExecutor>(given_.fake);
      fakes.push_back(executor.get());
      executors.push_back(std::move(executor));
    }
    engine = start_engine(given_, std::move(executors));
    v1::ServerInfo info;
    info.set_model_name("fake");
    info.set_build_id("B1");
    (*info.mutable_config())["max-num-seqs"] = "256";
    server->serve(engine, info);
  }

  std::unique_ptr<Client> connect(int connections = 1) const {
    ClientOptions options;
    options.address = server->addresses()[0];
    options.connections = connections;
    absl::StatusOr<std::unique_ptr<Client>> connected = Client::connect(options);
    EXPECT_TRUE(connected.ok()) << connected.status();
    return connected.ok() ? *std::move(connected) : nullptr;
  }

  // What the plainest loop answers.
  std::vector<int32_t> wanted(const std::vector<int32_t>& prompt, int64_t count) const {
    v1::SamplingParams greedy;
    greedy.set_temperature(0);
    return given_.fake.model.answer(prompt, greedy, 0, count).tokens;
  }

  std::unique_ptr<Server> server;
  std::vector<engine::FakeExecutor*> fakes;  // while the engine lives
  std::shared_ptr<Engine> engine;
  std::unique_ptr<Client> client;

 private:
  const Arrangement given_;
};

// A server that serves.
inline std::unique_ptr<Service> serving(const Arrangement& given) {
  auto service = std::make_unique<Service>(given);
  service->serve();
  return service;
}

}  // namespace invar::rpc
