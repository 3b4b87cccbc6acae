// invar complete and invar chat: gRPC clients that stream.
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/local_engine.h"
#include "launch/security_flags.h"
#include "launch/server_address.h"
#include "rpc/client/client.h"

namespace invar::launch {
namespace {

struct Flags {
  ServerAddress address{.server = "127.0.0.1:50051"};
  ClientSecurityFlags security;
  int64_t wait = 10;      // for the server to serve
  int64_t timeout = 600;  // of a request
  std::string prompt;
  std::string input;
  bool json = false;
  bool receipt = false;
  int company = 0;
  // Absent = the server's default.
  std::optional<float> temperature, top_p, min_p;
  std::optional<int32_t> top_k, logprobs;
  std::optional<uint64_t> seed;
  uint32_t max_tokens = 64;
  uint32_t n = 1;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::string system;
};

void add_client_flags(CLI::App& app, Flags& f) {
  add_flags(app, f.address, "gRPC address of the server; default 127.0.0.1:50051");
  add_flags(app, f.security);
  app.add_option("--wait", f.wait, "seconds to wait for the server to be ready")->check(CLI::PositiveNumber);
  app.add_option("--timeout", f.timeout, "deadline of a request in seconds")->check(CLI::PositiveNumber);
  app.add_option("--max-tokens,-n", f.max_tokens, "tokens of the answer at most");
  app.add_option("--temperature", f.temperature, "0 = greedy; default: the model's");
  app.add_option("--top-p", f.top_p, "draw from the likeliest tokens that have this probability together; default: the model's");
  app.add_option("--top-k", f.top_k, "draw from this many likeliest tokens; 0 = all; default: the model's");
  app.add_option("--min-p", f.min_p, "leave out tokens less likely than this share of the likeliest");
  app.add_option("--seed", f.seed, "equal seeds, equal answers; default: the server's");
  app.add_option("--stop", f.stop, "stop string; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

void apply(const Flags& f, v1::SamplingParams& p) {
  p.set_max_tokens(f.max_tokens);
  if (f.n != 1) p.set_n(f.n);
  if (f.temperature) p.set_temperature(*f.temperature);
  if (f.top_p) p.set_top_p(*f.top_p);
  if (f.min_p) p.set_min_p(*f.min_p);
  if (f.top_k) p.set_top_k(*f.top_k);
  if (f.seed) p.set_seed(*f.seed);
  if (f.logprobs) p.set_logprobs(*f.logprobs);
  if (f.ignore_eos) p.set_ignore_eos(true);
  for (const std::string& s : f.stop) p.add_stop(s);
}

absl::StatusOr<std::unique_ptr<rpc::Client>> connect(const Flags& f) {
  rpc::ClientOptions options;
  options.address = f.address.grpc();
  options.connect_wait = std::chrono::seconds(f.wait);
  auto tls = client_tls(f.security);
  if (!tls.ok()) return tls.status();
  options.tls = *std::move(tls);
  auto key = client_key(f.security);
  if (!key.ok()) return key.status();
  options.api_key = *std::move(key);
  auto client = rpc::Client::connect(options);
  if (!client.ok()) return client.status();
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const absl::Status ready = (*client)->wait_until_serving(std::chrono::seconds(f.wait), [&](const std::string& what) {
    if (terminal) std::fprintf(stderr, "\r%s\033[K", what.c_str());
  });
  if (terminal) std::fputs("\r\033[K", stderr);
  if (!ready.ok()) return ready;
  return client;
}

// Streams one request's text to stdout; the digest line goes to stderr.
absl::Status stream(rpc::Client& client, const v1::GenerateRequest& request, int64_t timeout, v1::GenerateResponse& whole) {
  const absl::Status status = client.generate(request, std::chrono::seconds(timeout), [&](const v1::GenerateResponse& r) {
    append_response(whole, r);
    for (const v1::ChoiceDelta& d : r.choices())
      if (d.index() == 0) std::cout << d.text() << std::flush;
    return true;
  });
  std::cout << std::endl;
  if (!status.ok()) return status;
  for (const v1::ChoiceDelta& c : whole.choices()) {
    if (c.index() > 0) std::cout << "[" << c.index() << "] " << c.text() << "\n";
    std::cerr << "digest " << c.response_digest() << (whole.choices_size() > 1 ? absl::StrCat(" of choice ", c.index()) : "")
              << "\n";
  }
  std::cerr << whole.usage().prompt_tokens() << " prompt tokens (" << whole.usage().cached_tokens() << " cached), "
            << whole.usage().completion_tokens() << " new\n";
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::GenerateRequest>> read_requests(const Flags& flags) {
  std::ifstream file;
  if (flags.input != "-") {
    file.open(flags.input);
    if (!file) return absl::NotFoundError(absl::StrCat("--input ", flags.input, ": cannot be read"));
  }
  std::istream& in = flags.input == "-" ? std::cin : file;
  std::vector<v1::GenerateRequest> requests;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto parsed = google::protobuf::util::JsonStringToMessage(line, &requests.emplace_back());
    if (!parsed.ok())
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": not a request: ", parsed.message().ToString()));
  }
  return requests;
}

// Other requests that share the batch: their prompts are random words, their answers are thrown away.
class Company {
 public:
  Company(rpc::Client& client, int count, int64_t timeout) {
    std::mt19937 random(std::random_device{}());
    for (int i = 0; i < count; ++i) {
      v1::GenerateRequest r;
      std::string prompt;
      for (int w = 1 + static_cast<int>(random() % 40); w > 0; --w) absl::StrAppend(&prompt, "word", random() % 1000, " ");
      r.set_prompt(prompt);
      r.mutable_sampling_params()->set_max_tokens(8 + random() % 56);
      r.mutable_sampling_params()->set_temperature(1);
      r.mutable_sampling_params()->set_seed(random());
      ++open_;
      client.start(
          r, std::chrono::seconds(timeout), [](const v1::GenerateResponse&) { return true; },
          [this](const absl::Status&) {
            const std::lock_guard lock(mutex_);
            --open_;
            changed_.notify_all();
          });
    }
  }
  ~Company() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ == 0; });  // each call has a deadline
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0;
};

int complete_many(const Flags& flags, rpc::Client& client, std::vector<v1::GenerateRequest> requests) {
  std::vector<v1::GenerateResponse> answers(requests.size());
  std::vector<absl::Status> statuses(requests.size());
  std::mutex mutex;
  std::condition_variable changed;
  size_t open = requests.size();
  const Company company(client, flags.company, flags.timeout);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (flags.receipt) requests[i].set_return_receipt(true);
    client.start(
        requests[i], std::chrono::seconds(flags.timeout),
        [&, i](const v1::GenerateResponse& r) {
          append_response(answers[i], r);
          return true;
        },
        [&, i](const absl::Status& status) {
          const std::lock_guard lock(mutex);
          statuses[i] = status;
          --open;
          changed.notify_all();
        });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return open == 0; });
  }
  int code = 0;
  google::protobuf::util::JsonPrintOptions json;
  json.preserve_proto_field_names = true;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!statuses[i].ok()) {
      code = fail(absl::StrCat("complete: request ", i + 1), statuses[i]);
      continue;
    }
    std::string line;
    if (!google::protobuf::util::MessageToJsonString(answers[i], &line, json).ok()) return kExitFailed;
    std::cout << line << "\n";
  }
  return code;
}

int complete(const Flags& flags) {
  if (flags.prompt.empty() && flags.input.empty())
    return fail("complete", absl::InvalidArgumentError("a prompt, or --input FILE, is wanted"));
  std::vector<v1::GenerateRequest> requests;
  if (!flags.input.empty()) {
    auto read = read_requests(flags);
    if (!read.ok()) return fail("complete", read.status());
    requests = *std::move(read);
  } else {
    v1::GenerateRequest& r = requests.emplace_back();
    r.set_prompt(flags.prompt);
    apply(flags, *r.mutable_sampling_params());
    r.set_return_receipt(flags.receipt);
  }
  auto client = connect(flags);
  if (!client.ok()) return fail("complete", client.status());
  if (flags.json || !flags.input.empty()) return complete_many(flags, **client, std::move(requests));
  const Company company(**client, flags.company, flags.timeout);
  v1::GenerateResponse whole;
  const absl::Status status = stream(**client, requests.front(), flags.timeout, whole);
  return status.ok() ? 0 : fail("complete", status);
}

// ChatML, the template of the demo models and of Qwen; a model's own template is a matter of the HTTP server.
std::string chatml(const std::vector<std::pair<std::string, std::string>>& messages) {
  std::string text;
  for (const auto& [role, content] : messages) absl::StrAppend(&text, "<|im_start|>", role, "\n", content, "<|im_end|>\n");
  return text + "<|im_start|>assistant\n";
}

int chat(const Flags& flags) {
  auto client = connect(flags);
  if (!client.ok()) return fail("chat", client.status());
  std::vector<std::pair<std::string, std::string>> messages;
  if (!flags.system.empty()) messages.emplace_back("system", flags.system);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  while ((terminal ? (std::cout << "> " << std::flush, true) : true) && std::getline(std::cin, line)) {
    if (line.empty()) continue;
    messages.emplace_back("user", line);
    v1::GenerateRequest r;
    r.set_prompt(chatml(messages));
    apply(flags, *r.mutable_sampling_params());
    r.mutable_sampling_params()->add_stop("<|im_end|>");
    v1::GenerateResponse whole;
    const absl::Status status = stream(**client, r, flags.timeout, whole);
    if (!status.ok()) return fail("chat", status);
    messages.emplace_back("assistant", whole.choices(0).text());
  }
  return 0;
}

}  // namespace

void add_complete(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("complete", "stream a completion from a server; its digest goes to stderr");
  app->add_option("PROMPT", flags->prompt, "text to go on from");
  add_client_flags(*app, *flags);
  app->add_option("--choices", flags->n, "answers to the prompt (n)");
  app->add_option("--logprobs", flags->logprobs, "log-probabilities of the k likeliest tokens, with --json");
  app->add_flag("--ignore-eos", flags->ignore_eos, "go on after the end that the model chose, to --max-tokens");
  app->add_option("--input,-i", flags->input, "requests as JSON lines instead of a prompt, all at once; - is stdin")
      ->option_text("FILE");
  app->add_flag("--json", flags->json, "print the whole answer as one JSON line");
  app->add_flag("--receipt", flags->receipt, "ask for a receipt (with --json or --input)");
  app->add_option("--company", flags->company, "other random requests in the same batch: the digest must not change");
  app->footer(
      "Examples:\n"
      "  invar complete 'once upon a time' --temperature 0\n"
      "  invar complete 'once upon a time' --temperature 0 --company 20     the same digest\n"
      "  invar complete 'call me' --json --receipt > answer.json && invar verify answer.json");
  commands[app] = [flags] { return complete(*flags); };
}

void add_chat(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("chat", "talk to a server line by line (ChatML models)");
  add_client_flags(*app, *flags);
  app->add_option("--system", flags->system, "system message");
  app->footer(
      "Examples:\n"
      "  invar chat --temperature 0\n"
      "  invar chat --server HOST:50051 --system 'You tell stories.' --max-tokens 200");
  commands[app] = [flags] { return chat(*flags); };
}

}  // namespace invar::launch
