// /metrics of real ranks: one stalls, and the metrics say which, in which collective, and for how long.
#include <cmath>

#include "rpc/http/http_harness.h"
#include "runtime/worker/local_executor.h"
#include "runtime/worker/stalling_transport.h"

namespace invar::http {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The sample of `name` with exactly these labels besides the model's; -1 = there is none.
double metric(const std::string& text, const std::string& name, const std::string& labels) {
  const std::string begin = absl::StrCat("\n", name, "{model_name=\"fake\",", labels, "} ");
  const size_t at = text.find(begin);
  return at == std::string::npos ? -1 : std::stod(text.substr(at + begin.size()));
}

class RanksOverHttp {
 public:
  RanksOverHttp(const parallel::Layout& layout, std::shared_ptr<Stall> stall) : service_(HttpArrangement(), /*serving=*/false) {
    auto opened = open_model({.path = INVAR_SOURCE_DIR "/configs/models/demo-moe"});
    EXPECT_TRUE(opened.ok()) << opened.status();
    model_ = std::make_unique<LoadedModel>(*std::move(opened));
    std::vector<std::unique_ptr<Executor>> replicas;
    for (int replica = 0; replica < layout.dp; ++replica) {
      LocalOptions options;
      options.rank.layout = layout;
      options.rank.device.threads = 1;
      options.rank.pages = 64;
      options.first_rank = replica * layout.replica();
      if (replica == 0) options.wrap = [stall](std::unique_ptr<parallel::Transport> t) { return stalling(std::move(t), stall); };
      auto executor = LocalExecutor::start(*model_, "a digest", options, {});
      EXPECT_TRUE(executor.ok()) << executor.status();
      replicas.push_back(*std::move(executor));
    }
    auto started = Engine::start({}, model_->config, HttpArrangement().rpc.tokenizer, std::move(replicas));
    EXPECT_TRUE(started.ok()) << started.status();
    service_.rpc.engine = *std::move(started);
    service_.rpc.server->serve(service_.rpc.engine, {});
  }
  ~RanksOverHttp() { service_.rpc.engine->shutdown(10s); }
  std::string metrics() const { return service_.get("/metrics").body; }
  const HttpService& service() const { return service_; }

 private:
  HttpService service_;
  std::unique_ptr<LoadedModel> model_;
};

TEST(RankMetrics, NameTheRankThatStalls) {
  const auto stall = std::make_shared<Stall>();
  stall->rank = 1;
  stall->after_exchange = 60;
  RanksOverHttp ranks({.tp = 3, .dp = 2}, stall);
  const std::string idle = ranks.metrics();
  for (const char* labels :
       {"replica=\"0\",rank=\"0\"", "replica=\"0\",rank=\"2\"", "replica=\"1\",rank=\"3\"", "replica=\"1\",rank=\"5\""}) {
    for (const char* name : {"invar_rank_steps_total", "invar_rank_step_age_seconds", "invar_rank_progress_age_seconds",
                             "invar_rank_collectives_begun_total", "invar_rank_collectives_finished_total", "invar_rank_waiting"})
      EXPECT_EQ(metric(idle, name, labels), 0) << name << labels;
    EXPECT_GE(metric(idle, "invar_rank_heard_age_seconds", labels), 0) << labels;
  }
  EXPECT_EQ(metric(idle, "invar_rank_steps_total", "replica=\"0\",rank=\"3\""), -1);

  HttpClient client(ranks.service().address());
  client.send(request_text("POST", "/v1/completions", completion({3, 1, 4}, 24).dump()));
  const auto of = [](const std::string& text, const char* name, int rank) {
    return metric(text, name, absl::StrCat("replica=\"0\",rank=\"", rank, "\""));
  };
  std::string text;
  ASSERT_TRUE(soon([&] { return of(text = ranks.metrics(), "invar_rank_progress_age_seconds", 1) > 0.3; }));
  // All three wait; one of them has fewer collectives than the others of its group.
  const double behind = of(text, "invar_rank_collectives_begun_total", 1);
  EXPECT_EQ(behind, 60);
  for (const int other : {0, 2}) {
    EXPECT_GT(of(text, "invar_rank_collectives_begun_total", other), behind);
    EXPECT_EQ(of(text, "invar_rank_collectives_finished_total", other),
              of(text, "invar_rank_collectives_begun_total", other) - 1);
    EXPECT_EQ(of(text, "invar_rank_waiting", other), 1);
    EXPECT_GT(of(text, "invar_rank_step_age_seconds", other), 0.3);
  }
  EXPECT_THAT(
      text,
      HasSubstr(
          "invar_rank_collective_number{model_name=\"fake\",replica=\"0\",rank=\"0\",phase=\"tree all-reduce (gather)\"} "));
  EXPECT_THAT(text, HasSubstr("invar_rank_info{model_name=\"fake\",replica=\"0\",rank=\"1\",host=\""));
  // The other replica has nothing to do, and says so.
  EXPECT_EQ(metric(text, "invar_rank_step_age_seconds", "replica=\"1\",rank=\"4\""), 0);
  // It goes on growing.
  const double age = of(text, "invar_rank_progress_age_seconds", 1), step_age = of(text, "invar_rank_step_age_seconds", 1);
  std::this_thread::sleep_for(200ms);
  text = ranks.metrics();
  EXPECT_GE(of(text, "invar_rank_progress_age_seconds", 1), age + 0.2);
  EXPECT_GE(of(text, "invar_rank_step_age_seconds", 1), step_age + 0.2);
  EXPECT_EQ(of(text, "invar_rank_collectives_begun_total", 1), behind);

  stall->release();
  EXPECT_EQ(client.read().status, 200);
  ASSERT_TRUE(soon([&] { return of(text = ranks.metrics(), "invar_rank_step_age_seconds", 1) == 0; }));
  ASSERT_TRUE(soon([&] {
    text = ranks.metrics();
    return of(text, "invar_rank_steps_total", 0) == of(text, "invar_rank_steps_total", 1) &&
           of(text, "invar_rank_collectives_begun_total", 0) == of(text, "invar_rank_collectives_begun_total", 1);
  })) << text;
  EXPECT_GE(of(text, "invar_rank_steps_total", 1), 24);
  EXPECT_EQ(of(text, "invar_rank_waiting", 1), 0);
}

TEST(RankMetrics, QueueTimeMismatchesAndTheEnginesTime) {
  HttpArrangement given;
  given.rpc.engine.max_num_seqs = 1;
  HttpService service(given);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(service.post("/v1/completions", completion({1, 2, 3}, 10)).status, 200);
  Json other = completion({1, 2, 3}, 10);
  other["invar"] = {{"require_model_digest", "D9"}};
  EXPECT_EQ(service.post("/v1/completions", other).status, 412);
  v1::GenerateRequest over_grpc = rpc::request_of({1, 2}, 3);
  over_grpc.set_require_model_digest("D9");
  EXPECT_FALSE(service.rpc.client->generate_whole(over_grpc, 10s).ok());
  // An answer that this server would not have given.
  v1::GenerateRequest forced = rpc::request_of({1, 2, 3}, 4);
  for (const int32_t id : service.rpc.wanted({1, 2, 3}, 4)) forced.mutable_forced_token_ids()->add_ids(id);
  ASSERT_TRUE(service.rpc.client->generate_whole(forced, 10s).ok());
  forced.mutable_forced_token_ids()->set_ids(1, (forced.forced_token_ids().ids(1) + 1) % 2048);
  ASSERT_TRUE(service.rpc.client->generate_whole(forced, 10s).ok());
  ++service.rpc.server->state()->metrics()->rank_mismatches[3];
  const std::string text = service.get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("\ninvar_request_queue_time_seconds_count{model_name=\"fake\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("\ninvar_request_queue_time_seconds_bucket{model_name=\"fake\",le=\"0.3\"} "));
  EXPECT_EQ(metric(text, "invar_digest_mismatches_total", "kind=\"required_model\""), 2) << "HTTP and gRPC";
  EXPECT_GE(metric(text, "invar_digest_mismatches_total", "kind=\"verification\""), 1);
  EXPECT_EQ(metric(text, "invar_digest_mismatches_total", "kind=\"rank_model\""), 1);
  EXPECT_EQ(metric(text, "invar_digest_mismatches_total", "kind=\"rank_build\""), 0);
  EXPECT_EQ(metric(text, "invar_digest_mismatches_total", "kind=\"rank_numerics_id\""), 0);
  for (const char* part : {"requests", "plans", "results", "answers", "statistics"})
    EXPECT_GT(metric(text, "invar_engine_busy_seconds_total", absl::StrCat("part=\"", part, "\"")), 0) << part;
  EXPECT_THAT(text, Not(HasSubstr("invar_rank_steps_total"))) << "these ranks report nothing";
}

}  // namespace
}  // namespace invar::http
