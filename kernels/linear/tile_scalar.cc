// Tile kernels without vector instructions of their own: the way for machines that have neither AVX2 nor AVX-512, and a second,
// independent walk over packed weights and runs.
#include "kernels/linear/tensor_core.h"
#include "kernels/linear/tile.h"

namespace invar {

namespace {

constexpr int kOutputs = 32;

void finish(const TileTask& t, const float* acc) {
  for (int j = 0; j < kOutputs; ++j) t.out[j] = t.fold ? numerics::add(t.out[j], acc[j]) : acc[j];
}

void portable(const TileTask& t) {
  const float* x = static_cast<const float*>(t.x);
  float acc[kOutputs];
  for (int j = 0; j < kOutputs; ++j) acc[j] = t.start ? t.start[j] : 0.0f;
  for (int64_t k = 0; k < t.count; ++k) {
    const uint32_t* line = t.weights + k * 16;
    for (int j = 0; j < 16; ++j) {
      acc[j] = numerics::fma(x[k], numerics::bits_float(line[j] << 16), acc[j]);
      acc[j + 16] = numerics::fma(x[k], numerics::bits_float(line[j] & 0xffff0000u), acc[j + 16]);
    }
  }
  finish(t, acc);
}

void tc(const TileTask& t) {
  const auto* x = static_cast<const TensorCoreGroup*>(t.x);
  float acc[kOutputs];
  for (int j = 0; j < kOutputs; ++j) acc[j] = t.start ? t.start[j] : 0.0f;
  for (int64_t k = 0; k < t.count; k += 16, ++x) {
    const int count = static_cast<int>(t.count - k < 16 ? t.count - k : 16);
    tensor_core::scalar_lanes(acc, 0xffffu, *x, t.weights + k * 16, 16, count, false);
    tensor_core::scalar_lanes(acc + 16, 0xffffu, *x, t.weights + k * 16, 16, count, true);
  }
  finish(t, acc);
}

}  // namespace

const TileKernels& scalar_tiles() {
  static const TileKernels tiles = [] {
    TileKernels t;
    t.portable.most_rows = t.tc.most_rows = 1;
    t.portable.kernel[1][1] = portable;
    t.tc.kernel[1][1] = tc;
    return t;
  }();
  return tiles;
}

}  // namespace invar
