// The GPU's formula for the order of `portable` against the list that the CPU walks. Needs no GPU.
#include "kernels/linear/cuda/portable_order.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/linear/k_order.h"

namespace invar {
namespace {

// One leaf's chain, and the slot whose fold it joins.
struct Chain {
  int slot;
  std::vector<int64_t> k;
  bool operator==(const Chain&) const = default;
};

std::vector<Chain> chains(const KOrder& order) {
  std::vector<Chain> all;
  for (const KRun& run : order.runs) {
    if (run.opens) all.push_back({run.slot, {}});
    for (int64_t k = run.begin; k < run.end; ++k) all.back().k.push_back(k);
  }
  return all;
}

std::vector<Chain> chains(const cuda::portable::LeafOrder& order) {
  std::vector<Chain> all;
  for (int s = 0; s < order.spans; ++s)
    for (int i = order.first_leaf[s]; i < order.first_leaf[s + 1]; ++i) {
      const auto range = order.range(s, i);
      if (range.begin == range.end) continue;
      all.push_back({s, {}});
      for (int j = 0; j < range.end - range.begin; ++j) all.back().k.push_back(order.chain(range, j));
    }
  return all;
}

constexpr ControlArm kArms[] = {ControlArm::kNone, ControlArm::kFixedSplitCount, ControlArm::kSwappedGroups};

TEST(PortableOrder, TheFormulaIsTheList) {
  int64_t different = 0;
  for (int64_t inputs : {0, 1, 3, 16, 17, 29, 32, 33, 255, 256, 257, 272, 280, 600, 1536, 4096})
    for (ControlArm arm : kArms)
      for (int64_t rows : {1, 4, 5, 64}) {
        const auto want = chains(column_order(Profile::kPortable, arm, rows, inputs));
        EXPECT_EQ(chains(cuda::portable::column_leaves(arm, rows, inputs)), want) << inputs << " " << name(arm) << " " << rows;
        different += arm != ControlArm::kNone && want != chains(cuda::portable::column_leaves(ControlArm::kNone, rows, inputs));
        for (int64_t unit : {1, 8, 64}) {
          const RowSegments segments = RowSegments::cut(inputs, unit);
          for (int first = 0; first < 8; ++first)
            for (int last = first + 1; last <= 8; ++last)
              EXPECT_EQ(chains(cuda::portable::row_leaves(arm, rows, segments, first, last)),
                        chains(row_order(Profile::kPortable, arm, rows, segments, first, last)))
                  << inputs << " " << name(arm) << " " << rows << " unit " << unit << " segments " << first << " " << last;
        }
      }
  EXPECT_GT(different, 50);
}

}  // namespace
}  // namespace invar
