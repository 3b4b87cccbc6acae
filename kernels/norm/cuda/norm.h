// RMSNorm on a GPU: how a problem is laid over blocks (plain data, decided on the host), and the entry that launches it.
#pragma once

#include "kernels/norm/norm.h"
#include "kernels/norm/residual_norm.h"

namespace invar::cuda {

// Equal bits, different shapes. A piece is some neighbouring elements that one access moves.
struct NormPlan {
  enum class Schedule : uint8_t {
    kRows,     // a block takes a row, each thread the same virtual lanes of all its sweeps of 1024 elements: width <= 16384
    kGroups,   // 8, 16 or 32 threads take a vector, 8 elements each: width <= 256
    kGeneric,  // a block takes a vector element by element: any width, alignment and stride
  };
  Schedule schedule = Schedule::kGeneric;
  int lanes = 0;    // kRows: lanes of a thread, 8 or 4; fewer means more threads, so a lone row is there sooner
  int threads = 0;  // kGroups: threads of a vector
};
inline constexpr int64_t kNormWidest = 16384;

// `aligned`: all pointers and strides keep 16-byte pieces aligned.
NormPlan plan_norm(int multiprocessors, int64_t rows, int64_t groups, int64_t width, bool aligned);

void rms_norm(const Device& device, const RmsNorm& problem);
void rms_norm(const Device& device, const RmsNorm& problem, const NormPlan& plan);
void residual_rms_norm(const Device& device, const ResidualRmsNorm& problem);
void residual_rms_norm(const Device& device, const ResidualRmsNorm& problem, const NormPlan& plan);

}  // namespace invar::cuda
