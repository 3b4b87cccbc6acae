#include "kernels/device/device.h"

#include <array>

#include "absl/status/status.h"

namespace invar {

namespace {

constexpr std::array kControlArms = {
    ControlArm::kNone,          ControlArm::kRankOrderAllReduce, ControlArm::kFixedSplitCount,
    ControlArm::kSwappedGroups, ControlArm::kReversedTies,       ControlArm::kExpertCapacity,
};

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::string_view name(Profile profile) {
  switch (profile) {
    case Profile::kPortable:
      return "portable";
    case Profile::kTc:
      return "tc";
  }
  return "unknown";
}

std::string_view name(ControlArm arm) {
  switch (arm) {
    case ControlArm::kNone:
      return "none";
    case ControlArm::kRankOrderAllReduce:
      return "rank-order-all-reduce";
    case ControlArm::kFixedSplitCount:
      return "fixed-split-count";
    case ControlArm::kSwappedGroups:
      return "swapped-groups";
    case ControlArm::kReversedTies:
      return "reversed-ties";
    case ControlArm::kExpertCapacity:
      return "expert-capacity";
  }
  return "unknown";
}

absl::StatusOr<Profile> parse_profile(std::string_view text) {
  for (Profile profile : {Profile::kPortable, Profile::kTc})
    if (text == name(profile)) return profile;
  return absl::InvalidArgumentError("profile: \"" + std::string(text) + "\" is neither \"portable\" nor \"tc\"");
}

absl::StatusOr<ControlArm> parse_control_arm(std::string_view text) {
  for (ControlArm arm : kControlArms)
    if (text == name(arm)) return arm;
  std::string known;
  for (ControlArm arm : kControlArms) known.append(known.empty() ? "" : ", ").append(name(arm));
  return absl::InvalidArgumentError("control arm: \"" + std::string(text) + "\" is not one of " + known);
}

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The four subsets (and F) that the AVX-512 files are compiled with; also covers operating systems that hide the registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

}  // namespace invar
