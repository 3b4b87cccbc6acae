// y[rows][outputs] = x[rows][inputs] weights[outputs][inputs]^T by cuBLASLt: what our linears are compared with, and never a
// schedule of theirs. For benches, and for a test as an oracle.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/device/device.h"

namespace invar::ceilings {

struct BlasShape {
  int64_t rows = 0, outputs = 0, inputs = 0;
  int64_t x_stride = 0, y_stride = 0;  // elements; 0: inputs, outputs
  bool fp32_operands = false;          // else bf16
  bool fp32_result = false;            // of bf16 operands; of fp32 ones it is fp32
  auto operator<=>(const BlasShape&) const = default;
};

class BlasProduct {
 public:
  // The algorithms that cuBLASLt proposes for the shape with 64 MB of workspace, split-K among them; at most so many, its
  // favourite first, at least one. Throws DeviceFailure where it has none.
  BlasProduct(const Device& device, const BlasShape& shape, int proposals = 8);
  ~BlasProduct();
  BlasProduct(BlasProduct&&) noexcept;
  BlasProduct& operator=(BlasProduct&&) noexcept;

  size_t algorithms() const;
  // False: that algorithm will not run, and nothing was queued.
  bool run(size_t algorithm, const void* weights, const void* x, void* y) const;

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

struct FastestProposal {
  size_t algorithm;
  double us;  // of one call
};
// Each proposal that runs so many times in a graph, by run(algorithm, turn), which calls product.run() for that turn's memory and
// says what it says. Throws DeviceFailure where none runs.
FastestProposal fastest_proposal(const BlasProduct& product, const Stopwatch& watch, int calls,
                                 const std::function<bool(size_t algorithm, int turn)>& run);

}  // namespace invar::ceilings
