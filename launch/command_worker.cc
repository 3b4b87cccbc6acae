// invar worker: one rank, started by mpirun or srun. The first rank of each replica dials the coordinator.
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "launch/security_flags.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/link_channel.h"
#include "rpc/worker_link/rank_reporter.h"

namespace invar::launch {
namespace {

struct Flags {
  RankFlags ranks;
  EngineOptions engine;  // max_num_seqs sizes the KV default
  std::string coordinator = "127.0.0.1:50052";
  LinkTlsFlags tls;
  int64_t connect_timeout = 60;
  int64_t collective_timeout = 60;
};

absl::Status work(const Flags& flags, parallel::Transport& transport) {
  auto tls = link_tls(flags.tls);  // before minutes are spent on loading
  if (!tls.ok()) return tls.status();
  auto options = rank_options(flags.ranks, flags.engine, transport.local_size());
  if (!options.ok()) return options.status();
  auto model_flags = model_options(flags.ranks.model);
  if (!model_flags.ok()) return model_flags.status();
  auto model = open_model(*model_flags);
  if (!model.ok()) return model.status();
  ProgressBar bar("loading weights");
  auto rank = Rank::load(transport, *model, *options, "", transport.rank() == 0 ? bar.callback() : LoadProgressFn());
  if (!rank.ok()) return rank.status();
  const std::vector<RankReport> reports = (*rank)->gather_reports();
  rpc::LinkOptions link;
  link.coordinator = flags.coordinator;
  link.wait = std::chrono::seconds(flags.connect_timeout);
  link.tls = *std::move(tls);
  const int replica = (*rank)->report().rank / options->layout.replica();
  const rpc::RankReporter reporter(link, replica, [board = (*rank)->progress()] { return board->read(); });
  if (!(*rank)->leader()) return (*rank)->run(nullptr);

  auto channel = rpc::LinkChannel::connect(link, rpc::make_hello(replica, options->layout, (*rank)->facts(), reports));
  if (!channel.ok())
    return absl::Status(channel.status().code(),
                        absl::StrCat("--coordinator ", flags.coordinator, ": ", channel.status().message()));
  const absl::Status ran = (*rank)->run(channel->get());
  const absl::Status closed = (*channel)->close(std::chrono::seconds(5));
  return ran.ok() ? closed : ran;
}

int worker(const Flags& flags) {
  parallel::TransportOptions options;
  options.timeout = std::chrono::seconds(flags.collective_timeout);
  auto transport = parallel::start_mpi(options);
  if (!transport.ok()) return fail("worker", transport.status());
  absl::Status status;
  try {
    status = work(flags, **transport);
  } catch (const std::exception& e) {
    status = absl::UnavailableError(e.what());
  }
  if (!status.ok()) {
    const int code = fail(absl::StrCat("worker: rank ", (*transport)->rank(), " on ", (*transport)->host()), status);
    std::fflush(stderr);
    (*transport)->abort(code);
    return code;
  }
  (*transport)->finalize();
  return 0;
}

}  // namespace

void add_worker(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("worker", "one rank of a coordinator, started by mpirun or srun");
  add_flags(*app, flags->ranks);
  app->add_option("--max-num-batched-tokens", flags->engine.max_num_batched_tokens,
                  "as given to the coordinator: sizes the activations of a step on a GPU")
      ->check(CLI::PositiveNumber);
  app->add_option("--max-num-seqs", flags->engine.max_num_seqs, "as given to the coordinator: sizes the KV default")
      ->check(CLI::PositiveNumber);
  app->add_option("--coordinator,-c", flags->coordinator, "worker address of `invar serve`")->option_text("HOST:PORT");
  add_flags(*app, flags->tls);
  app->add_option("--connect-timeout", flags->connect_timeout, "seconds to wait for the coordinator")->check(CLI::PositiveNumber);
  app->add_option("--collective-timeout", flags->collective_timeout,
                  "seconds until a silent peer counts as lost; longer than any step")
      ->check(CLI::PositiveNumber);
  app->footer(
      "Every rank gets the same flags as the coordinator's layout. Example, on the login node of a cluster:\n"
      "  invar serve --model FOLDER --tp 4 --transport mpi --external-ranks --worker-address 0.0.0.0:50052\n"
      "  mpirun -np 4 --hostfile HOSTS invar worker --model FOLDER --tp 4 --coordinator LOGIN:50052\n"
      "  srun --mpi=pmix -n 4 invar worker --model FOLDER --tp 4 --coordinator LOGIN:50052   in place of mpirun; pmi2 does not "
      "do\n"
      "One dead rank ends all ranks of its mpirun or srun, and then the coordinator: run both under a supervisor "
      "(docs/cluster.md).");
  commands[app] = [flags] { return worker(*flags); };
}

}  // namespace invar::launch
