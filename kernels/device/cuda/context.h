// One GPU as a rank uses it: a stream and the facts that plans are made from. For CUDA sources only.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <source_location>
#include <string>

#include "kernels/device/device.h"

namespace invar {

struct CudaContext {
  int index = 0;
  cudaStream_t stream = nullptr;  // non-blocking: the legacy stream of other code does not order it
  int multiprocessors = 0;
  int shared_memory = 0;  // bytes that one block may ask for
  std::string name;
  decltype(&cuTensorMapEncodeTiled) encode_tensor_map = nullptr;
  // A counter for kernels of this stream whose blocks take their work one after the other: zero whenever no kernel runs.
  uint32_t* taken = nullptr;
};

namespace cuda {

// Throws DeviceFailure with place and CUDA's message unless `error` is success.
void check(cudaError_t error, std::source_location where = std::source_location::current());

// A tensor map of a row-major bf16 matrix [rows][columns], rows `stride` elements apart (a multiple of 8; base 16-byte aligned).
// Boxes of box_rows x 64 columns arrive in shared memory with the 128-byte swizzle: the 16-byte piece c of row r lies at piece
// c ^ (r mod 8). What lies outside the matrix arrives as +0.
CUtensorMap tensor_map(const Device& device, const Bf16* base, int64_t rows, int64_t columns, int64_t stride, int box_rows);

}  // namespace cuda
}  // namespace invar
