// invar bench: throughput and latency under load, of a server or of an engine in this process; and what invariance costs.
#include <unistd.h>

#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "launch/load_report.h"
#include "launch/local_engine.h"
#include "launch/security_flags.h"
#include "launch/server_address.h"
#include "rpc/client/client.h"

namespace invar::launch {
namespace {

struct Flags {
  ServerAddress address;
  bool local = false;
  ClientSecurityFlags security;
  int64_t wait = 10;
  int64_t timeout = 600;
  RankFlags ranks;
  EngineFlags engine;
  std::vector<const CLI::Option*> engine_only;  // mean nothing to a running server
  LoadOptions load;
  bool price = false;
  int64_t price_rounds = 5;
  bool json = false;
};

LoadTarget target_of(Engine& engine) {
  return {.start =
              [&engine](const v1::GenerateRequest& request, std::function<void(const v1::GenerateResponse&)> on_response,
                        std::function<void(const absl::Status&)> on_done) {
                const auto id =
                    engine.submit(request, [on_response, on_done](const absl::Status& status, const v1::GenerateResponse* r) {
                      if (!status.ok()) return on_done(status);
                      on_response(*r);
                      if (r->finished()) on_done(absl::OkStatus());
                    });
                if (!id.ok()) on_done(id.status());
              },
          .give_up = [&engine] { engine.shutdown(std::chrono::seconds(10)); }};
}

LoadTarget target_of(rpc::Client& client, int64_t timeout) {
  return {.start =
              [&client, timeout](const v1::GenerateRequest& request, std::function<void(const v1::GenerateResponse&)> on_response,
                                 std::function<void(const absl::Status&)> on_done) {
                client.start(
                    request, std::chrono::seconds(timeout),
                    [on_response = std::move(on_response)](const v1::GenerateResponse& r) {
                      on_response(r);
                      return true;
                    },
                    std::move(on_done));
              },
          .give_up = [] {}};  // each call has its deadline
}

// What ran, in words and for machines.
nlohmann::ordered_json facts_of(const Engine& engine) {
  const ReplicaFacts& f = engine.facts();
  return {{"layout", f.layout}, {"numerics_id", f.numerics_id}, {"model_digest", f.model_digest}};
}

void print(const Flags& flags, const nlohmann::ordered_json& facts, const LoadPlan& plan, const LoadReport& report) {
  if (flags.json) {
    nlohmann::ordered_json j = facts;
    j.update(to_json(report));
    j["clipped"] = plan.clipped;
    std::cout << j.dump() << std::endl;
    return;
  }
  std::cout << "layout " << facts["layout"].get<std::string>() << ", numerics id " << facts["numerics_id"].get<std::string>()
            << "\n";
  if (plan.clipped)
    std::cout << plan.clipped << " of " << plan.requests.size() << " requests of the trace were cut to the model's context\n";
  std::cout << to_text(report) << std::flush;
}

int code_of(const LoadReport& report) { return report.failed ? kExitFailed : 0; }

int bench_server(const Flags& flags) {
  for (const CLI::Option* option : flags.engine_only)
    if (option->count() > 0)
      return fail("bench", absl::InvalidArgumentError(absl::StrCat(option->get_name(), ": is the running server's to decide")));
  rpc::ClientOptions options;
  options.address = flags.address.grpc();
  options.connect_wait = std::chrono::seconds(flags.wait);
  auto tls = client_tls(flags.security);
  if (!tls.ok()) return fail("bench", tls.status());
  options.tls = *std::move(tls);
  auto key = client_key(flags.security);
  if (!key.ok()) return fail("bench", key.status());
  options.api_key = *std::move(key);
  auto client = rpc::Client::connect(options);
  if (!client.ok()) return fail("bench", client.status());
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const absl::Status ready = (*client)->wait_until_serving(std::chrono::seconds(flags.wait), [&](const std::string& what) {
    if (terminal) std::cerr << "\r" << what << "\033[K";
  });
  if (terminal) std::cerr << "\r\033[K";
  if (!ready.ok()) return fail("bench", ready);
  const auto info = (*client)->server_info(std::chrono::seconds(flags.wait));
  if (!info.ok()) return fail("bench", info.status());
  const auto plan = plan_load(flags.load, {info->vocab_size(), static_cast<int64_t>(info->max_model_len())});
  if (!plan.ok()) return fail("bench", plan.status());
  const v1::Layout& l = info->layout();
  const nlohmann::ordered_json facts = {
      {"layout", parallel::to_string({static_cast<int>(l.tensor_parallel()), static_cast<int>(l.pipeline_parallel()),
                                      static_cast<int>(l.expert_parallel()), static_cast<int>(l.data_parallel())})},
      {"numerics_id", info->numerics_id()},
      {"model_digest", info->model_digest()}};
  const LoadReport report =
      report_of(run_load(*plan, target_of(**client, flags.timeout), static_cast<double>(flags.timeout) + 5, "bench"));
  print(flags, facts, *plan, report);
  return code_of(report);
}

LoadLimits limits_of(const Engine& engine) { return {engine.model().vocab_size, engine.options().max_model_len}; }

int bench_local(const Flags& flags) {
  auto local = start_local_engine(flags.ranks, flags.engine);
  if (!local.ok()) return fail("bench", local.status());
  const auto plan = plan_load(flags.load, limits_of(*local->engine));
  if (!plan.ok()) return fail("bench", plan.status());
  const LoadReport report = report_of(run_load(*plan, target_of(*local->engine), static_cast<double>(flags.timeout), "bench"));
  print(flags, facts_of(*local->engine), *plan, report);
  return code_of(report);
}

// Engines that differ in nothing but the order in which numbers meet take turns with one load. Round 0 warms up.
class PriceList {
 public:
  explicit PriceList(const Flags& flags) : flags_(flags) {}

  absl::Status measure() {
    if (flags_.ranks.device.control_arm != "none")
      return absl::InvalidArgumentError(
          absl::StrCat("--control-arm ", flags_.ranks.device.control_arm, ": --price runs the arms by itself"));
    if (!flags_.ranks.trace.path.empty()) return absl::InvalidArgumentError("--trace: a price of traced engines means nothing");
    for (const ControlArm arm : {ControlArm::kNone, ControlArm::kRankOrderAllReduce, ControlArm::kFixedSplitCount}) {
      RankFlags ranks = flags_.ranks;
      ranks.device.control_arm = std::string(name(arm));
      auto engine = start_local_engine(ranks, flags_.engine);
      if (!engine.ok()) return engine.status();
      arms_.push_back({ranks.device.control_arm, *std::move(engine), {}});
    }
    auto plan = plan_load(flags_.load, limits_of(*arms_.front().local.engine));
    if (!plan.ok()) return plan.status();
    plan_ = *std::move(plan);
    for (int64_t round = 0; round <= flags_.price_rounds; ++round)
      for (size_t i = 0; i < arms_.size(); ++i) {
        // Each takes every place in turn: who runs first after a pause is not always the same.
        Arm& arm = arms_[(i + static_cast<size_t>(round)) % arms_.size()];
        arm.local.engine->flush_cache();
        const std::string what = absl::StrCat("round ", round, " of ", flags_.price_rounds, ", ", arm.name);
        LoadReport report = report_of(run_load(plan_, target_of(*arm.local.engine), static_cast<double>(flags_.timeout), what));
        if (report.failed)
          return absl::UnavailableError(absl::StrCat(what, ": ", report.failed, " requests failed: ", report.first_error));
        if (round > 0) arm.reports.push_back(std::move(report));
      }
    for (size_t i = 1; i < arms_.size(); ++i) prices_.push_back(price_of(arms_[i].name, arms_.front().reports, arms_[i].reports));
    return absl::OkStatus();
  }

  int print() const {
    const std::vector<LoadReport>& honest = arms_.front().reports;
    bool same = true;
    for (const LoadReport& r : honest) same = same && r.digest == honest.front().digest;
    if (flags_.json) {
      nlohmann::ordered_json j = facts_of(*arms_.front().local.engine);
      j["rounds"] = flags_.price_rounds;
      j["honest"] = {
          {"total_token_throughput", prices_.front().honest_rate}, {"digest", honest.front().digest}, {"rounds_equal", same}};
      for (const Price& p : prices_)
        j[p.arm] = {{"total_token_throughput", p.arm_rate}, {"digest", p.digest},
                    {"price_percent_median", p.median},     {"price_percent_min", p.least},
                    {"price_percent_max", p.most},          {"price_percent_cpu_median", p.cpu_median}};
      std::cout << j.dump() << std::endl;
    } else {
      std::cout << absl::StreamFormat("%-24s %12s   %-26s %-12s %s\n", "", "tok/s", "price, % of throughput", "of CPU time",
                                      "digest");
      std::cout << absl::StreamFormat("%-24s %12.1f   %-26s %-12s %s\n", "invariant", prices_.front().honest_rate, "", "",
                                      same ? honest.front().digest.substr(0, 16) : "NOT THE SAME IN EACH ROUND");
      for (const Price& p : prices_)
        std::cout << absl::StreamFormat("%-24s %12.1f   %-26s %-12s %s\n", p.arm, p.arm_rate,
                                        absl::StrFormat("%.1f (%.1f .. %.1f)", p.median, p.least, p.most),
                                        absl::StrFormat("%.1f", p.cpu_median), p.digest.substr(0, 16));
      std::cout << "Medians of " << flags_.price_rounds
                << " rounds (least .. most). Negative: the invariant engine was the faster one." << std::endl;
    }
    return same ? 0 : kExitDifferent;
  }

 private:
  struct Arm {
    std::string name;
    LocalEngine local;
    std::vector<LoadReport> reports;
  };
  const Flags& flags_;
  std::vector<Arm> arms_;  // the honest engine first
  LoadPlan plan_;
  std::vector<Price> prices_;
};

int bench(const Flags& flags) {
  const bool server = flags.address.given();
  if (server && (flags.local || flags.price))
    return fail("bench", absl::InvalidArgumentError(absl::StrCat(flags.local ? "--local" : "--price",
                                                                 ": runs in this process, without --server or --uds")));
  if (server) return bench_server(flags);
  if (!flags.price) return bench_local(flags);
  PriceList prices(flags);
  const absl::Status measured = prices.measure();
  return measured.ok() ? prices.print() : fail("bench", measured);
}

}  // namespace

void add_bench(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  LoadOptions& load = flags->load;
  CLI::App* app = program.add_subcommand("bench", "throughput and latency under load; the price of invariance");
  add_flags(*app, flags->ranks);
  add_flags(*app, flags->engine);
  CLI::Option* seed = app->get_option("--seed");
  for (const CLI::Option* option : app->get_options())
    if (option != seed && option != app->get_help_ptr()) flags->engine_only.push_back(option);
  app->remove_option(seed);
  add_flags(*app, flags->address, "bench this running server instead of an engine in this process");
  add_flags(*app, flags->security);
  app->add_flag("--local", flags->local,
                "an engine in this process, with the flags of a rank: the default without --server or --uds");
  app->add_option("--wait", flags->wait, "seconds to wait for the server to be ready")->check(CLI::PositiveNumber);
  app->add_option("--timeout", flags->timeout, "deadline of a request in seconds")->check(CLI::PositiveNumber);
  app->add_option("--num-prompts", load.num_prompts, "requests; of a trace: the first ones")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--request-rate", load.request_rate, "arrivals a second in the mean, Poisson; inf = all at once")
      ->capture_default_str();
  app->add_option("--random-input-len", load.random_input_len, "tokens of a prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--random-output-len", load.random_output_len, "tokens of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option(
         "--trace-file", load.trace_file,
         "arrivals and lengths from a CSV with TIMESTAMP,ContextTokens,GeneratedTokens (Azure's LLM traces); lengths are cut "
         "to the model's context")
      ->option_text("FILE");
  app->add_option("--trace-speedup", load.trace_speedup, "the trace's clock runs this much faster")->check(CLI::PositiveNumber);
  app->add_option("--temperature", load.temperature, "of every request; 0 = greedy")->check(CLI::NonNegativeNumber);
  app->add_option("--seed", load.seed, "of arrivals, prompts and sampling: equal seeds, equal loads, equal digests");
  app->add_flag("--price", flags->price,
                "the same load by turns on this engine and on two that add in whatever order comes (rank-order-all-reduce, "
                "fixed-split-count): what invariance costs");
  app->add_option("--price-rounds", flags->price_rounds, "rounds measured, after one that warms up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_flag("--json", flags->json, "one JSON line, with the keys of `vllm bench serve`");
  app->footer(
      "Examples:\n"
      "  invar bench --tp 2 --num-prompts 64 --request-rate 8\n"
      "  invar bench --server 127.0.0.1:50051 --num-prompts 64      the same digest, whatever the server's layout\n"
      "  invar bench --trace-file AzureLLMInferenceTrace_conv.csv --trace-speedup 4\n"
      "  invar bench --model configs/shapes/smollm2-135m.json --load-format dummy --price");
  commands[app] = [flags] { return bench(*flags); };
}

}  // namespace invar::launch
