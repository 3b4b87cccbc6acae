// Time of one draw over a vocabulary of 151936 on one core, by what is asked.
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/logits/logits.h"

namespace invar {
namespace {

double microseconds(const std::function<void()>& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  for (int i = 0; i < 60; ++i) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  return best;
}

void run() {
  constexpr int64_t kVocabulary = 151936;
  std::mt19937 rng(1);
  std::vector<int32_t> prompt(4000);
  for (int32_t& t : prompt) t = static_cast<int32_t>(rng() % kVocabulary);
  struct Case {
    const char* what;
    SamplingControls controls;
    int32_t top_logprobs;
  };
  const Case cases[] = {{"greedy", {.temperature = 0}, -1},
                        {"greedy, 5 logprobs", {.temperature = 0}, 5},
                        {"temperature 1", {}, -1},
                        {"temperature 0.7", {.temperature = 0.7f}, -1},
                        {"top-k 50", {.temperature = 0.7f, .top_k = 50}, -1},
                        {"top-p 0.9", {.temperature = 0.7f, .top_p = 0.9f}, -1},
                        {"top-k 50, top-p 0.9", {.temperature = 0.7f, .top_k = 50, .top_p = 0.9f}, -1},
                        {"min-p 0.05", {.temperature = 0.7f, .min_p = 0.05f}, -1},
                        {"greedy, repetition penalty", {.temperature = 0, .repetition_penalty = 1.1f}, -1}};
  for (const float spread : {0.5f, 3.0f}) {  // a flat and a peaked distribution
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> z(kVocabulary);
    for (float& x : z) x = normal(rng);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      if (isa == Isa::kAvx512 && detect_isa() != Isa::kAvx512) continue;
      const Device device({.isa = isa});
      std::printf("%s, logits of spread %.1f\n", std::string(name(isa)).c_str(), spread);
      volatile uint64_t sink = 0;
      std::printf("  %-28s %8.1f us\n", "hash", microseconds([&] { sink = hash_logits(device, z.data(), kVocabulary, 0); }));
      for (const Case& c : cases) {
        const SampleProblem problem{.logits = z, .controls = c.controls, .prompt = prompt, .top_logprobs = c.top_logprobs};
        std::printf("  %-28s %8.1f us\n", c.what,
                    microseconds([&] { sink = static_cast<uint64_t>(sample(device, problem).token); }));
      }
    }
  }
}

}  // namespace
}  // namespace invar

int main() { invar::run(); }
