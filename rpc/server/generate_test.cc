// Generate over real sockets and the real engine.
#include <grpcpp/create_channel.h>

#include <atomic>
#include <fstream>
#include <future>
#include <mutex>

#include "rpc/proto/invar.grpc.pb.h"
#include "rpc/server/service_harness.h"
#include "rpc/wire/delta_merge.h"

namespace invar::rpc {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

Arrangement paced(std::chrono::microseconds step) {
  Arrangement given;
  given.fake.tamper = [step](v1::StepResult*) { std::this_thread::sleep_for(step); };
  return given;
}

TEST(Generate, StreamsWhatTheEngineAnswers) {
  auto service = serving(Arrangement());
  v1::GenerateRequest request = request_of(kPrompt, 50);
  request.set_request_id("mine");
  request.set_return_receipt(true);
  request.mutable_sampling_params()->set_logprobs(2);
  int responses = 0;
  v1::GenerateResponse whole;
  const absl::Status status = service->client->generate(request, 20s, [&](const v1::GenerateResponse& response) {
    EXPECT_FALSE(whole.finished()) << "a response after the last";
    EXPECT_EQ(response.request_id(), "mine");
    merge_response(response, whole);
    ++responses;
    return true;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GE(responses, 1);
  EXPECT_TRUE(whole.finished());
  ASSERT_EQ(whole.choices_size(), 1);
  EXPECT_EQ(tokens_of(whole), service->wanted(kPrompt, 50));
  EXPECT_EQ(whole.choices(0).logits_hashes_size(), 50);
  EXPECT_EQ(whole.choices(0).logprobs_size(), 50);
  EXPECT_EQ(whole.choices(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(whole.choices(0).receipt().output_token_ids_size(), 50);
  EXPECT_EQ(whole.choices(0).receipt().numerics_id(), "N1");
  EXPECT_EQ(whole.choices(0).receipt().response_digest(), whole.choices(0).response_digest());
  EXPECT_EQ(whole.usage().prompt_tokens(), kPrompt.size());
  EXPECT_EQ(whole.usage().completion_tokens(), 50u);
}

TEST(Generate, TokensComeOneByOneWhileItRuns) {
  auto service = serving(paced(2ms));
  int responses = 0, last_was = 0;
  const absl::Status status = service->client->generate(request_of(kPrompt, 40), 20s, [&](const v1::GenerateResponse& response) {
    ++responses;
    if (response.finished()) last_was = responses;
    return true;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(responses, 20) << "an answer of 40 tokens, one every 2 ms, came in few pieces";
  EXPECT_EQ(last_was, responses);
}

// A stream that outlived its client would take the channel away from one of gRPC's own threads, which ends the process.
TEST(Generate, AClientEndsBehindItsStreams) {
  struct Slow {
    std::atomic<bool>& gone;
    ~Slow() {
      std::this_thread::sleep_for(300ms);
      gone = true;
    }
  };
  auto service = serving(Arrangement());
  std::unique_ptr<Client> client = service->connect();
  std::atomic<bool> gone{false};
  std::promise<void> done;
  client->start(
      request_of(kPrompt, 4), 20s, [](const v1::GenerateResponse&) { return true; },
      [&done, slow = std::shared_ptr<Slow>(new Slow{gone})](const absl::Status&) { done.set_value(); });
  done.get_future().wait();
  client.reset();
  EXPECT_TRUE(gone) << "a stream is left of a client that has ended";
}

TEST(Generate, AThousandAtOnceWithoutAThreadEach) {
  Arrangement given;
  given.engine.max_num_seqs = 256;
  given.fake.facts.pages_per_home = 8192;
  auto service = serving(given);
  const std::unique_ptr<Client> client = service->connect(4);
  constexpr int kStreams = 1000;
  constexpr uint32_t kTokens = 24;
  std::mutex mutex;
  std::vector<v1::GenerateResponse> answers(kStreams);
  std::vector<absl::Status> ends(kStreams, absl::UnknownError("not ended"));
  std::atomic<int> ended{0};
  for (int i = 0; i < kStreams; ++i) {
    // Most ask the same; every tenth is company of another length.
    const v1::GenerateRequest request =
        i % 10 == 9 ? request_of({i % 500, 7}, 1 + static_cast<uint32_t>(i) % 40) : request_of(kPrompt, kTokens);
    client->start(
        request, 60s,
        [&, i](const v1::GenerateResponse& response) {
          std::lock_guard lock(mutex);
          merge_response(response, answers[static_cast<size_t>(i)]);
          return true;
        },
        [&, i](const absl::Status& status) {
          std::lock_guard lock(mutex);
          ends[static_cast<size_t>(i)] = status;
          ++ended;
        });
  }
  std::ifstream proc("/proc/self/status");
  int threads = 0;
  for (std::string word; proc >> word;) {
    if (word == "Threads:") proc >> threads;
  }
  EXPECT_GT(threads, 0);
  EXPECT_LT(threads, 100);
  ASSERT_TRUE(soon([&] { return ended == kStreams; }, 60s)) << ended << " ended";
  const std::vector<int32_t> wanted = service->wanted(kPrompt, kTokens);
  std::set<std::string> digests;
  for (int i = 0; i < kStreams; ++i) {
    const auto& answer = answers[static_cast<size_t>(i)];
    ASSERT_TRUE(ends[static_cast<size_t>(i)].ok()) << i << ": " << ends[static_cast<size_t>(i)];
    ASSERT_TRUE(answer.finished());
    if (i % 10 == 9) {
      EXPECT_EQ(tokens_of(answer), service->wanted({i % 500, 7}, 1 + i % 40));
    } else {
      EXPECT_EQ(tokens_of(answer), wanted);
      digests.insert(answer.choices(0).response_digest());
    }
  }
  EXPECT_EQ(digests.size(), 1u);
  EXPECT_EQ(service->engine->stats().finished, static_cast<uint64_t>(kStreams));
  EXPECT_TRUE(soon([&] { return service->client->server_info(5s)->stats().open_streams() == 0; }));
}

TEST(Generate, CancellingFreesThePagesWithinAStep) {
  auto service = serving(paced(1ms));
  int responses = 0;
  const absl::Status status =
      service->client->generate(request_of(kPrompt, 20000), 20s, [&](const v1::GenerateResponse&) { return ++responses < 5; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(soon([&] {
    const EngineStats stats = service->engine->stats();
    return stats.aborted == 1 && stats.running == 0 && stats.pages_used == 0;
  }));
  EXPECT_EQ(service->engine->stats().finished, 0u);
}

TEST(Generate, AClientThatVanishesIsCancelled) {
  auto service = serving(paced(1ms));
  std::unique_ptr<Client> client = service->connect();
  std::promise<void> streaming;
  std::atomic<bool> told{false};
  std::atomic<int> ended{0};
  for (int i = 0; i < 3; ++i) {
    client->start(
        request_of(kPrompt, 20000), 60s,
        [&](const v1::GenerateResponse&) {
          if (!told.exchange(true)) streaming.set_value();
          return true;
        },
        [&](const absl::Status& status) {
          EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
          ++ended;
        });
  }
  ASSERT_EQ(streaming.get_future().wait_for(20s), std::future_status::ready);
  client.reset();
  EXPECT_EQ(ended, 3);
  EXPECT_TRUE(soon([&] { return service->engine->stats().aborted == 3 && service->engine->stats().running == 0; }));
}

TEST(Generate, TheDeadlineEndsItOnBothSides) {
  auto service = serving(paced(1ms));
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status =
      service->client->generate(request_of(kPrompt, 60000), 150ms, [](const v1::GenerateResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_TRUE(soon([&] { return service->engine->stats().aborted == 1; }));
}

TEST(Generate, AbortEndsTheStreamOfAnother) {
  auto service = serving(paced(1ms));
  v1::GenerateRequest request = request_of(kPrompt, 60000);
  request.set_request_id("victim");
  absl::Status aborted = absl::UnknownError("abort was not called");
  std::thread killer;
  const absl::Status status = service->client->generate(request, 20s, [&](const v1::GenerateResponse&) {
    if (!killer.joinable()) killer = std::thread([&] { aborted = service->client->abort("victim", 5s); });
    return true;
  });
  killer.join();
  EXPECT_TRUE(aborted.ok()) << aborted;
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("victim"));
  EXPECT_EQ(service->client->abort("victim", 5s).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(service->client->abort("", 5s).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Generate, BadRequestsNameTheFieldAndTheServerLives) {
  auto service = serving(Arrangement());
  struct Case {
    const char* field;
    std::function<void(v1::GenerateRequest&)> spoil;
  };
  const Case cases[] = {
      {"prompt", [](v1::GenerateRequest& r) { r.clear_input(); }},
      {"prompt", [](v1::GenerateRequest& r) { r.set_prompt("text without a tokenizer"); }},
      {"prompt_token_ids", [](v1::GenerateRequest& r) { r.mutable_prompt_token_ids()->clear_ids(); }},
      {"prompt_token_ids[3] = 512", [](v1::GenerateRequest& r) { r.mutable_prompt_token_ids()->set_ids(3, 512); }},
      {"prompt_token_ids[0] = -1", [](v1::GenerateRequest& r) { r.mutable_prompt_token_ids()->set_ids(0, -1); }},
      {"temperature", [](v1::GenerateRequest& r) { r.mutable_sampling_params()->set_temperature(-1); }},
      {"top_p", [](v1::GenerateRequest& r) { r.mutable_sampling_params()->set_top_p(7); }},
      {"n = 0", [](v1::GenerateRequest& r) { r.mutable_sampling_params()->set_n(0); }},
      {"max_tokens", [](v1::GenerateRequest& r) { r.mutable_sampling_params()->set_max_tokens(0); }},
      {"logprobs", [](v1::GenerateRequest& r) { r.mutable_sampling_params()->set_logprobs(1000); }},
      {"request_id", [](v1::GenerateRequest& r) { r.set_request_id(std::string(10000, 'x')); }},
  };
  for (const Case& c : cases) {
    v1::GenerateRequest request = request_of(kPrompt, 4);
    c.spoil(request);
    const absl::Status status = service->client->generate_whole(request, 10s).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
  }
  EXPECT_EQ(tokens_of(*service->client->generate_whole(request_of(kPrompt, 4), 10s)), service->wanted(kPrompt, 4));
}

TEST(Generate, AnIdInUseIsAlreadyExists) {
  auto service = serving(paced(1ms));
  v1::GenerateRequest request = request_of(kPrompt, 60000);
  request.set_request_id("twice");
  absl::Status second = absl::UnknownError("not asked");
  std::thread asking;
  service->client
      ->generate(request, 20s,
                 [&](const v1::GenerateResponse&) {
                   if (asking.joinable()) return second.code() == absl::StatusCode::kUnknown;
                   asking = std::thread([&] { second = service->client->generate_whole(request, 10s).status(); });
                   return true;
                 })
      .IgnoreError();
  asking.join();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists) << second;
}

TEST(Generate, AFullQueueAnswersResourceExhausted) {
  Arrangement given;
  given.engine.max_num_seqs = 1;
  given.engine.max_queued_requests = 2;
  given.fake.hang_at_step = 1;
  auto service = serving(given);
  std::atomic<int> ended{0};
  const auto ask = [&] {
    service->client->start(
        request_of(kPrompt, 4), 60s, [](const v1::GenerateResponse&) { return true; },
        [&](const absl::Status& status) {
          EXPECT_TRUE(status.ok()) << status;
          ++ended;
        });
  };
  ask();
  ASSERT_TRUE(soon([&] { return service->engine->stats().running == 1; }));
  ask();
  ask();
  ASSERT_TRUE(soon([&] { return service->engine->stats().waiting == 2; }));
  const absl::Status status = service->client->generate_whole(request_of(kPrompt, 4), 10s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_queued_requests = 2"));
  service->fakes[0]->release();
  EXPECT_TRUE(soon([&] { return ended == 3; }));
}

TEST(Generate, ARequestThatIsTooLargeIsRefusedUnread) {
  Arrangement given;
  given.server.max_request_bytes = 10000;
  auto service = serving(given);
  const absl::Status status = service->client->generate_whole(request_of(std::vector<int32_t>(20000, 300), 4), 10s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(service->engine->stats().rejected, 0u) << "it must not have come as far as the engine";
  EXPECT_TRUE(service->client->generate_whole(request_of(kPrompt, 4), 10s).ok());
}

// A client that does not read while `produced` tokens are made. Small windows, so that little is in the socket.
class LazyReader {
 public:
  LazyReader(const std::string& address, const v1::GenerateRequest& request) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
    args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = v1::Invar::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args));
    context_.set_deadline(std::chrono::system_clock::now() + 60s);
    reader_ = stub_->Generate(&context_, request);
  }
  grpc::Status read_all() {
    for (v1::GenerateResponse response; reader_->Read(&response); ++responses) merge_response(response, whole);
    return reader_->Finish();
  }

  int responses = 0;
  v1::GenerateResponse whole;

 private:
  std::unique_ptr<v1::Invar::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

v1::GenerateRequest wordy(uint32_t max_tokens) {
  v1::GenerateRequest request = request_of(kPrompt, max_tokens);
  request.mutable_sampling_params()->set_logprobs(20);  // about 400 bytes a token
  return request;
}

TEST(Generate, WhatASlowReaderMissedComesMergedAndWhole) {
  auto service = serving(Arrangement());
  constexpr uint32_t kTokens = 2000;
  LazyReader slow(service->server->addresses()[0], wordy(kTokens));
  ASSERT_TRUE(soon([&] { return service->engine->stats().finished == 1; }));
  const grpc::Status status = slow.read_all();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(tokens_of(slow.whole), service->wanted(kPrompt, kTokens));
  EXPECT_EQ(slow.whole.choices(0).logprobs_size(), static_cast<int>(kTokens));
  EXPECT_LT(slow.responses, 1000) << "nothing was merged";
}

TEST(Generate, AReaderTooSlowForTheBoundLosesItsRequestOnly) {
  Arrangement given;
  given.server.max_buffered_bytes = 20000;
  auto service = serving(given);
  LazyReader slow(service->server->addresses()[0], wordy(60000));
  ASSERT_TRUE(soon([&] { return service->engine->stats().aborted == 1; }))
      << "the engine must be free of it before anything is read";
  const auto other = service->client->generate_whole(request_of(kPrompt, 100), 10s);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(tokens_of(*other), service->wanted(kPrompt, 100));
  const grpc::Status status = slow.read_all();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("reads too slowly: more than 20000 bytes"));
  const std::vector<int32_t> got = tokens_of(slow.whole), wanted = service->wanted(kPrompt, static_cast<int64_t>(got.size()));
  EXPECT_EQ(got, wanted) << "what came before the end must still be a prefix";
}

TEST(Generate, ALostWorkerGroupIsUnavailableWithItsReason) {
  Arrangement given;
  given.fake.lose_at_step = 5;
  auto service = serving(given);
  const absl::Status status = service->client->generate_whole(request_of(kPrompt, 100), 10s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 on host b is gone, phase all-reduce, collective 17"));
  EXPECT_EQ(service->client->generate_whole(request_of(kPrompt, 1), 10s).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace invar::rpc
