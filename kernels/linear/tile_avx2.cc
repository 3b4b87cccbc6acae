#include "kernels/linear/tile_vector.h"

namespace invar {

namespace {

using V = WordsAvx2;

// Sixteen registers: at most 12 accumulators, two weights, one value.
template <int R>
void add_rows(TileKernels* tiles) {
  tiles->portable.kernel[R][1] = portable_tile<V, R, 1, (R <= 3 ? 2 : 1)>;
  if constexpr (R == 1) tiles->portable.kernel[R][2] = portable_tile<V, R, 2, 2>;
  if constexpr (R <= 3) tiles->tc.kernel[R][1] = tc_tile<V, R>;
  if constexpr (R > 1) add_rows<R - 1>(tiles);
}

TileKernels make() {
  TileKernels tiles;
  tiles.portable.most_rows = 6;
  tiles.tc.most_rows = 3;
  add_rows<6>(&tiles);
  return tiles;
}

}  // namespace

const TileKernels& avx2_tiles() {
  static const TileKernels tiles = make();
  return tiles;
}

}  // namespace invar
