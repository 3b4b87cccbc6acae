#include "kernels/linear/tile_vector.h"

namespace invar {

namespace {

using V = WordsAvx512;

template <int R>
void add_rows(TileKernels* tiles) {
  tiles->portable.kernel[R][1] = portable_tile<V, R, 1, 1>;
  if constexpr (R <= 6) tiles->portable.kernel[R][2] = portable_tile<V, R, 2, 1>;
  if constexpr (R <= 3) tiles->portable.kernel[R][4] = portable_tile<V, R, 4, 1>;
  if constexpr (R <= 4) tiles->tc.kernel[R][1] = tc_tile<V, R>;
  if constexpr (R > 1) add_rows<R - 1>(tiles);
}

TileKernels make() {
  TileKernels tiles;
  tiles.portable.most_rows = 12;
  tiles.tc.most_rows = 4;
  add_rows<12>(&tiles);
  return tiles;
}

}  // namespace

const TileKernels& avx512_tiles() {
  static const TileKernels tiles = make();
  return tiles;
}

}  // namespace invar
