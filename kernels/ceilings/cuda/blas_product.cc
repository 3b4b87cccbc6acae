#include "kernels/ceilings/cuda/blas_product.h"

#include <cublasLt.h>

#include <string>
#include <vector>

#include "kernels/device/cuda/context.h"

namespace invar::ceilings {
namespace {

constexpr size_t kWorkspace = size_t{64} << 20;

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceFailure("cuBLASLt: status " + std::to_string(static_cast<int>(status)));
}

// One library handle and one workspace for all products of a device, kept as long as any of them.
struct Library {
  explicit Library(const Device& device) : workspace(device, kWorkspace) { check(cublasLtCreate(&handle)); }
  ~Library() { cublasLtDestroy(handle); }
  cublasLtHandle_t handle = nullptr;
  Buffer workspace;
};
std::shared_ptr<Library> library_of(const Device& device) {
  thread_local std::weak_ptr<Library> last;
  thread_local const Device* of = nullptr;
  std::shared_ptr<Library> library = of == &device ? last.lock() : nullptr;
  if (!library) {
    library = std::make_shared<Library>(device);
    last = library;
    of = &device;
  }
  return library;
}

}  // namespace

struct BlasProduct::Plan {
  Plan(const Device& d, const BlasShape& s, int proposals) : device(d), library(library_of(d)) {
    const cudaDataType_t operand = s.fp32_operands ? CUDA_R_32F : CUDA_R_16BF;
    const cudaDataType_t result = s.fp32_operands || s.fp32_result ? CUDA_R_32F : CUDA_R_16BF;
    const cublasOperation_t transposed = CUBLAS_OP_T;  // in its column-major words: y = weights^T x
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    check(cublasLtMatrixLayoutCreate(&weights, operand, s.inputs, s.outputs, s.inputs));
    check(cublasLtMatrixLayoutCreate(&x, operand, s.inputs, s.rows, s.x_stride ? s.x_stride : s.inputs));
    check(cublasLtMatrixLayoutCreate(&y, result, s.outputs, s.rows, s.y_stride ? s.y_stride : s.outputs));
    cublasLtMatmulPreference_t preference;
    check(cublasLtMatmulPreferenceCreate(&preference));
    check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                               sizeof(kWorkspace)));
    int found = 0;
    algorithms.resize(static_cast<size_t>(proposals));
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library->handle, operation, weights, x, y, y, preference,
                                                                 proposals, algorithms.data(), &found);
    cublasLtMatmulPreferenceDestroy(preference);
    algorithms.resize(static_cast<size_t>(found));
    if (status != CUBLAS_STATUS_SUCCESS || found == 0)
      throw DeviceFailure("cuBLASLt has no algorithm for " + std::to_string(s.rows) + " rows, " + std::to_string(s.outputs) +
                          " x " + std::to_string(s.inputs));
  }
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {weights, x, y})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    if (operation) cublasLtMatmulDescDestroy(operation);
  }
  const Device& device;
  std::shared_ptr<Library> library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr, x = nullptr, y = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms;
};

BlasProduct::BlasProduct(const Device& device, const BlasShape& shape, int proposals)
    : plan_(std::make_unique<Plan>(device, shape, proposals)) {}
BlasProduct::~BlasProduct() = default;
BlasProduct::BlasProduct(BlasProduct&&) noexcept = default;
BlasProduct& BlasProduct::operator=(BlasProduct&&) noexcept = default;

size_t BlasProduct::algorithms() const { return plan_->algorithms.size(); }

bool BlasProduct::run(size_t algorithm, const void* weights, const void* x, void* y) const {
  const Plan& p = *plan_;
  const float one = 1, zero = 0;
  return cublasLtMatmul(p.library->handle, p.operation, &one, weights, p.weights, x, p.x, &zero, y, p.y, y, p.y,
                        &p.algorithms[algorithm].algo, p.library->workspace.data(), kWorkspace,
                        p.device.cuda().stream) == CUBLAS_STATUS_SUCCESS;
}

FastestProposal fastest_proposal(const BlasProduct& product, const Stopwatch& watch, int calls,
                                 const std::function<bool(size_t algorithm, int turn)>& run) {
  FastestProposal fastest{0, 1e30};
  for (size_t i = 0; i < product.algorithms(); ++i) {
    if (!run(i, 0)) continue;
    const double us = watch.in_graph([&](int turn) { run(i, turn); }, calls);
    if (us < fastest.us) fastest = {i, us};
  }
  if (fastest.us == 1e30) throw DeviceFailure("none of cuBLASLt's proposals runs");
  return fastest;
}

}  // namespace invar::ceilings
