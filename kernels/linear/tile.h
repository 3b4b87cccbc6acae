// One kernel call: some rows times one or more panels over one run of k. The driver in linear.cc cuts a linear into these; a
// table per vector path holds the kernels.
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// R rows (the kernel's own number) times P panels. The chain of each output goes on from `start` (null: from +0); its end is
// stored to out or, with `fold`, added to what is there: out = RN(out + value). Row r, panel p, output j at out[r * stride + p *
// 32 + j].
struct TileTask {
  const uint32_t* weights = nullptr;  // first panel's line of the run's first k
  int64_t panel_stride = 0;           // words from panel to panel
  int64_t ahead = 0;                  // words from the line in use to the line to prefetch
  const void* x = nullptr;            // portable: float[groups][R][16], tc: TensorCoreGroup[groups][R], groups of 16 k
  int64_t count = 0;                  // k in the run
  const float* start = nullptr;
  float* out = nullptr;
  int64_t stride = 0;
  bool fold = false;
};

using TileKernel = void (*)(const TileTask&);

inline constexpr int kMostRows = 12;
inline constexpr int kMostPanels = 4;

struct TileKernels {
  struct Table {
    int most_rows = 0;
    TileKernel kernel[kMostRows + 1][kMostPanels + 1] = {};  // [rows][panels], null where there is none; panels 1 always exists
  };
  Table portable;
  Table tc;
};

const TileKernels& scalar_tiles();
const TileKernels& avx2_tiles();
const TileKernels& avx512_tiles();

}  // namespace invar
