// invar serve: the coordinator. Starts its own ranks (threads, or mpirun on this machine) or waits for ranks the operator
// started.
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/flags.h"
#include "launch/http_flags.h"
#include "launch/local_engine.h"
#include "launch/mpi_launcher.h"
#include "launch/progress.h"
#include "launch/security_flags.h"
#include "launch/server_address.h"
#include "rpc/http/service.h"
#include "rpc/server/server.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/worker_gate.h"
#include "runtime/receipt/numerics_id.h"
#include "runtime/worker/build_id.h"

namespace invar::launch {
namespace {

struct Flags {
  RankFlags ranks;
  EngineFlags engine;
  ServerTlsFlags tls;
  LinkTlsFlags link_tls;
  std::vector<std::string> api_keys;
  std::string api_key_file;
  HttpFlags http;
  std::string host = "127.0.0.1";
  int grpc_port = 50051;
  std::string grpc_uds;
  std::string worker_address;
  bool external_ranks = false;
  std::vector<std::string> mpirun_args;
  int64_t load_timeout = 1800;
  int64_t drain_timeout = 30;
};

// SIGINT and SIGTERM are taken by sigtimedwait in the main thread; every other thread inherits the block.
sigset_t termination_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

// True: told to end. Waits at most `wait`.
bool told_to_end(std::chrono::milliseconds wait) {
  const sigset_t set = termination_signals();
  const timespec t{wait.count() / 1000, (wait.count() % 1000) * 1000000};
  return sigtimedwait(&set, nullptr, &t) > 0;
}

class Coordinator {
 public:
  explicit Coordinator(const Flags& flags) : flags_(flags) {}

  absl::Status start() {
    auto tls = server_tls(flags_.tls);
    if (!tls.ok()) return tls.status();
    auto link = link_tls(flags_.link_tls);
    if (!link.ok()) return link.status();
    if (link->has_value()) link_tls_ = (*link)->own;
    auto model_flags = model_options(flags_.ranks.model);
    if (!model_flags.ok()) return model_flags.status();
    auto model = open_model(*model_flags);  // a bad model is refused before a port is bound or a rank started
    if (!model.ok()) return model.status();
    model_ = std::make_unique<LoadedModel>(*std::move(model));
    const absl::Status fits =
        parallel::validate(flags_.ranks.layout.layout, {model_->config.num_layers, model_->config.moe.num_experts});
    if (!fits.ok()) return fits;
    auto tokenizer = load_tokenizer(flags_.ranks.model);
    if (!tokenizer.ok()) return tokenizer.status();

    auto api_keys = all_api_keys(flags_.api_keys, flags_.api_key_file);
    if (!api_keys.ok()) return api_keys.status();

    rpc::ServerOptions options;
    options.listen = {flags_.grpc_uds.empty() ? absl::StrCat(flags_.host, ":", flags_.grpc_port)
                                              : absl::StrCat("unix:", flags_.grpc_uds)};
    options.tls = *tls;
    options.api_keys = *api_keys;
    options.max_request_bytes = flags_.http.max_request_bytes;
    options.access_log = !flags_.http.no_access_log;
    auto server = rpc::Server::start(options);
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    if (!flags_.http.off)
      if (absl::Status http = start_http(*tls, *api_keys); !http.ok()) return http;
    spdlog::info("loading {}", model_->path.string());

    auto replicas = flags_.ranks.layout.transport == "mpi" ? ranks_over_link() : ranks_as_threads();
    if (!replicas.ok()) return replicas.status();
    auto engine =
        Engine::start(engine_options(flags_.engine, flags_.ranks), model_->config, *std::move(tokenizer), *std::move(replicas));
    if (!engine.ok()) return engine.status();
    engine_ = std::shared_ptr<Engine>(*std::move(engine));
    server_->serve(engine_, info());
    const ReplicaFacts& facts = engine_->facts();
    spdlog::info("serving {} on {} (gRPC){}: {} x {}, {} pages of {} tokens a home", name(), server_->addresses().front(),
                 http_ ? absl::StrCat(" and ", http_->addresses().front(), " (HTTP)") : "", flags_.ranks.layout.layout.dp,
                 facts.layout, facts.pages_per_home, facts.page_size);
    spdlog::info("numerics id {}, model digest {}", facts.numerics_id, facts.model_digest.substr(0, 16));
    return absl::OkStatus();
  }

  // Until a signal or the loss of the ranks.
  absl::Status run() {
    while (!told_to_end(std::chrono::milliseconds(200))) {
      // A lost replica is no reason to end while another one serves.
      if (const EngineStats stats = engine_->stats(); stats.replicas_alive == 0)
        return absl::UnavailableError(absl::StrCat("no worker group is left: ", stats.trouble));
      if (mpi_)
        if (const auto ended = mpi_->ended())
          return absl::UnavailableError(absl::StrCat("the ranks ended: mpirun left with ", *ended));
    }
    spdlog::info("ending: no new requests; running ones have {} s (a second signal ends at once)", flags_.drain_timeout);
    return absl::OkStatus();
  }

  void stop() {
    if (server_) {
      // A second signal must not wait for the drain.
      std::atomic<bool> drained{false};
      std::thread impatient([&] {
        while (!drained)
          if (told_to_end(std::chrono::milliseconds(100))) _exit(128 + SIGTERM);
      });
      server_->shutdown(std::chrono::seconds(flags_.drain_timeout));  // HTTP's requests too: they share its state
      if (http_) http_->shutdown(std::chrono::seconds(1));
      drained = true;
      impatient.join();
    }
    if (engine_) engine_->shutdown(std::chrono::seconds(10));
    engine_.reset();
    http_.reset();
    server_.reset();
    if (mpi_) mpi_->finish(std::chrono::seconds(10));
  }

 private:
  absl::Status start_http(const std::optional<rpc::ServerTls>& tls, const std::vector<std::string>& api_keys) {
    const std::string folder = flags_.ranks.model.tokenizer.empty() ? model_->path.string() : flags_.ranks.model.tokenizer;
    std::vector<std::string> names = {name()};
    // The path as it was given is a name too: scripts written for other servers use it.
    if (const std::string& path = flags_.ranks.model.model; !path.empty() && path != names.front()) names.push_back(path);
    auto api = http_api_options(flags_.http, folder, std::move(names), api_keys);
    if (!api.ok()) return api.status();
    raise_descriptor_limit();
    auto http = http::Service::start(http_server_options(flags_.http, flags_.host, tls), *std::move(api), server_->state());
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
    return absl::OkStatus();
  }

  std::string name() const {
    if (!flags_.engine.options.served_model_name.empty()) return flags_.engine.options.served_model_name;
    const auto& path = model_->path;
    return (path.has_filename() ? path : path.parent_path()).filename().string();
  }

  absl::StatusOr<std::vector<std::unique_ptr<Executor>>> ranks_as_threads() {
    auto options = rank_options(flags_.ranks, engine_options(flags_.engine, flags_.ranks), flags_.ranks.layout.layout.world());
    if (!options.ok()) return options.status();
    server_->set_progress("hashing the model");
    ProgressBar hashing("hashing the model");
    auto digest = digest_of(*model_, 2, hashing.callback());
    if (!digest.ok()) return digest.status();
    std::vector<std::unique_ptr<Executor>> replicas;
    for (int dp = 0; dp < options->layout.dp; ++dp) {
      server_->set_progress(absl::StrCat("loading replica ", dp + 1, " of ", options->layout.dp));
      ProgressBar bar("loading weights");
      auto executor = LocalExecutor::start(*model_, *digest, {*options, dp * options->layout.replica()}, bar.callback());
      if (!executor.ok()) return executor.status();
      std::vector<RankReport> reports = (*executor)->reports();
      for (RankReport& r : reports) r.rank += dp * options->layout.replica();
      joined_.push_back(rpc::to_info(rpc::make_hello(dp, options->layout, (*executor)->facts(), reports), ""));
      replicas.push_back(*std::move(executor));
    }
    return replicas;
  }

  absl::StatusOr<std::vector<std::unique_ptr<Executor>>> ranks_over_link() {
    const parallel::Layout& layout = flags_.ranks.layout.layout;
    auto options = rank_options(flags_.ranks, EngineOptions(), 1);
    if (!options.ok()) return options.status();
    rpc::WorkerGateOptions gate;
    gate.listen = !flags_.worker_address.empty() ? flags_.worker_address
                  : flags_.external_ranks        ? "127.0.0.1:50052"
                                                 : "127.0.0.1:0";
    gate.layout = layout;
    gate.tls = link_tls_;
    gate.build_id = build_id();
    gate.numerics_id = numerics_id(options->device.profile, options->device.control_arm);
    gate.mismatched = [metrics = server_->state()->metrics()](rpc::Mismatch what) {
      ++metrics->rank_mismatches[static_cast<size_t>(what)];
    };
    auto started = rpc::WorkerGate::start(gate);
    if (!started.ok()) return started.status();
    gate_ = *std::move(started);
    if (flags_.external_ranks) {
      spdlog::info("waiting for {} ranks; each: invar worker --coordinator {} and the layout of this coordinator", layout.world(),
                   gate_->address());
    } else {
      std::vector<std::string> arguments = {"worker", "--coordinator", gate_->address()};
      const auto same = worker_arguments(flags_.ranks, flags_.engine.options), link = worker_arguments(flags_.link_tls);
      arguments.insert(arguments.end(), same.begin(), same.end());
      arguments.insert(arguments.end(), link.begin(), link.end());
      auto mpi = MpiRun::start(layout.world(), flags_.mpirun_args, arguments);
      if (!mpi.ok()) return mpi.status();
      mpi_ = *std::move(mpi);
    }
    // Ends the wait when the ranks are gone, or the user has had enough.
    std::atomic<bool> waited{false};
    std::thread watch([&] {
      while (!waited) {
        if (mpi_)
          if (const auto ended = mpi_->ended())
            gate_->interrupt(absl::UnavailableError(
                absl::StrCat("the ranks ended before they joined: mpirun left with ", *ended, "; its output is above")));
        if (told_to_end(std::chrono::milliseconds(100)))
          gate_->interrupt(absl::CancelledError("interrupted while waiting for ranks"));
      }
    });
    auto replicas =
        gate_->wait(std::chrono::seconds(flags_.load_timeout), [&](const std::string& what) { server_->set_progress(what); });
    waited = true;
    watch.join();
    joined_ = gate_->replicas();
    return replicas;
  }

  v1::ServerInfo info() const {
    v1::ServerInfo info;
    info.set_build_id(std::string(build_id()));
    info.set_model_name(name());
    info.set_model_path(std::filesystem::absolute(model_->path).string());
    info.set_tokenizer_path(flags_.ranks.model.tokenizer.empty()
                                ? info.model_path()
                                : std::filesystem::absolute(flags_.ranks.model.tokenizer).string());
    *info.mutable_layout() = rpc::to_proto(flags_.ranks.layout.layout);
    for (const v1::ReplicaInfo& r : joined_) *info.add_replicas() = r;
    auto& config = *info.mutable_config();
    const auto arguments = worker_arguments(flags_.ranks, flags_.engine.options);
    for (size_t i = 0; i + 1 < arguments.size(); i += 2) config[arguments[i].substr(2)] = arguments[i + 1];
    const EngineOptions& o = engine_->options();
    config["transport"] = flags_.ranks.layout.transport;
    config["max-model-len"] = absl::StrCat(o.max_model_len);
    config["max-num-batched-tokens"] = absl::StrCat(o.max_num_batched_tokens);
    config["long-prefill-token-threshold"] = absl::StrCat(o.long_prefill_token_threshold);
    config["max-queued-requests"] = absl::StrCat(o.max_queued_requests);
    config["enable-prefix-caching"] = o.enable_prefix_caching ? "true" : "false";
    config["plans-in-flight"] = absl::StrCat(o.plans_in_flight);
    config["seed"] = absl::StrCat(o.seed);
    return info;
  }

  const Flags& flags_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<http::Service> http_;
  std::unique_ptr<MpiRun> mpi_;
  std::optional<rpc::TlsMaterial> link_tls_;
  std::unique_ptr<rpc::WorkerGate> gate_;
  std::vector<v1::ReplicaInfo> joined_;
  std::shared_ptr<Engine> engine_;
};

int serve(const Flags& flags) {
  const sigset_t set = termination_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  spdlog::set_default_logger(spdlog::stderr_color_mt("invar"));
  Coordinator coordinator(flags);
  absl::Status status = coordinator.start();
  if (status.ok()) status = coordinator.run();
  coordinator.stop();
  return status.ok() ? 0 : fail("serve", status);
}

}  // namespace

void add_serve(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app =
      program.add_subcommand("serve", "the coordinator: takes requests over HTTP and gRPC, plans steps, drives the ranks");
  add_flags(*app, flags->ranks);
  add_flags(*app, flags->engine);
  app->add_option("--served-model-name", flags->engine.options.served_model_name, "name shown to clients; default: the folder's");
  app->add_option("--host", flags->host, "address to listen on; 0.0.0.0 = all");
  add_flags(*app, flags->http);
  app->add_option("--grpc-port", flags->grpc_port, "gRPC port; 0 = any free one, see the log")->check(CLI::Range(0, 65535));
  app->add_option("--grpc-uds", flags->grpc_uds, "gRPC on this Unix socket instead; then HTTP only with --port or --uds")
      ->option_text("PATH")
      ->excludes(app->get_option("--grpc-port"));
  add_flags(*app, flags->tls);
  app->add_option("--api-key", flags->api_keys, "key that clients must bring (authorization: Bearer KEY); may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->option_text("KEY");
  app->add_option("--api-key-file", flags->api_key_file,
                  "file with such keys, one a line: others on this machine can see a command line")
      ->option_text("FILE");
  app->add_option("--transport", flags->ranks.layout.transport, "threads: ranks in this process; mpi: ranks under mpirun")
      ->check(CLI::IsMember({"threads", "mpi"}));
  app->add_flag("--external-ranks", flags->external_ranks, "with --transport mpi: wait for ranks that you start (mpirun, srun)");
  app->add_option("--worker-address", flags->worker_address,
                  "where ranks join; default 127.0.0.1, port 50052 with --external-ranks")
      ->option_text("HOST:PORT");
  add_flags(*app, flags->link_tls);
  app->add_option("--mpirun-args", flags->mpirun_args, "one argument for the mpirun that serve starts; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  app->add_option("--load-timeout", flags->load_timeout, "seconds until the ranks must have joined")->check(CLI::PositiveNumber);
  app->add_option("--drain-timeout", flags->drain_timeout, "seconds that running requests have after SIGTERM")
      ->check(CLI::NonNegativeNumber);
  app->footer(
      "Examples:\n"
      "  invar serve                                       the demo model, one rank\n"
      "  invar serve --model FOLDER --tp 3 --transport mpi three ranks under mpirun on this machine\n"
      "  invar serve --config serve.yaml --port 8001       keys of the file are these flags; flags win\n"
      "  invar serve --uds /run/invar.sock                 HTTP there, gRPC on /run/invar.sock.grpc\n"
      "On a cluster: see invar worker --help.");
  commands[app] = [flags, app] {
    // Many servers on one machine with sockets of their own do not want one TCP port each.
    const bool tcp = app->count("--port") > 0, uds = !flags->http.uds.empty();
    if (!flags->grpc_uds.empty() && !tcp && !uds) flags->http.off = true;
    if (uds && flags->grpc_uds.empty() && app->count("--grpc-port") == 0) flags->grpc_uds = grpc_socket_beside(flags->http.uds);
    return serve(*flags);
  };
}

}  // namespace invar::launch
