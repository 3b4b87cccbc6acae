#include "kernels/ceilings/cuda/stopwatch.h"

#include <algorithm>
#include <vector>

#include "kernels/device/cuda/context.h"

namespace invar::ceilings {
namespace {

cudaEvent_t event() {
  cudaEvent_t e;
  cuda::check(cudaEventCreate(&e));
  return e;
}
cudaEvent_t as_event(void* e) { return static_cast<cudaEvent_t>(e); }

}  // namespace

Stopwatch::Stopwatch(const Device& device) : device_(device), begin_(event()), end_(event()) {}

Stopwatch::~Stopwatch() {
  cudaEventDestroy(as_event(begin_));
  cudaEventDestroy(as_event(end_));
}

double Stopwatch::once(const std::function<void()>& queue) const {
  float ms;
  cuda::check(cudaEventRecord(as_event(begin_), device_.cuda().stream));
  queue();
  cuda::check(cudaEventRecord(as_event(end_), device_.cuda().stream));
  cuda::check(cudaEventSynchronize(as_event(end_)));
  cuda::check(cudaEventElapsedTime(&ms, as_event(begin_), as_event(end_)));
  return ms * 1e3;
}

double Stopwatch::in_graph(const std::function<void(int)>& call, int count, int replays) const {
  const RecordedWork work = device_.record([&] {
    for (int i = 0; i < count; ++i) call(i);
  });
  device_.run(work);
  std::vector<double> times;
  for (int i = 0; i < replays; ++i) times.push_back(once([&] { device_.run(work); }) / count);
  std::nth_element(times.begin(), times.begin() + replays / 2, times.end());
  return times[times.size() / 2];
}

std::vector<double> Stopwatch::by_turns(const std::vector<std::function<void()>>& rivals, int turns) const {
  constexpr double kTurn = 10'000;  // us
  std::vector<RecordedWork> work;
  std::vector<int> counts;
  for (const auto& rival : rivals) {
    rival();
    const int count = std::max(1, static_cast<int>(kTurn / once(rival)));
    work.push_back(device_.record([&] {
      for (int i = 0; i < count; ++i) rival();
    }));
    counts.push_back(count);
  }
  std::vector<std::vector<double>> times(rivals.size());
  for (int turn = 0; turn < turns; ++turn)
    for (size_t i = 0; i < rivals.size(); ++i) {
      device_.run(work[i]);
      times[i].push_back(once([&] { device_.run(work[i]); }) / counts[i]);
    }
  std::vector<double> medians;
  for (std::vector<double>& t : times) {
    std::nth_element(t.begin(), t.begin() + turns / 2, t.end());
    medians.push_back(t[turns / 2]);
  }
  return medians;
}

}  // namespace invar::ceilings
