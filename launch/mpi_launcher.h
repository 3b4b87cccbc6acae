// Starts the ranks of `invar serve --transport mpi` on this machine and watches them. Clusters start `invar worker` by their own
// mpirun or srun instead.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::launch {

class MpiRun {
 public:
  // mpirun -np `ranks` PROGRAM `arguments`, with `mpirun_arguments` before PROGRAM (hosts, interfaces). The ranks' output goes to
  // this process's stderr. NotFound when there is no mpirun.
  static absl::StatusOr<std::unique_ptr<MpiRun>> start(int ranks, const std::vector<std::string>& mpirun_arguments,
                                                       const std::vector<std::string>& arguments);
  ~MpiRun();  // kills what is left, does not wait for good-byes

  // How mpirun ended, once it has: "exit code 1", "signal 9".
  std::optional<std::string> ended();
  // Waits at most `wait` for the ranks to leave by themselves, then tells mpirun to end them.
  void finish(std::chrono::milliseconds wait);

 private:
  explicit MpiRun(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  std::optional<std::string> ended_;
};

}  // namespace invar::launch
