// Everything of the public server but Generate and health; and the whole way through the worker link.
#include <google/protobuf/dynamic_message.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "rpc/proto/invar.grpc.pb.h"
#include "rpc/server/service_harness.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/link_channel.h"
#include "rpc/worker_link/worker_gate.h"

namespace invar::rpc {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<grpc::Channel> raw_channel(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

// One call with bytes that no generated stub would send.
grpc::Status call_with_bytes(const std::string& address, const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(raw_channel(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + 10s);
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  auto reader = stub.PrepareUnaryCall(&context, method, request, &queue);
  reader->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  reader->Finish(&response, &status, &reader);
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
  return status;
}

std::shared_ptr<const Tokenizer> demo_tokenizer() {
  const absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer =
      Tokenizer::load(std::filesystem::path(INVAR_SOURCE_DIR) / "configs/models/demo-dense");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TEST(Service, AnswersWhileLoading) {
  Service service{Arrangement()};
  service.server->set_progress("waiting for replica 1 of 2");
  const auto info = service.client->server_info(5s);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->state(), v1::SERVER_STATE_LOADING);
  EXPECT_EQ(info->progress(), "waiting for replica 1 of 2");
  for (const absl::Status& status :
       {service.client->generate_whole(request_of({1}, 1), 5s).status(), service.client->tokenize("a", true, 5s).status(),
        service.client->detokenize({1}, false, 5s).status(), service.client->flush_cache(5s).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("loading: waiting for replica 1 of 2"));
  }
  EXPECT_EQ(service.client->abort("x", 5s).code(), absl::StatusCode::kNotFound);

  std::vector<std::string> heard;
  EXPECT_EQ(service.client->wait_until_serving(300ms, [&](const std::string& line) { heard.push_back(line); }).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(heard, ::testing::ElementsAre("waiting for replica 1 of 2"));
  std::thread later([&] {
    std::this_thread::sleep_for(100ms);
    service.serve();
  });
  EXPECT_TRUE(service.client->wait_until_serving(20s, nullptr).ok());
  later.join();
}

TEST(Service, ServerInfoSaysWhatIsServed) {
  auto service = serving(Arrangement());
  ASSERT_TRUE(service->client->generate_whole(request_of({1, 2, 3}, 10), 10s).ok());
  const auto info = service->client->server_info(5s);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->state(), v1::SERVER_STATE_SERVING);
  EXPECT_EQ(info->progress(), "");
  EXPECT_EQ(info->model_name(), "fake");
  EXPECT_EQ(info->build_id(), "B1");
  EXPECT_EQ(info->numerics_id(), "N1");
  EXPECT_EQ(info->model_digest(), "D1");
  EXPECT_EQ(info->max_model_len(), 65536u);
  EXPECT_EQ(info->vocab_size(), 512u);
  EXPECT_FALSE(info->tokenizer());
  EXPECT_EQ(info->config().at("max-num-seqs"), "256");
  EXPECT_EQ(info->stats().finished(), 1u);
  EXPECT_EQ(info->stats().generation_tokens(), 10u);
  EXPECT_EQ(info->stats().pages_total(), 4096u);
  EXPECT_GT(info->stats().steps(), 0u);
}

TEST(Service, ModelInfoSaysWhatARequestGets) {
  Arrangement given;
  given.engine.seed = 17;
  Service service{given};
  EXPECT_EQ(service.client->model_info(5s).status().code(), absl::StatusCode::kUnavailable);
  service.serve();
  const auto info = service.client->model_info(5s);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name(), "fake");
  EXPECT_EQ(info->model_digest(), "D1");
  EXPECT_EQ(info->numerics_id(), "N1");
  EXPECT_EQ(info->max_model_len(), 65536u);
  EXPECT_EQ(info->vocab_size(), 512u);
  EXPECT_EQ(info->default_sampling_params().seed(), 17u);
  EXPECT_EQ(info->default_sampling_params().max_tokens(), 16u);
  EXPECT_FALSE(info->tokenizer());
}

TEST(Service, ARequiredModelDigestMustBeTheServedOne) {
  auto service = serving(Arrangement());
  v1::GenerateRequest request = request_of({1, 2}, 3);
  request.set_require_model_digest("D1");
  EXPECT_TRUE(service->client->generate_whole(request, 10s).ok());
  request.set_require_model_digest("D0");
  const absl::Status status = service->client->generate_whole(request, 10s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("require_model_digest = D0: the model served has D1"));
}

TEST(Service, TheTrailersHaveTheDigest) {
  auto service = serving(Arrangement());
  const std::unique_ptr<v1::Invar::Stub> stub = v1::Invar::NewStub(raw_channel(service->server->addresses()[0]));
  const auto trailers = [&](const v1::GenerateRequest& request, v1::GenerateResponse* last) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 20s);
    auto reader = stub->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) *last = response;
    reader->Finish();
    std::multimap<std::string, std::string> out;
    for (const auto& [key, value] : context.GetServerTrailingMetadata())
      out.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
    return out;
  };
  v1::GenerateResponse last;
  auto got = trailers(request_of({1, 2}, 5), &last);
  EXPECT_EQ(got.count("invar-response-digest"), 1u);
  EXPECT_EQ(got.find("invar-response-digest")->second, last.choices(0).response_digest());
  EXPECT_EQ(got.find("invar-numerics-id")->second, "N1");
  EXPECT_EQ(got.find("invar-model-digest")->second, "D1");
  v1::GenerateRequest two = request_of({1, 2}, 5);
  two.mutable_sampling_params()->set_n(2);
  got = trailers(two, &last);
  EXPECT_EQ(got.count("invar-response-digest"), 0u) << "two choices have two digests";
  EXPECT_EQ(got.count("invar-model-digest"), 1u);
  got = trailers(request_of({9999}, 5), &last);
  EXPECT_EQ(got.count("invar-response-digest"), 0u) << "a refused request has no answer";
}

TEST(Service, TokenizeAndBack) {
  Arrangement given;
  given.tokenizer = demo_tokenizer();
  ASSERT_NE(given.tokenizer, nullptr);
  auto service = serving(given);
  const std::string text = "Once upon a time, 123 \xE2\x82\xAC!";
  const auto ids = service->client->tokenize(text, false, 5s);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, *given.tokenizer->encode(text, false));
  const auto back = service->client->detokenize(*ids, false, 5s);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, text);
  const absl::Status status = service->client->detokenize({1, 2, 123456789}, false, 5s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("ids: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("123456789"));
  EXPECT_TRUE(service->client->server_info(5s)->tokenizer());
}

TEST(Service, TextInTextOut) {
  Arrangement given;
  given.tokenizer = demo_tokenizer();
  ASSERT_NE(given.tokenizer, nullptr);
  auto service = serving(given);
  v1::GenerateRequest request = request_of({}, 60);
  request.set_prompt("Once upon a time");
  request.mutable_sampling_params()->set_skip_special_tokens(false);
  const auto whole = service->client->generate_whole(request, 10s);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(tokens_of(*whole).size(), 60u);
  EXPECT_EQ(whole->choices(0).text(), given.tokenizer->decode(tokens_of(*whole), false));
  EXPECT_EQ(whole->usage().prompt_tokens(), given.tokenizer->encode("Once upon a time", true)->size());
}

TEST(Service, WithoutATokenizerTextIsAFailedPrecondition) {
  auto service = serving(Arrangement());
  EXPECT_EQ(service->client->tokenize("a", true, 5s).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(service->client->detokenize({1}, true, 5s).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Service, FlushCacheSaysHowManyPages) {
  auto service = serving(Arrangement());
  const std::vector<int32_t> prompt(64, 5);
  ASSERT_TRUE(service->client->generate_whole(request_of(prompt, 2), 10s).ok());
  auto again = service->client->generate_whole(request_of(prompt, 2), 10s);
  ASSERT_TRUE(again.ok());
  EXPECT_GT(again->usage().cached_tokens(), 0u);
  const auto pages = service->client->flush_cache(5s);
  ASSERT_TRUE(pages.ok()) << pages.status();
  EXPECT_EQ(*pages, 4u);
  again = service->client->generate_whole(request_of(prompt, 2), 10s);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->usage().cached_tokens(), 0u);
}

TEST(Service, BytesThatAreNoMessageAreRefusedAndTheServerLives) {
  auto service = serving(Arrangement());
  const std::string& address = service->server->addresses()[0];
  std::string bytes = "\x12\x04";  // field 2 (prompt), 4 bytes that are not UTF-8
  bytes += "\xff\xfe\xfd\xfc";
  const std::string hostile[] = {std::string(100, '\xff'), bytes, std::string(1 << 20, '\x0b'),            // groups in groups
                                 std::string("\x1a\xff\xff\xff\xff\x07", 6), std::string("\x0a\x7f", 2)};  // lengths that lie
  for (const std::string& message : hostile) {
    for (const char* method : {"Generate", "Tokenize", "Detokenize", "Abort"}) {
      const grpc::Status status = call_with_bytes(address, absl::StrCat("/invar.v1.Invar/", method), message);
      EXPECT_FALSE(status.ok()) << method;
    }
  }
  EXPECT_EQ(call_with_bytes(address, "/invar.v1.Invar/NoSuchMethod", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  // The worker link is not on this port.
  EXPECT_EQ(call_with_bytes(address, "/invar.v1.WorkerLink/Join", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(service->client->generate_whole(request_of({1}, 4), 10s).ok());
}

// The reflection library brings its messages into the process's descriptor pool; asked for by name they need no generated header.
TEST(Service, ReflectionListsTheServices) {
  Service service{Arrangement()};
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  const auto* request_type = pool->FindMessageTypeByName("grpc.reflection.v1alpha.ServerReflectionRequest");
  const auto* response_type = pool->FindMessageTypeByName("grpc.reflection.v1alpha.ServerReflectionResponse");
  ASSERT_TRUE(request_type != nullptr && response_type != nullptr);
  google::protobuf::MessageFactory& factory = *google::protobuf::MessageFactory::generated_factory();
  const auto ask = [&](const char* field, const std::string& value) {
    std::unique_ptr<google::protobuf::Message> request(factory.GetPrototype(request_type)->New());
    request->GetReflection()->SetString(request.get(), request_type->FindFieldByName(field), value);
    grpc::GenericStub stub(raw_channel(service.server->addresses()[0]));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 10s);
    grpc::CompletionQueue queue;
    auto stream = stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    const auto step = [&] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    stream->StartCall(nullptr);
    EXPECT_TRUE(step());
    const grpc::Slice slice(request->SerializeAsString());
    stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    EXPECT_TRUE(step());
    grpc::ByteBuffer buffer;
    stream->Read(&buffer, nullptr);
    EXPECT_TRUE(step());
    grpc::Slice answer;
    EXPECT_TRUE(buffer.DumpToSingleSlice(&answer).ok());
    std::unique_ptr<google::protobuf::Message> response(factory.GetPrototype(response_type)->New());
    EXPECT_TRUE(response->ParseFromArray(answer.begin(), static_cast<int>(answer.size())));
    grpc::Status status;
    stream->Finish(&status, nullptr);
    step();
    return response->DebugString();
  };
  const std::string services = ask("list_services", "");
  EXPECT_THAT(services, HasSubstr("name: \"invar.v1.Invar\""));
  EXPECT_THAT(services, HasSubstr("name: \"grpc.health.v1.Health\""));
  EXPECT_THAT(services, HasSubstr("name: \"vllm.grpc.engine.VllmEngine\""));
  const std::string file = ask("file_containing_symbol", "invar.v1.Invar");
  EXPECT_THAT(file, HasSubstr("rpc/proto/invar.proto"));
  EXPECT_THAT(file, HasSubstr("GenerateRequest"));
}

TEST(Service, ListensOnSeveralAddressesAndOnEachOnce) {
  Arrangement given;
  const std::string path = absl::StrCat("unix:/tmp/invar_service_", getpid(), ".sock");
  given.server.listen = {path, "127.0.0.1:0"};
  auto service = serving(given);
  ASSERT_EQ(service->server->addresses().size(), 2u);
  EXPECT_TRUE(service->client->generate_whole(request_of({1}, 4), 10s).ok());
  ClientOptions options;
  options.address = service->server->addresses()[1];
  const auto tcp = Client::connect(options);
  ASSERT_TRUE(tcp.ok()) << tcp.status();
  EXPECT_TRUE((*tcp)->generate_whole(request_of({1}, 4), 10s).ok());

  for (const std::string& taken : {options.address, path}) {
    given.server.listen = {taken};
    const absl::Status status = Server::start(given.server).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << taken;
    EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
  }
  EXPECT_TRUE(service->client->generate_whole(request_of({1}, 4), 10s).ok()) << "the first one still has its socket";
  {  // What a killed server leaves is no hindrance.
    const std::string left = absl::StrCat("/tmp/invar_left_", getpid(), ".sock");
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, left.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    close(fd);
    given.server.listen = {absl::StrCat("unix:", left)};
    EXPECT_TRUE(Server::start(given.server).ok());
  }
  given.server.listen = {"nonsense"};
  EXPECT_EQ(Server::start(given.server).status().code(), absl::StatusCode::kInvalidArgument);
  given.server.listen = {};
  EXPECT_EQ(Server::start(given.server).status().code(), absl::StatusCode::kInvalidArgument);
  given.server.max_request_bytes = 0;
  EXPECT_EQ(Server::start(given.server).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Service, ConnectingToNobodyEndsAtItsDeadline) {
  ClientOptions options;
  options.address = absl::StrCat("unix:/tmp/invar_nobody_", getpid(), ".sock");
  options.connect_wait = 200ms;
  const absl::Status status = Client::connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(options.address));
  options.address = "nonsense";
  EXPECT_EQ(Client::connect(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Shutdown, FinishesWhatRunsAndRefusesWhatIsNew) {
  Arrangement given;
  given.fake.tamper = [](v1::StepResult*) { std::this_thread::sleep_for(2ms); };
  auto service = serving(given);
  std::atomic<int> heard{0};
  v1::GenerateResponse last;
  absl::Status end = absl::UnknownError("not ended");
  std::thread asking([&] {
    end = service->client->generate(request_of({1, 2}, 200), 30s, [&](const v1::GenerateResponse& response) {
      ++heard;
      last = response;
      return true;
    });
  });
  ASSERT_TRUE(soon([&] { return heard > 0; }));
  bool drained = false;
  std::thread closing([&] { drained = service->server->shutdown(20s); });
  ASSERT_TRUE(soon([&] { return service->client->server_info(5s)->state() == v1::SERVER_STATE_DRAINING; }));
  const absl::Status refused = service->client->generate_whole(request_of({1}, 1), 5s).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("draining"));
  asking.join();
  closing.join();
  EXPECT_TRUE(end.ok()) << end;
  EXPECT_TRUE(last.finished());
  EXPECT_TRUE(drained);
  EXPECT_FALSE(service->client->server_info(1s).ok());
}

TEST(Shutdown, CancelsWhatDoesNotFinishInTime) {
  Arrangement given;
  given.fake.hang_at_step = 3;
  auto service = serving(given);
  std::atomic<int> heard{0};
  absl::Status end;
  std::thread asking([&] {
    end = service->client->generate(request_of({1, 2}, 200), 30s, [&](const v1::GenerateResponse&) {
      ++heard;
      return true;
    });
  });
  ASSERT_TRUE(soon([&] { return heard > 0; }));
  EXPECT_FALSE(service->server->shutdown(100ms));
  asking.join();
  EXPECT_FALSE(end.ok());
  service->fakes[0]->release();
}

// Client, server, engine, gate, link and ranks: everything but the model, with the coordinator and the workers talking over
// sockets.
TEST(WholeWay, OverTheWorkerLinkTheAnswerIsTheSame) {
  const parallel::Layout layout{.tp = 1, .pp = 1, .ep = 1, .dp = 2};
  Arrangement given;
  given.fake.facts.pages_per_home = 256;
  WorkerGateOptions gate_options;
  gate_options.layout = layout;
  absl::StatusOr<std::unique_ptr<WorkerGate>> gate = WorkerGate::start(gate_options);
  ASSERT_TRUE(gate.ok()) << gate.status();
  Service service{given};
  std::atomic<int> left{0};
  std::vector<std::thread> workers;
  for (int replica = 0; replica < 2; ++replica) {
    workers.emplace_back([&, replica] {
      const RankReport report{replica, "h1", getpid(), "cpu", "N1", "D1", "B1", 0, 0};
      LinkOptions link;
      link.coordinator = (*gate)->address();
      auto channel = LinkChannel::connect(link, make_hello(replica, layout, given.fake.facts, {report}));
      ASSERT_TRUE(channel.ok()) << channel.status();
      engine::FakeExecutor ranks(given.fake);
      for (;;) {
        absl::StatusOr<std::optional<v1::StepPlan>> plan = (*channel)->next(20ms);
        ASSERT_TRUE(plan.ok()) << plan.status();
        if (!plan->has_value()) continue;
        if ((*plan)->shutdown()) break;
        ASSERT_TRUE(ranks.submit(**plan).ok());
        absl::StatusOr<v1::StepResult> result = ranks.next(10s);
        ASSERT_TRUE(result.ok()) << result.status();
        (*channel)->post(*result);
      }
      EXPECT_TRUE((*channel)->close(5s).ok());
      EXPECT_TRUE(ranks.report()->violations.empty());
      EXPECT_GT(ranks.report()->plans, 0u) << "replica " << replica << " had nothing to do";
      ++left;
    });
  }
  auto executors = (*gate)->wait(10s, [&](const std::string& line) { service.server->set_progress(line); });
  ASSERT_TRUE(executors.ok()) << executors.status();
  service.engine = start_engine(given, *std::move(executors));
  v1::ServerInfo info;
  for (const v1::ReplicaInfo& replica : (*gate)->replicas()) *info.add_replicas() = replica;
  *info.mutable_layout() = to_proto(layout);
  service.server->serve(service.engine, info);

  EXPECT_EQ(service.client->server_info(5s)->replicas(1).ranks(0).host(), "h1");
  constexpr int kStreams = 40;
  std::atomic<int> good{0}, ended{0};
  std::vector<v1::GenerateResponse> answers(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    service.client->start(
        request_of({i % 4, 2, 3}, 30), 30s,
        [&, i](const v1::GenerateResponse& response) {
          answers[static_cast<size_t>(i)].mutable_choices()->MergeFrom(response.choices());
          return true;
        },
        [&](const absl::Status& status) {
          EXPECT_TRUE(status.ok()) << status;
          good += status.ok();
          ++ended;
        });
  }
  ASSERT_TRUE(soon([&] { return ended == kStreams; }, 30s));
  EXPECT_EQ(good, kStreams);
  for (int i = 0; i < kStreams; ++i) {
    std::vector<int32_t> tokens;
    for (const auto& choice : answers[static_cast<size_t>(i)].choices())
      tokens.insert(tokens.end(), choice.token_ids().begin(), choice.token_ids().end());
    EXPECT_EQ(tokens, service.wanted({i % 4, 2, 3}, 30));
  }
  EXPECT_TRUE(service.server->shutdown(5s));
  service.engine->shutdown(5s);
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(left, 2);
}

}  // namespace
}  // namespace invar::rpc
