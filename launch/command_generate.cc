// invar generate: requests as JSON lines in, answers as JSON lines out, no server.
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <iostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/local_engine.h"
#include "runtime/worker/plan_queue.h"

namespace invar::launch {
namespace {

struct Flags {
  RankFlags ranks;
  EngineFlags engine;
  std::string input = "-";
  std::vector<std::string> prompts;
  int64_t max_tokens = 16;
  bool receipts = false;
};

absl::StatusOr<std::vector<v1::GenerateRequest>> read_requests(const Flags& flags) {
  std::vector<v1::GenerateRequest> requests;
  for (const std::string& prompt : flags.prompts) {
    v1::GenerateRequest& r = requests.emplace_back();
    r.set_prompt(prompt);
    r.mutable_sampling_params()->set_temperature(0);
    r.mutable_sampling_params()->set_max_tokens(static_cast<uint32_t>(flags.max_tokens));
  }
  if (!requests.empty()) return requests;
  std::ifstream file;
  if (flags.input != "-") {
    file.open(flags.input);
    if (!file) return absl::NotFoundError(absl::StrCat("--input ", flags.input, ": cannot be read"));
  }
  std::istream& in = flags.input == "-" ? std::cin : file;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    v1::GenerateRequest& r = requests.emplace_back();
    const auto parsed = google::protobuf::util::JsonStringToMessage(line, &r);
    if (!parsed.ok())
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": not a request: ", parsed.message().ToString()));
  }
  return requests;
}

// Prints one line an answer, in request order; errors go to stderr.
int answer(Engine& engine, const std::vector<v1::GenerateRequest>& requests) {
  int code = 0;
  google::protobuf::util::JsonPrintOptions json;
  json.preserve_proto_field_names = true;
  const auto answers = run_all(engine, requests);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) {
      code = fail(absl::StrCat("generate: ", requests[i].request_id()), answers[i].status());
      continue;
    }
    std::string line;
    if (!google::protobuf::util::MessageToJsonString(*answers[i], &line, json).ok())
      return fail("generate", absl::InternalError("an answer cannot be written as JSON"));
    std::cout << line << "\n";
  }
  std::cout.flush();
  return code;
}

// Under mpirun: this process is one rank; rank 0 also holds the engine, reads the requests and prints the answers.
int generate_as_rank(const Flags& flags, const std::vector<v1::GenerateRequest>& requests) {
  auto transport = parallel::start_mpi();
  if (!transport.ok()) return fail("generate", transport.status());
  const std::string who = absl::StrCat("generate: rank ", (*transport)->rank(), " on ", (*transport)->host());
  int code = 0;
  const auto run = [&]() -> absl::Status {
    if (flags.ranks.layout.layout.dp > 1)
      return absl::InvalidArgumentError(
          "--data-parallel-size: one replica only with --transport mpi; use `invar serve` for more");
    const EngineOptions engine_flags = engine_options(flags.engine, flags.ranks);
    auto options = rank_options(flags.ranks, engine_flags, (*transport)->local_size());
    if (!options.ok()) return options.status();
    auto model_flags = model_options(flags.ranks.model);
    if (!model_flags.ok()) return model_flags.status();
    auto model = open_model(*model_flags);
    if (!model.ok()) return model.status();
    auto rank = Rank::load(**transport, *model, *options, "", {});
    if (!rank.ok()) return rank.status();
    (*rank)->gather_reports();
    if (!(*rank)->leader()) return (*rank)->run(nullptr);
    auto tokenizer = load_tokenizer(flags.ranks.model);
    if (!tokenizer.ok()) return tokenizer.status();
    PlanQueue queue;
    std::vector<std::unique_ptr<Executor>> replica;
    replica.push_back(std::make_unique<QueueExecutor>(queue, (*rank)->facts()));
    auto engine = Engine::start(engine_flags, model->config, *std::move(tokenizer), std::move(replica));
    if (!engine.ok()) return engine.status();
    std::thread asking([&] {
      code = answer(**engine, requests);
      (*engine)->shutdown(std::chrono::seconds(10));  // sends the ranks home
    });
    const absl::Status ran = (*rank)->run(&queue);
    queue.leave();
    asking.join();
    return ran;
  };
  absl::Status status;
  try {
    status = run();
  } catch (const std::exception& e) {
    status = absl::UnavailableError(e.what());
  }
  if (!status.ok()) {
    code = fail(who, status);
    (*transport)->abort(code);
    return code;
  }
  (*transport)->finalize();
  return code;
}

int generate(const Flags& flags) {
  auto requests = read_requests(flags);
  if (!requests.ok()) return fail("generate", requests.status());
  for (size_t i = 0; i < requests->size(); ++i) {
    v1::GenerateRequest& r = (*requests)[i];
    if (r.request_id().empty()) r.set_request_id(absl::StrCat("request-", i + 1));
    if (flags.receipts) r.set_return_receipt(true);
  }
  if (flags.ranks.layout.transport == "mpi") return generate_as_rank(flags, *requests);
  auto local = start_local_engine(flags.ranks, flags.engine);
  if (!local.ok()) return fail("generate", local.status());
  return answer(*local->engine, *requests);
}

}  // namespace

void add_generate(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("generate", "offline: answer requests without a server");
  add_flags(*app, flags->ranks);
  add_flags(*app, flags->engine);
  app->add_option("--transport", flags->ranks.layout.transport,
                  "threads: ranks in this process; mpi: this process is one rank of an mpirun")
      ->check(CLI::IsMember({"threads", "mpi"}));
  app->add_option("--input,-i", flags->input, "JSON lines, one request each in the proto's JSON form; - is stdin");
  app->add_option("--prompt,-p", flags->prompts, "a greedy request for this text, instead of --input; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  app->add_option("--max-tokens,-n", flags->max_tokens, "with --prompt")->check(CLI::Range(int64_t{1}, int64_t{UINT32_MAX}));
  app->add_flag("--receipts", flags->receipts, "put a receipt into every answer, for `invar verify`");
  app->footer(
      "Examples:\n"
      "  invar generate --prompt 'once upon a time' --max-tokens 32\n"
      "  echo '{\"prompt\": \"call me\", \"sampling_params\": {\"temperature\": 0.8, \"seed\": 7, \"max_tokens\": 20}}' | invar "
      "generate --tp 3\n"
      "  invar generate --receipts -p 'in the beginning' > answer.jsonl && invar verify answer.jsonl --tp 2\n"
      "  mpirun -np 4 invar generate --transport mpi --tp 4 --input requests.jsonl");
  commands[app] = [flags] { return generate(*flags); };
}

}  // namespace invar::launch
