// In which order the terms of one output meet: the order clause as data. Every schedule walks these runs; the reference in
// linear_reference.cc does not use them, so that a mistake here shows.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/device.h"
#include "kernels/linear/row_tree.h"

namespace invar {

// A stretch of k that one kernel call passes, ascending. Runs of one leaf follow each other: the first starts the chain from +0,
// the last ends it. A leaf's value is the first value of its slot or is added to it (RN). k16 groups start at `begin`.
struct KRun {
  int64_t begin = 0;
  int64_t end = 0;
  bool opens = true;
  bool closes = true;
  bool folds = false;
  int slot = 0;
};

struct KOrder {
  std::vector<KRun> runs;
  int slots = 1;  // column-parallel: 1; row-parallel: kSegments, slot i = segment i (an empty one has no run)
};

// At most this many k a run, a multiple of 16: a run's weights for 32 outputs (16 KB) and its rows stay in the first cache.
inline constexpr int64_t kLongestRun = 256;

// `rows` matters to kFixedSplitCount alone: the contract's order never looks at it.
KOrder column_order(Profile profile, ControlArm arm, int64_t rows, int64_t inputs);
// k of segments [first, last), counted from segments.begin[first].
KOrder row_order(Profile profile, ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last);

}  // namespace invar
