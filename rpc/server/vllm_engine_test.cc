// vllm.grpc.engine.VllmEngine over real sockets and the real engine: what a gateway sees.
#include <grpcpp/create_channel.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "rpc/proto/health.grpc.pb.h"
#include "rpc/proto/vllm_engine.grpc.pb.h"
#include "rpc/server/service_harness.h"
#include "rpc/server/tokenizer_archive.h"
#include "runtime/receipt/sha256.h"

namespace invar::rpc {
namespace {

namespace vllm = ::vllm::grpc::engine;
namespace smg = ::smg::grpc::common;
using ::testing::HasSubstr;

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};
const std::filesystem::path kDemo = std::filesystem::path(INVAR_SOURCE_DIR) / "configs/models/demo-dense";

vllm::GenerateRequest asking(const std::vector<int32_t>& prompt, uint32_t max_tokens, bool stream) {
  vllm::GenerateRequest request;
  request.set_request_id(absl::StrCat("r", max_tokens, stream));
  request.mutable_tokenized()->mutable_input_ids()->Add(prompt.begin(), prompt.end());
  request.mutable_sampling_params()->set_temperature(0);
  request.mutable_sampling_params()->set_max_tokens(max_tokens);
  request.set_stream(stream);
  return request;
}

// Everything one call answered.
struct Answered {
  grpc::Status status;
  std::vector<vllm::GenerateStreamChunk> chunks;
  std::map<uint32_t, vllm::GenerateComplete> complete;
  std::multimap<std::string, std::string> trailers;
  bool ordered = true;  // no chunk of a choice after its end

  std::vector<int32_t> chunked(uint32_t index = 0) const {
    std::vector<int32_t> ids;
    for (const auto& chunk : chunks)
      if (chunk.index() == index) ids.insert(ids.end(), chunk.token_ids().begin(), chunk.token_ids().end());
    return ids;
  }
  std::vector<int32_t> whole(uint32_t index = 0) const {
    const auto& ids = complete.at(index).output_ids();
    return {ids.begin(), ids.end()};
  }
  std::string trailer(const std::string& key) const { return trailers.count(key) == 1 ? trailers.find(key)->second : "not once"; }
};

class Gateway {
 public:
  explicit Gateway(const Service& service) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    channel_ = grpc::CreateCustomChannel(service.server->addresses()[0], grpc::InsecureChannelCredentials(), args);
    stub = vllm::VllmEngine::NewStub(channel_);
  }

  Answered generate(const vllm::GenerateRequest& request, const std::function<void()>& at_first_chunk = nullptr) {
    Answered out;
    const auto context = call();
    auto reader = stub->Generate(context.get(), request);
    for (vllm::GenerateResponse response; reader->Read(&response);) {
      if (response.has_chunk()) {
        if (out.chunks.empty() && at_first_chunk != nullptr) at_first_chunk();
        out.ordered = out.ordered && !out.complete.contains(response.chunk().index());
        out.chunks.push_back(response.chunk());
      } else {
        EXPECT_FALSE(out.complete.contains(response.complete().index())) << "a choice ended twice";
        out.complete[response.complete().index()] = response.complete();
      }
    }
    out.status = reader->Finish();
    for (const auto& [key, value] : context->GetServerTrailingMetadata())
      out.trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
    return out;
  }

  template <class Request, class Response>
  grpc::Status unary(grpc::Status (vllm::VllmEngine::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, Response* response) {
    return (stub.get()->*method)(call().get(), request, response);
  }

  std::unique_ptr<grpc::ClientContext> call() const {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + 30s);
    if (!key.empty()) context->AddMetadata("authorization", absl::StrCat("Bearer ", key));
    return context;
  }

  std::unique_ptr<vllm::VllmEngine::Stub> stub;
  std::string key;

 private:
  std::shared_ptr<grpc::Channel> channel_;
};

std::shared_ptr<const Tokenizer> demo_tokenizer() {
  const absl::StatusOr<std::shared_ptr<const Tokenizer>> tokenizer = Tokenizer::load(kDemo);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TEST(VllmEngine, StreamedOrWholeTheAnswerIsInvarsOwn) {
  auto service = serving(Arrangement());
  Gateway gateway(*service);
  const auto ours = service->client->generate_whole(request_of(kPrompt, 50), 20s);
  ASSERT_TRUE(ours.ok()) << ours.status();
  for (const bool stream : {true, false}) {
    const Answered answer = gateway.generate(asking(kPrompt, 50, stream));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    ASSERT_EQ(answer.complete.size(), 1u);
    EXPECT_EQ(answer.whole(), tokens_of(*ours));
    EXPECT_EQ(answer.chunked(), stream ? tokens_of(*ours) : std::vector<int32_t>());
    EXPECT_TRUE(answer.ordered);
    const vllm::GenerateComplete& complete = answer.complete.at(0);
    EXPECT_EQ(complete.finish_reason(), "length");
    EXPECT_EQ(complete.matched_stop_case(), vllm::GenerateComplete::MATCHED_STOP_NOT_SET);
    EXPECT_EQ(complete.prompt_tokens(), kPrompt.size());
    EXPECT_EQ(complete.completion_tokens(), 50u);
    EXPECT_EQ(answer.trailer("invar-response-digest"), ours->choices(0).response_digest());
    EXPECT_EQ(answer.trailer("invar-numerics-id"), "N1");
    EXPECT_EQ(answer.trailer("invar-model-digest"), "D1");
    uint32_t counted = 0;
    for (const auto& chunk : answer.chunks) {
      EXPECT_EQ(chunk.prompt_tokens(), kPrompt.size());
      counted += chunk.completion_tokens();
    }
    EXPECT_EQ(counted, stream ? 50u : 0u);
  }
  // Control arm: another prompt has another digest.
  std::vector<int32_t> other = kPrompt;
  other[0] ^= 1;
  EXPECT_NE(gateway.generate(asking(other, 50, true)).trailer("invar-response-digest"), ours->choices(0).response_digest());
}

TEST(VllmEngine, EveryChoiceHasItsChunksAndItsEnd) {
  auto service = serving(Arrangement());
  Gateway gateway(*service);
  vllm::GenerateRequest request = asking(kPrompt, 20, true);
  request.mutable_sampling_params()->set_n(3);
  request.mutable_sampling_params()->set_temperature(1);
  request.mutable_sampling_params()->set_seed(7);
  v1::GenerateRequest same = request_of(kPrompt, 20, 1);
  same.mutable_sampling_params()->set_n(3);
  same.mutable_sampling_params()->set_seed(7);
  const auto ours = service->client->generate_whole(same, 20s);
  ASSERT_TRUE(ours.ok()) << ours.status();
  const Answered answer = gateway.generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.complete.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    std::vector<int32_t> wanted;
    for (const auto& choice : ours->choices())
      if (choice.index() == i) wanted.assign(choice.token_ids().begin(), choice.token_ids().end());
    EXPECT_EQ(answer.chunked(i), wanted);
    EXPECT_EQ(answer.whole(i), wanted);
  }
  EXPECT_NE(answer.whole(0), answer.whole(1));
  EXPECT_TRUE(answer.ordered);
  EXPECT_EQ(answer.trailers.count("invar-response-digest"), 0u) << "there is not one digest for three choices";
}

TEST(VllmEngine, StopsSayWhatMatched) {
  Arrangement given;
  given.tokenizer = demo_tokenizer();
  ASSERT_NE(given.tokenizer, nullptr);
  auto service = serving(given);
  Gateway gateway(*service);
  const std::vector<int32_t> plain = service->wanted(kPrompt, 40);

  vllm::GenerateRequest by_id = asking(kPrompt, 40, true);
  by_id.mutable_sampling_params()->add_stop_token_ids(static_cast<uint32_t>(plain[10]));
  const Answered stopped = gateway.generate(by_id);
  ASSERT_TRUE(stopped.status.ok()) << stopped.status.error_message();
  EXPECT_EQ(stopped.complete.at(0).finish_reason(), "stop");
  EXPECT_EQ(stopped.complete.at(0).matched_token_id(), static_cast<uint32_t>(plain[10]));
  EXPECT_EQ(stopped.complete.at(0).matched_stop_case(), vllm::GenerateComplete::kMatchedTokenId);
  const auto first = std::find(plain.begin(), plain.end(), plain[10]);
  EXPECT_EQ(stopped.whole(), std::vector<int32_t>(plain.begin(), first + 1));

  const std::string text = given.tokenizer->decode(plain, true);
  ASSERT_GT(text.size(), 12u);
  vllm::GenerateRequest by_text = asking(kPrompt, 40, false);
  by_text.mutable_sampling_params()->add_stop("never to be found in it");
  by_text.mutable_sampling_params()->add_stop(text.substr(6, 4));
  by_text.mutable_sampling_params()->set_skip_special_tokens(true);
  const Answered cut = gateway.generate(by_text);
  ASSERT_TRUE(cut.status.ok()) << cut.status.error_message();
  EXPECT_EQ(cut.complete.at(0).finish_reason(), "stop");
  EXPECT_EQ(cut.complete.at(0).matched_stop_str(), text.substr(6, 4));
  EXPECT_LT(cut.whole().size(), 40u);

  // A stop string of digits is a string.
  vllm::GenerateRequest digits = asking(kPrompt, 200, false);
  digits.mutable_sampling_params()->set_skip_special_tokens(true);
  for (const char* d : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) digits.mutable_sampling_params()->add_stop(d);
  const Answered digit = gateway.generate(digits);
  ASSERT_TRUE(digit.status.ok()) << digit.status.error_message();
  EXPECT_EQ(digit.complete.at(0).finish_reason(), "stop");
  EXPECT_EQ(digit.complete.at(0).matched_stop_case(), vllm::GenerateComplete::kMatchedStopStr);
}

TEST(VllmEngine, LogprobsOfPromptAndAnswer) {
  auto service = serving(Arrangement());
  Gateway gateway(*service);
  v1::GenerateRequest same = request_of(kPrompt, 12);
  same.mutable_sampling_params()->set_logprobs(3);
  same.mutable_sampling_params()->set_prompt_logprobs(2);
  const auto ours = service->client->generate_whole(same, 20s);
  ASSERT_TRUE(ours.ok()) << ours.status();
  for (const bool stream : {true, false}) {
    vllm::GenerateRequest request = asking(kPrompt, 12, stream);
    request.mutable_sampling_params()->set_logprobs(3);
    request.mutable_sampling_params()->set_prompt_logprobs(2);
    const Answered answer = gateway.generate(request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    vllm::OutputLogProbs got = answer.complete.at(0).output_logprobs();
    vllm::InputLogProbs prompt = answer.complete.at(0).input_logprobs();
    if (stream) {
      EXPECT_EQ(got.token_ids_size(), 0) << "the chunks have them";
      for (const auto& chunk : answer.chunks) got.MergeFrom(chunk.output_logprobs());
      ASSERT_FALSE(answer.chunks.empty());
      prompt = answer.chunks[0].input_logprobs();
    }
    ASSERT_EQ(got.token_logprobs_size(), 12);
    ASSERT_EQ(got.token_ids_size(), 12);
    ASSERT_EQ(got.top_logprobs_size(), 12);
    for (int i = 0; i < 12; ++i) {
      const v1::TokenLogprobs& wanted = ours->choices(0).logprobs(i);
      EXPECT_EQ(got.token_logprobs(i), wanted.chosen().logprob());
      EXPECT_EQ(got.token_ids(i), static_cast<uint32_t>(wanted.chosen().token_id()));
      ASSERT_EQ(got.top_logprobs(i).values_size(), wanted.top_size());
      for (int k = 0; k < wanted.top_size(); ++k) {
        EXPECT_EQ(got.top_logprobs(i).values(k), wanted.top(k).logprob());
        EXPECT_EQ(got.top_logprobs(i).token_ids(k), static_cast<uint32_t>(wanted.top(k).token_id()));
      }
    }
    ASSERT_EQ(prompt.token_ids_size(), static_cast<int>(kPrompt.size()));
    ASSERT_EQ(prompt.token_logprobs_size(), static_cast<int>(kPrompt.size()));
    ASSERT_EQ(prompt.top_logprobs_size(), static_cast<int>(kPrompt.size()));
    EXPECT_FALSE(prompt.token_logprobs(0).has_value());
    for (size_t i = 1; i < kPrompt.size(); ++i) {
      const int at = static_cast<int>(i);
      EXPECT_EQ(prompt.token_ids(at), static_cast<uint32_t>(kPrompt[i]));
      EXPECT_EQ(prompt.token_logprobs(at).value(), ours->prompt_logprobs(at - 1).chosen().logprob());
    }
  }
}

// What the request leaves out is this interface's default, whatever the model's generation_config.json says.
TEST(VllmEngine, DefaultsAreTheInterfaces) {
  Arrangement given;
  given.fake.facts.max_positions = 64;
  given.tokenizer = demo_tokenizer();
  auto service = serving(given);
  Gateway gateway(*service);
  vllm::GenerateRequest request;
  request.set_request_id("bare");
  request.set_text("Once upon a time");
  request.mutable_sampling_params()->set_ignore_eos(true);
  const Answered answer = gateway.generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  const auto prompt = given.tokenizer->encode("Once upon a time", true);
  EXPECT_EQ(answer.complete.at(0).prompt_tokens(), prompt->size());
  EXPECT_EQ(answer.whole().size(), 64 - prompt->size()) << "max_tokens is what the context leaves";
}

TEST(VllmEngine, WhatItCannotHonourIsRefusedByName) {
  auto service = serving(Arrangement());
  Gateway gateway(*service);
  struct Case {
    const char* says;
    grpc::StatusCode code;
    std::function<void(vllm::GenerateRequest&)> spoil;
  };
  const auto bad = grpc::StatusCode::INVALID_ARGUMENT, not_here = grpc::StatusCode::UNIMPLEMENTED;
  const Case cases[] = {
      {"input: neither", bad, [](auto& r) { r.clear_input(); }},
      {"text: ", bad, [](auto& r) { r.set_text("there is no tokenizer"); }},
      {"tokenized.input_ids is empty", bad, [](auto& r) { r.mutable_tokenized()->clear_input_ids(); }},
      {"tokenized.input_ids[2] = 4294967295", bad, [](auto& r) { r.mutable_tokenized()->set_input_ids(2, 0xFFFFFFFFu); }},
      {"[3] = 512", bad, [](auto& r) { r.mutable_tokenized()->set_input_ids(3, 512); }},
      {"mm_inputs", not_here, [](auto& r) { r.mutable_mm_inputs(); }},
      {"extra_mm_inputs", not_here, [](auto& r) { r.add_extra_mm_inputs(); }},
      {"media_refs", not_here, [](auto& r) { r.mutable_media_refs(); }},
      {"kv_transfer_params", not_here, [](auto& r) { r.mutable_kv_transfer_params(); }},
      {"kv_transfer_params_json", not_here, [](auto& r) { r.set_kv_transfer_params_json("{}"); }},
      {"truncate_prompt_tokens", not_here, [](auto& r) { r.mutable_sampling_params()->set_truncate_prompt_tokens(4); }},
      {"structural_tag", not_here, [](auto& r) { r.mutable_sampling_params()->set_structural_tag("{}"); }},
      {"data_parallel_rank = 1", bad, [](auto& r) { r.set_data_parallel_rank(1); }},
      {"temperature", bad, [](auto& r) { r.mutable_sampling_params()->set_temperature(-1); }},
      {"top_p", bad, [](auto& r) { r.mutable_sampling_params()->set_top_p(1.5); }},
      {"top_k = 4294967295", bad, [](auto& r) { r.mutable_sampling_params()->set_top_k(0xFFFFFFFFu); }},
      {"min_p", bad, [](auto& r) { r.mutable_sampling_params()->set_min_p(2); }},
      {"repetition_penalty", bad, [](auto& r) { r.mutable_sampling_params()->set_repetition_penalty(-1); }},
      {"presence_penalty", bad, [](auto& r) { r.mutable_sampling_params()->set_presence_penalty(3); }},
      {"frequency_penalty", bad, [](auto& r) { r.mutable_sampling_params()->set_frequency_penalty(3); }},
      {"max_tokens", bad, [](auto& r) { r.mutable_sampling_params()->set_max_tokens(0); }},
      {"min_tokens", bad, [](auto& r) { r.mutable_sampling_params()->set_min_tokens(99); }},
      {"logprobs = -1", bad, [](auto& r) { r.mutable_sampling_params()->set_logprobs(-1); }},
      {"prompt_logprobs = -1", bad, [](auto& r) { r.mutable_sampling_params()->set_prompt_logprobs(-1); }},
      {"seed = -2", bad, [](auto& r) { r.mutable_sampling_params()->set_seed(-2); }},
      {"stop_token_ids[0] = 99999", bad, [](auto& r) { r.mutable_sampling_params()->add_stop_token_ids(99999); }},
      {"stop[0]", bad, [](auto& r) { r.mutable_sampling_params()->add_stop(""); }},
      {"n = 5000", bad, [](auto& r) { r.mutable_sampling_params()->set_n(5000); }},
      {"json_object = false", bad, [](auto& r) { r.mutable_sampling_params()->set_json_object(false); }},
      {"choice.choices is empty", bad, [](auto& r) { r.mutable_sampling_params()->mutable_choice(); }},
  };
  for (const Case& c : cases) {
    vllm::GenerateRequest request = asking(kPrompt, 4, true);
    c.spoil(request);
    const Answered answer = gateway.generate(request);
    EXPECT_EQ(answer.status.error_code(), c.code) << c.says << ": " << answer.status.error_message();
    EXPECT_THAT(answer.status.error_message(), HasSubstr(c.says));
    EXPECT_TRUE(answer.chunks.empty() && answer.complete.empty());
  }
  EXPECT_EQ(gateway.generate(asking(kPrompt, 4, true)).whole(), service->wanted(kPrompt, 4));

  vllm::EmbedResponse embed;
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::Embed, vllm::EmbedRequest(), &embed).error_code(), not_here);
  smg::ProfileResponse profile;
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::StartProfile, smg::StartProfileRequest(), &profile).error_code(), not_here);
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::StopProfile, smg::StopProfileRequest(), &profile).error_code(), not_here);
  const auto context = gateway.call();
  auto events = gateway.stub->SubscribeKvEvents(context.get(), smg::SubscribeKvEventsRequest());
  smg::KvEventBatch batch;
  EXPECT_FALSE(events->Read(&batch));
  EXPECT_EQ(events->Finish().error_code(), not_here);
}

TEST(VllmEngine, AnAbortEndsItWithWhatThereIs) {
  Arrangement given;
  given.fake.tamper = [](v1::StepResult*) { std::this_thread::sleep_for(1ms); };
  auto service = serving(given);
  Gateway gateway(*service);
  vllm::GenerateRequest request = asking(kPrompt, 60000, true);
  request.set_request_id("victim");
  std::thread killer;
  const Answered answer = gateway.generate(request, [&] {
    killer = std::thread([&] {
      vllm::AbortRequest abort;
      abort.add_request_ids("nobody");
      abort.add_request_ids("victim");
      vllm::AbortResponse response;
      Gateway other(*service);
      EXPECT_TRUE(other.unary(&vllm::VllmEngine::Stub::Abort, abort, &response).ok());
    });
  });
  ASSERT_TRUE(killer.joinable());
  killer.join();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.complete.size(), 1u);
  EXPECT_EQ(answer.complete.at(0).finish_reason(), "abort");
  EXPECT_EQ(answer.whole(), answer.chunked());
  EXPECT_EQ(answer.whole(), service->wanted(kPrompt, static_cast<int64_t>(answer.whole().size())));
  EXPECT_EQ(service->engine->stats().aborted, 1u);

  // A client that hangs up instead frees its pages all the same.
  auto context = gateway.call();
  request.set_request_id("other");
  auto reader = gateway.stub->Generate(context.get(), request);
  vllm::GenerateResponse response;
  EXPECT_TRUE(reader->Read(&response));
  context->TryCancel();
  EXPECT_TRUE(soon([&] { return service->engine->stats().aborted == 2 && service->engine->stats().pages_used == 0; }));
}

TEST(VllmEngine, TellsOfModelServerAndLoad) {
  auto service = serving(Arrangement());
  Gateway gateway(*service);
  ASSERT_TRUE(gateway.generate(asking(kPrompt, 9, false)).status.ok());
  vllm::GetModelInfoResponse model;
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::GetModelInfo, vllm::GetModelInfoRequest(), &model).ok());
  EXPECT_TRUE(model.is_generation());
  EXPECT_FALSE(model.supports_vision());
  EXPECT_EQ(model.served_model_name(), "fake");
  EXPECT_EQ(model.vocab_size(), 512u);
  EXPECT_EQ(model.max_context_length(), 65536u);
  EXPECT_EQ(model.max_req_input_len(), 65535);
  EXPECT_EQ(model.default_sampling_params_json(), "");
  vllm::GetServerInfoResponse server;
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::GetServerInfo, vllm::GetServerInfoRequest(), &server).ok());
  EXPECT_EQ(server.server_type(), "invar");
  EXPECT_EQ(server.data_parallel_size(), 1);
  EXPECT_EQ(server.block_size(), 16);
  EXPECT_EQ(server.max_num_seqs(), 256);
  vllm::GetLoadsResponse loads;
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::GetLoads, vllm::GetLoadsRequest(), &loads).ok());
  ASSERT_EQ(loads.loads_size(), 1);
  EXPECT_EQ(loads.loads(0).num_total_reqs(), 0);
  EXPECT_EQ(loads.loads(0).max_total_num_tokens(), 4096 * 16);
  EXPECT_EQ(loads.loads(0).max_running_requests(), 256);
  smg::FlushCacheResponse flushed;
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::FlushCache, smg::FlushCacheRequest(), &flushed).ok());
  EXPECT_TRUE(flushed.success());
  smg::FlushCacheRequest hostile;
  hostile.set_timeout_s(-1);
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::FlushCache, hostile, &flushed).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(VllmEngine, WhileLoadingItSaysSo) {
  Service service{Arrangement()};
  service.server->set_progress("waiting for replica 1 of 2");
  Gateway gateway(service);
  vllm::HealthCheckResponse health;
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::HealthCheck, vllm::HealthCheckRequest(), &health).ok());
  EXPECT_FALSE(health.healthy());
  EXPECT_EQ(health.message(), "waiting for replica 1 of 2");
  EXPECT_EQ(gateway.generate(asking(kPrompt, 4, true)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  vllm::GetModelInfoResponse model;
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::GetModelInfo, vllm::GetModelInfoRequest(), &model).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  vllm::GetServerInfoResponse server;
  EXPECT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::GetServerInfo, vllm::GetServerInfoRequest(), &server).ok());
  const char* name = "vllm.grpc.engine.VllmEngine";
  EXPECT_EQ(service.client->check_health(name, 5s).code(), absl::StatusCode::kUnavailable);
  service.serve();
  ASSERT_TRUE(soon([&] { return service.client->check_health(name, 5s).ok(); }));
  ASSERT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::HealthCheck, vllm::HealthCheckRequest(), &health).ok());
  EXPECT_TRUE(health.healthy());
}

TEST(VllmEngine, GivesOutTheTokenizer) {
  Arrangement given;
  given.tokenizer = demo_tokenizer();
  Service service{given};
  service.serve();
  v1::ServerInfo info;
  info.set_tokenizer_path(kDemo.string());
  service.server->serve(service.engine, info);
  Gateway gateway(service);
  const auto context = gateway.call();
  auto reader = gateway.stub->GetTokenizer(context.get(), smg::GetTokenizerRequest());
  std::string archive, sha256;
  for (smg::GetTokenizerChunk chunk; reader->Read(&chunk);) {
    EXPECT_EQ(sha256, "") << "a chunk after the last";
    EXPECT_LE(chunk.data().size(), 65536u);
    archive += chunk.data();
    sha256 = chunk.sha256();
  }
  EXPECT_TRUE(reader->Finish().ok());
  receipt::Sha256 hash;
  EXPECT_EQ(sha256, receipt::hex(hash.bytes(archive.data(), archive.size()).finish()));
  const std::string path = absl::StrCat("/tmp/invar_tokenizer_", getpid(), ".zip");
  std::ofstream(path, std::ios::binary) << archive;
  EXPECT_EQ(
      std::system(absl::StrCat("python3 -c \"import zipfile; z = zipfile.ZipFile('", path, "'); assert z.testzip() is None; ",
                               "assert z.read('tokenizer.json') == open('", (kDemo / "tokenizer.json").string(),
                               "', 'rb').read(); assert 'model.safetensors' not in z.namelist()\"")
                      .c_str()),
      0);
  std::filesystem::remove(path);

  Service without{Arrangement()};
  without.serve();
  Gateway other(without);
  const auto asked = other.call();
  auto nothing = other.stub->GetTokenizer(asked.get(), smg::GetTokenizerRequest());
  smg::GetTokenizerChunk chunk;
  EXPECT_FALSE(nothing->Read(&chunk));
  EXPECT_EQ(nothing->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST(VllmEngine, KeysAreAskedForButForHealth) {
  Arrangement given;
  given.server.api_keys = {"first key", "second-key"};
  auto service = std::make_unique<Service>(given);
  service->serve();
  Gateway gateway(*service);
  const auto code = [&] { return gateway.generate(asking(kPrompt, 2, true)).status.error_code(); };
  EXPECT_EQ(code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(gateway.generate(asking(kPrompt, 2, true)).status.error_message(), HasSubstr("authorization"));
  gateway.key = "second";
  EXPECT_EQ(code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(gateway.generate(asking(kPrompt, 2, true)).status.error_message().find("second"), std::string::npos)
      << "a key in a message may come into a log";
  gateway.key = "second-key";
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  gateway.key = "first key";
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  gateway.key = "";
  vllm::HealthCheckResponse health;
  EXPECT_TRUE(gateway.unary(&vllm::VllmEngine::Stub::HealthCheck, vllm::HealthCheckRequest(), &health).ok());
  vllm::GetModelInfoResponse model;
  EXPECT_EQ(gateway.unary(&vllm::VllmEngine::Stub::GetModelInfo, vllm::GetModelInfoRequest(), &model).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  // invar.v1 alike.
  EXPECT_EQ(service->client->generate_whole(request_of({1}, 1), 5s).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->client->server_info(5s).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->client->flush_cache(5s).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->client->abort("x", 5s).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->client->tokenize("x", true, 5s).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->client->detokenize({1}, true, 5s).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(service->engine->stats().rejected, 0u) << "nothing came as far as the engine";
}

}  // namespace
}  // namespace invar::rpc
