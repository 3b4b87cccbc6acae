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

}  // namespace invar::ceilings
