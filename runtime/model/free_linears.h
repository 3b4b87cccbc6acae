// The linears of a decoder by cuBLASLt instead of ours, to see what the contract's order costs: for benches only. The program is
// linked so that the decoder's calls come here (CMakeLists.txt: --wrap); off, they go on to ours.
//
// Free: the fastest of the algorithms that cuBLASLt proposes for a shape, split-K allowed, bf16 out (the head fp32), gate and up
// followed by our activation, a row-parallel linear's result read as bf16 by our residual and norm (ours add to the residual
// stream themselves; cuBLASLt's do not, and the decoder is told so). Of several ranks the row-parallel results are summed in bf16
// by ncclAllReduce. The numbers are those of other matrices, because our packing is read as rows: only times mean anything.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/device/device.h"
#include "kernels/linear/gated_linear.h"
#include "kernels/linear/linear.h"
#include "kernels/merge/merge.h"
#include "parallel/reduce/nccl_sum.h"
#include "parallel/reduce/tree_all_reduce.h"

namespace invar {

class FreeLinears {
 public:
  // Of the calling thread, until it ends; one a thread. `sum`: of several ranks. Both outlive it.
  explicit FreeLinears(const Device& device, const parallel::NcclSum* sum = nullptr);
  ~FreeLinears();
  FreeLinears(const FreeLinears&) = delete;
  FreeLinears& operator=(const FreeLinears&) = delete;

  // Steps recorded before the change are recorded again.
  void turn(bool on);
  // Besides the shapes that steps have used: those of steps with so many rows, and with so many rows of logits. No more than in
  // the largest of the steps since the last choose(), whose matrices are used.
  void expect(std::span<const int64_t> rows, std::span<const int64_t> logits);
  // Times the algorithms of every shape that a step has used or expect() has named since, over the matrices the step used:
  // several times the second-level cache.
  void choose();
  // Calls of each function below have come here, on or off. If not, the program was linked wrongly.
  bool linked() const {
    return columns_ > 0 && rows_ > 0 && gated_ > 0 && ((sum_ ? sums_ : merges_) > 0 || unmerged_ == 0) &&
           (adds_ > 0 || rows_ == unmerged_);
  }

  void column(const Device& device, const ColumnLinear& problem);
  void row(const Device& device, const RowLinear& problem);
  bool adds(const Device& device, const RowLinear& problem);  // row_adds_residual(), which free linears are not
  void gated(const Device& device, const GatedLinear& problem);
  void merge(const Device& device, const MergeResidualNorm& problem);
  // TreeAllReduce::run() with what follows; false: it is ours to do.
  bool reduce(const parallel::RowReduction& problem, const parallel::ResidualNorm& next);

 private:
  struct Call {
    const void* weights;
    const void* x;
    void* y;
  };
  struct Product {
    ceilings::BlasProduct product;
    size_t chosen = 0;
    bool timed = false;
    std::vector<Call> seen;
  };
  struct Largest {
    int64_t rows = 0;
    std::vector<Call> calls;
  };

  Product& product(const ceilings::BlasShape& shape);

  // Our residual and norm behind a bf16 result y.
  void follow(int64_t rows, int64_t width, const Bf16* y, const parallel::ResidualNorm& next) const;
  void multiply(int64_t rows, const PackedWeights& weights, const Bf16* x, int64_t x_stride, void* y, int64_t y_stride,
                bool fp32);

  const Device& device_;
  const parallel::NcclSum* sum_;
  Buffer renewed_;
  std::map<ceilings::BlasShape, Product> products_;
  std::map<ceilings::BlasShape, Largest> largest_;  // since choose(); by shape but for the rows
  bool on_ = false;
  int64_t columns_ = 0, rows_ = 0, unmerged_ = 0, adds_ = 0, gated_ = 0, merges_ = 0, sums_ = 0;
};

}  // namespace invar
