// invar preflight: under the mpirun or srun that will start the workers, says what each rank has, whether the ranks could work
// together and how fast they reach each other; names rank, host, interface and phase when they do not come up.
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/commands.h"
#include "launch/flags.h"
#include "launch/preflight_facts.h"
#include "launch/preflight_links.h"
#include "parallel/transport/group.h"

namespace invar::launch {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTag = 4001;
constexpr double kSlowLatency = 200;  // microseconds between two ranks of one host

struct Flags {
  RankFlags ranks;
  LinkTlsFlags tls;
  std::string coordinator;
  int64_t timeout = 20;
  int64_t model_timeout = 1800;
  bool full = false;
};

// What the launcher says of this process before MPI has started: all that is known of a rank that hangs in MPI_Init.
std::string name_before_mpi() {
  char host[256] = "?";
  gethostname(host, sizeof host - 1);
  const auto first_of = [](std::initializer_list<const char*> names) -> std::string {
    for (const char* name : names)
      if (const char* value = std::getenv(name)) return value;
    return "?";
  };
  return absl::StrCat("rank ", first_of({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}), " of ",
                      first_of({"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"}), " on host ", host);
}

// Ends the process when MPI_Init does not return: it has no deadline of its own. Each rank that is there says so; who says
// nothing is who is missing.
class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds deadline) {
    thread_ = std::thread([this, deadline] {
      const std::string me = name_before_mpi();
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, deadline / 2, [&] { return done_; })) return;
      std::fprintf(stderr, "invar preflight: %s: still in MPI_Init after %lld s; interfaces: %s\n", me.c_str(),
                   static_cast<long long>(deadline.count() / 2), absl::StrJoin(interfaces(), ", ").c_str());
      if (changed_.wait_for(lock, deadline - deadline / 2, [&] { return done_; })) return;
      std::fprintf(
          stderr,
          "invar preflight: %s: gave up in MPI_Init after %lld s. Every process of the job has to come there: the ranks that no "
          "line \"still in MPI_Init\" names never did (host down, program not found there, another program), or cannot be "
          "reached over the interfaces named (docs/cluster.md)\n",
          me.c_str(), static_cast<long long>(deadline.count()));
      std::fflush(stderr);
      std::this_thread::sleep_for(std::chrono::seconds(1));  // the launcher ends the others with us: let them speak first
      _exit(kExitFailed);
    });
  }
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

std::vector<std::string> hosts_of(parallel::Transport& transport, parallel::Group& world) {
  constexpr size_t kName = 256;
  std::vector<char> mine(kName), all(kName * static_cast<size_t>(transport.size()));
  transport.host().copy(mine.data(), kName - 1);
  world.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), "host names");
  std::vector<std::string> hosts;
  for (int r = 0; r < transport.size(); ++r) hosts.emplace_back(&all[static_cast<size_t>(r) * kName]);
  return hosts;
}

// On rank 0 the facts of all, in rank order.
std::vector<RankFacts> collect(parallel::Transport& transport, const RankFacts& mine, const std::vector<std::string>& hosts,
                               std::chrono::seconds deadline) {
  if (transport.rank() != 0) {
    const std::string text = nlohmann::json(mine).dump();
    transport.send_message(0, kTag, std::as_bytes(std::span(text)));
    return {};
  }
  std::vector<RankFacts> all{mine};
  const auto until = Clock::now() + deadline;
  for (int r = 1; r < transport.size(); ++r) {
    std::vector<std::byte> bytes;
    while (!transport.try_receive_message(r, kTag, bytes, std::chrono::milliseconds(200)))
      if (Clock::now() > until)
        throw std::runtime_error(absl::StrCat("phase checks: rank ", r, " on host ", hosts[static_cast<size_t>(r)],
                                              " was not done within ", deadline.count(), " s"));
    all.push_back(nlohmann::json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())).get<RankFacts>());
  }
  return all;
}

void print(const std::vector<RankFacts>& facts, const LinkReport& links, const std::vector<Finding>& findings, bool full) {
  std::vector<std::string> hosts;
  for (const RankFacts& f : facts) {
    hosts.push_back(f.host);
    std::cout << absl::StrFormat("rank %d (local %d) on host %s, pid %d: %d cores, %.1f GiB free, %s; %s", f.rank, f.local_rank,
                                 f.host, f.pid, f.cores, f.memory_gib, f.isa, f.device);
    if (!f.driver.empty()) std::cout << "; driver " << f.driver;
    if (!f.nccl.empty()) std::cout << "; NCCL " << f.nccl;
    std::cout << absl::StrFormat("\n    ulimit -n %s, -l %s; clock %+.3f s; model %s %s",
                                 f.nofile < 0 ? "unlimited" : absl::StrCat(f.nofile),
                                 f.memlock_kib < 0 ? "unlimited" : absl::StrCat(f.memlock_kib, " KiB"), f.clock_offset,
                                 full ? "digest" : "fingerprint", f.model);
    if (!f.coordinator.empty()) std::cout << "; coordinator " << f.coordinator;
    std::cout << "\n    interfaces: " << (f.interfaces.empty() ? "none but loopback" : absl::StrJoin(f.interfaces, ", ")) << "\n";
  }
  if (!facts.empty()) std::cout << "numerics id " << facts.front().numerics_id << ", build " << facts.front().build_id << "\n";
  std::cout << to_text(links, hosts);
  for (const Finding& f : findings) std::cout << (f.fatal ? "WRONG: " : "note: ") << f.text << "\n";
  const bool good = std::none_of(findings.begin(), findings.end(), [](const Finding& f) { return f.fatal; });
  std::cout << (good ? "preflight: these ranks can work together" : "preflight: NOT ready") << std::endl;
}

// Two ranks of a host that are slow to answer share a core, most of the time.
void judge(const LinkReport& links, const std::vector<RankFacts>& facts, std::vector<Finding>& findings) {
  for (int a = 0; a < links.ranks; ++a)
    for (int b = a + 1; b < links.ranks; ++b)
      if (facts[static_cast<size_t>(a)].host == facts[static_cast<size_t>(b)].host &&
          links.pair(a, b).latency_us > kSlowLatency) {
        findings.push_back(
            {false, absl::StrFormat(
                        "ranks %d and %d on host %s answer each other in %.0f us: do they share a core? (--bind-to none, fewer "
                        "ranks or threads, --mca mpi_yield_when_idle 1)",
                        a, b, facts[static_cast<size_t>(a)].host, links.pair(a, b).latency_us)});
        return;  // one is enough
      }
}

int check(const Flags& flags, parallel::Transport& transport) {
  std::vector<int> everybody;
  for (int r = 0; r < transport.size(); ++r) everybody.push_back(r);
  parallel::Group world(transport, everybody, kTag);
  const std::vector<std::string> hosts = hosts_of(transport, world);

  const parallel::Layout& layout = flags.ranks.layout.layout;
  FactsOptions options;
  options.ranks = &flags.ranks;
  options.tls = &flags.tls;
  options.local_size = transport.local_size();
  options.full = flags.full && transport.local_rank() == 0;  // one rank of a host hashes for all
  if (transport.rank() % std::max(1, layout.replica()) == 0) options.coordinator = flags.coordinator;
  RankFacts mine;
  mine.rank = transport.rank();
  mine.local_rank = transport.local_rank();
  mine.host = transport.host();
  mine = gather_facts(mine, options);
  std::vector<RankFacts> all =
      collect(transport, mine, hosts, std::chrono::seconds(flags.full ? flags.model_timeout : flags.timeout + 10));
  if (flags.full) {
    std::map<std::string, std::string> of_host;
    for (RankFacts& f : all) f.model = of_host.emplace(f.host, f.model).first->second;
  }
  // The others wait here, for as long as the slowest of the checks takes.
  std::byte go{1};
  if (transport.rank() == 0) {
    for (int r = 1; r < transport.size(); ++r) transport.send_message(r, kTag, {&go, 1});
  } else {
    std::vector<std::byte> word;
    const auto until =
        Clock::now() + std::chrono::seconds((flags.full ? flags.model_timeout : flags.timeout + 10) + flags.timeout);
    while (!transport.try_receive_message(0, kTag, word, std::chrono::milliseconds(200)))
      if (Clock::now() > until) throw std::runtime_error("phase checks: nothing heard from rank 0");
  }

  const LinkReport links = measure_links(transport);
  std::byte verdict{0};
  if (transport.rank() == 0) {
    for (size_t r = 0; r < all.size(); ++r) all[r].clock_offset = links.clock_offsets[r];
    std::vector<Finding> findings = compare(all, layout);
    judge(links, all, findings);
    print(all, links, findings, flags.full);
    for (const Finding& f : findings)
      if (f.fatal) verdict = std::byte{1};
  }
  world.broadcast({&verdict, 1}, 0, "the verdict");
  return static_cast<int>(verdict);
}

int preflight(const Flags& flags) {
  parallel::TransportOptions options;
  options.timeout = std::chrono::seconds(flags.timeout);
  absl::StatusOr<std::unique_ptr<parallel::Transport>> transport = absl::UnknownError("not started");
  {
    const Watchdog watchdog{std::chrono::seconds(flags.timeout)};
    transport = parallel::start_mpi(options);
  }
  if (!transport.ok()) return fail("preflight", transport.status());
  try {
    const int code = check(flags, **transport);
    (*transport)->finalize();
    return code;
  } catch (const std::exception& e) {
    const absl::Status status = absl::UnavailableError(
        absl::StrCat(e.what(), "; interfaces of ", (*transport)->host(), ": ", absl::StrJoin(interfaces(), ", ")));
    const int code = fail(absl::StrCat("preflight: rank ", (*transport)->rank(), " on host ", (*transport)->host()), status);
    std::fflush(stderr);
    std::this_thread::sleep_for(std::chrono::seconds(1));  // abort() ends the others: let them say whom they waited for
    (*transport)->abort(code);
    return code;
  }
}

}  // namespace

void add_preflight(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app =
      program.add_subcommand("preflight", "check a cluster before its ranks load a model; run it under mpirun or srun");
  add_flags(*app, flags->ranks);
  app->add_option("--coordinator,-c", flags->coordinator, "try to reach `invar serve` there from the first rank of each replica")
      ->option_text("HOST:PORT");
  add_flags(*app, flags->tls);
  app->add_option("--timeout", flags->timeout, "seconds until a rank that does not come, or a peer that is silent, is given up")
      ->check(CLI::Range(2, 3600));
  app->add_flag("--full", flags->full, "hash the weights too: the model digest, by one rank of each host");
  app->footer(
      "Takes the flags that the workers will get. Exit code 0: these ranks can work together; 1: not, and why. Example:\n"
      "  mpirun -np 4 --hostfile HOSTS --bind-to none invar preflight --model FOLDER --tp 4 --coordinator LOGIN:50052");
  commands[app] = [flags] { return preflight(*flags); };
}

}  // namespace invar::launch
