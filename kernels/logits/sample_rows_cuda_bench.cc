// Microseconds of RowSampler::run() on a GPU, downloads and the host's share included (wall clock, median), beside the download
// of the logits alone, which sampling on the host would need first. kernels_logits_cuda_bench
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/device/device_array.h"
#include "kernels/logits/sample_rows.h"

namespace invar {
namespace {

double median_microseconds(const std::function<void()>& f) {
  f();
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void run(const Device& device, int64_t rows, int64_t vocabulary) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> host(rows * vocabulary);
  for (float& z : host) z = normal(rng);
  const DeviceArray<float> logits(device, host);
  const Buffer staging = Buffer::staging(device, host.size() * sizeof(float));
  std::printf("%ld rows of %ld: download alone %.1f us\n", static_cast<long>(rows), static_cast<long>(vocabulary),
              median_microseconds([&] { device.download(staging.data(), logits.data(), staging.size()); }));
  std::vector<int32_t> tokens(500);
  for (int32_t& t : tokens) t = static_cast<int32_t>(rng() % vocabulary);
  struct Case {
    const char* what;
    SamplingControls controls;
    int32_t top_logprobs;
    std::span<const uint8_t> allowed = {};
  };
  std::vector<uint8_t> narrow((vocabulary + 7) / 8), wide((vocabulary + 7) / 8, 0xff);
  for (size_t i = 0; i < narrow.size(); i += 100) narrow[i] = 1, wide[i] = 0;
  const Case cases[] = {{"greedy", {.temperature = 0}, -1},
                        {"temperature", {.temperature = 0.7f}, -1},
                        {"temperature, log-probability", {.temperature = 0.7f}, 0},
                        {"greedy, 5 log-probabilities", {.temperature = 0}, 5},
                        {"top-k 20, top-p 0.95", {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}, -1},
                        {"top-p 0.9", {.temperature = 0.5f, .top_p = 0.9f}, -1},
                        {"min-p 0.05", {.min_p = 0.05f}, -1},
                        {"penalties", {.temperature = 0.7f, .repetition_penalty = 1.1f, .presence_penalty = 0.2f}, -1},
                        {"one mask, temperature", {.temperature = 0.7f}, -1, wide},
                        {"one mask, top-k 20, top-p 0.95", {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}, -1, wide},
                        {"narrow mask, top-k 20", {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}, -1, narrow}};
  RowSampler sampler(device);
  for (const Case& c : cases) {
    std::vector<SampleProblem> problems;
    for (int64_t r = 0; r < rows; ++r)
      problems.push_back({.controls = c.controls,
                          .prompt = tokens,
                          .output = tokens,
                          .allowed = c.allowed,
                          .position = static_cast<int32_t>(r),
                          .top_logprobs = c.top_logprobs});
    std::printf("  %-32s %9.1f us\n", c.what, median_microseconds([&] { sampler.run(logits.data(), vocabulary, problems); }));
  }
}

}  // namespace
}  // namespace invar

int main() {
  using namespace invar;
  const auto opened = Device::open({.threads = 4, .backend = Backend::kCuda});
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", std::string(opened.status().message()).c_str());
    return 1;
  }
  for (const int64_t rows : {1, 64}) run(**opened, rows, 151936);
}
