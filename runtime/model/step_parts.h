// What the parts of a decoder's step cost, by kind of operation: for benches only. The program is linked so that the decoder's
// calls come here or to free_linears.cc (CMakeLists.txt: --wrap), which hand them on.
//
// Two ways to ask. Of a step queued kernel by kernel: the time between two events around each call, where kernels are long (a
// prompt). Of a recorded step of short kernels, which overlap: the step once more without the calls of a kind. What it takes less
// is what they cost, launches and waits with them; what they would have left is stale, which changes no time.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/device/device.h"

namespace invar {

enum class StepPart : uint8_t { kColumn, kRow, kGated, kHead, kHeads, kAttention, kNorm, kMerge, kExchange, kMove, kSent };
inline constexpr int kStepParts = 11;
std::string_view name(StepPart part);

class StepParts {
 public:
  explicit StepParts(const Device& device);  // of the calling thread, until it ends; one a thread
  ~StepParts();
  StepParts(const StepParts&) = delete;
  StepParts& operator=(const StepParts&) = delete;

  // Bit i: calls of part i are left out from now on. Steps recorded before are recorded again.
  void leave_out(unsigned parts);
  // From now on events lie around every call; times() ends that. Microseconds by part, of all calls since.
  void time_calls();
  std::array<double, kStepParts> times();

  // A call of the decoder.
  static void run(StepPart part, const std::function<void()>& call);

 private:
  struct Timed;
  const Device& device_;
  Buffer renewed_;
  unsigned left_out_ = 0;
  std::unique_ptr<Timed> timed_;  // while calls are timed
};

}  // namespace invar
