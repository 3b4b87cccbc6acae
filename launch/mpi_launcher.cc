#include "launch/mpi_launcher.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"

namespace invar::launch {
namespace {

std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "/usr/bin:/bin";
  for (size_t begin = 0; begin <= rest.size();) {
    const size_t end = std::min(rest.find(':', begin), rest.size());
    const std::string file = rest.substr(begin, end - begin) + "/" + name;
    if (access(file.c_str(), X_OK) == 0) return file;
    begin = end + 1;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MpiRun>> MpiRun::start(int ranks, const std::vector<std::string>& mpirun_arguments,
                                                      const std::vector<std::string>& arguments) {
  const auto mpirun = find_program("mpirun");
  if (!mpirun) return absl::NotFoundError("no mpirun in PATH; install Open MPI (openmpi-bin), or use --transport threads");
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  std::vector<std::string> command = {*mpirun, "-np", absl::StrCat(ranks), "--oversubscribe", "--bind-to", "none",
                                      // Ranks that share a core must give it up while they wait.
                                      "--mca", "mpi_yield_when_idle", "1",
                                      // Containers often forbid the system call behind the single-copy path.
                                      "--mca", "btl_vader_single_copy_mechanism", "none"};
  if (geteuid() == 0) command.push_back("--allow-run-as-root");
  command.insert(command.end(), mpirun_arguments.begin(), mpirun_arguments.end());
  command.push_back(self);
  command.insert(command.end(), arguments.begin(), arguments.end());

  std::vector<char*> argv;
  for (std::string& a : command) argv.push_back(a.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // ranks must not outlive a coordinator that was killed
    if (getppid() != parent) _exit(127);
    setpgid(0, 0);  // Ctrl-C in the terminal goes to the coordinator alone, which ends the ranks in order
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return std::unique_ptr<MpiRun>(new MpiRun(pid));
}

MpiRun::~MpiRun() {
  if (ended()) return;
  kill(pid_, SIGTERM);
  finish(std::chrono::milliseconds(0));
}

std::optional<std::string> MpiRun::ended() {
  if (ended_) return ended_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  ended_ = WIFSIGNALED(status) ? absl::StrCat("signal ", WTERMSIG(status)) : absl::StrCat("exit code ", WEXITSTATUS(status));
  return ended_;
}

void MpiRun::finish(std::chrono::milliseconds wait) {
  using Clock = std::chrono::steady_clock;
  const auto until = [&](Clock::time_point deadline) {
    while (!ended() && Clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return ended().has_value();
  };
  if (until(Clock::now() + wait)) return;
  kill(pid_, SIGTERM);
  if (until(Clock::now() + std::chrono::seconds(5))) return;
  kill(-pid_, SIGKILL);
  until(Clock::now() + std::chrono::seconds(2));
}

}  // namespace invar::launch
