#include "kernels/linear/k_order.h"

#include <algorithm>

namespace invar {

namespace {

constexpr int64_t kGroup = numerics::kTensorCoreGroup;

// One leaf as runs of bounded length.
void add_leaf(int64_t begin, int64_t end, bool folds, int slot, ControlArm arm, std::vector<KRun>* runs) {
  struct Piece {
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  int64_t rest = begin;
  if (arm == ControlArm::kSwappedGroups && end - begin > kGroup) {
    const int64_t second_end = std::min(end, begin + 2 * kGroup);
    pieces = {{begin + kGroup, second_end}, {begin, begin + kGroup}};
    rest = second_end;
  }
  for (; rest < end; rest += kLongestRun) pieces.push_back({rest, std::min(end, rest + kLongestRun)});
  for (size_t i = 0; i < pieces.size(); ++i) {
    const bool closes = i + 1 == pieces.size();
    runs->push_back({pieces[i].begin, pieces[i].end, i == 0, closes, closes && folds, slot});
  }
}

// A column's whole K or one segment of a row-parallel linear: leaves of `leaf` (0 = one leaf), folded left.
void add_span(int64_t begin, int64_t end, int64_t leaf, int slot, ControlArm arm, int64_t rows, std::vector<KRun>* runs) {
  const int64_t length = end - begin;
  if (length == 0) return;
  if (arm == ControlArm::kFixedSplitCount) {
    const int64_t pieces = rows <= 4 ? 4 : 1;
    bool folds = false;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t from = begin + i * length / pieces, to = begin + (i + 1) * length / pieces;
      if (from == to) continue;
      add_leaf(from, to, folds, slot, arm, runs);
      folds = true;
    }
    return;
  }
  if (leaf == 0) leaf = length;
  for (int64_t from = begin; from < end; from += leaf) add_leaf(from, std::min(end, from + leaf), from > begin, slot, arm, runs);
}

}  // namespace

KOrder column_order(Profile profile, ControlArm arm, int64_t rows, int64_t inputs) {
  KOrder order;
  add_span(0, inputs, numerics::column_leaf(profile), 0, arm, rows, &order.runs);
  return order;
}

KOrder row_order(Profile profile, ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last) {
  KOrder order;
  order.slots = numerics::kSegments;
  const int64_t origin = segments.begin[first];
  for (int i = first; i < last; ++i)
    add_span(segments.begin[i] - origin, segments.begin[i + 1] - origin, numerics::row_leaf(profile), i, arm, rows, &order.runs);
  return order;
}

}  // namespace invar
