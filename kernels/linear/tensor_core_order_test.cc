// The kernels' forms of the order clause against k_order.h and row_tree.h, and the packed layout. No GPU.
#include "kernels/linear/cuda/tensor_core_order.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/hostile_values.h"
#include "kernels/linear/k_order.h"

namespace invar::cuda::tc {
namespace {

// One k16 group as a chain meets it.
struct Group {
  int slot;
  int64_t begin, end;
  bool opens, folds;  // the first of its leaf; the leaf is added to the slot
  bool operator==(const Group&) const = default;
};

std::vector<Group> groups_of(const KOrder& order) {
  std::vector<Group> groups;
  std::vector<size_t> leaf;  // groups of the leaf at hand
  for (const KRun& run : order.runs) {
    for (int64_t k = run.begin; k < run.end; k += numerics::kTensorCoreGroup) {
      leaf.push_back(groups.size());
      groups.push_back({run.slot, k, std::min(run.end, k + numerics::kTensorCoreGroup), run.opens && k == run.begin, false});
    }
    if (!run.closes) continue;
    for (size_t i : leaf) groups[i].folds = run.folds;
    leaf.clear();
  }
  return groups;
}

std::vector<Group> groups_of(const SpanOrder& order) {
  std::vector<Group> groups;
  for (int span = 0; span < order.spans; ++span) {
    bool folds = false;
    for (int64_t i = 0; i < leaf_count(order, span); ++i) {
      const LeafRange leaf = leaf_range(order, span, i);
      for (int64_t j = 0; leaf.begin + j * numerics::kTensorCoreGroup < leaf.end; ++j) {
        const int64_t begin = group_begin(order, leaf, j);
        groups.push_back({order.first_slot + span, begin, std::min(leaf.end, begin + numerics::kTensorCoreGroup), j == 0, folds});
      }
      if (leaf.begin < leaf.end) folds = true;
    }
  }
  return groups;
}

constexpr ControlArm kArms[] = {ControlArm::kNone, ControlArm::kSwappedGroups, ControlArm::kFixedSplitCount};

TEST(TensorCoreOrder, ColumnSpansAreTheRunsOfKOrder) {
  for (ControlArm arm : kArms)
    for (int64_t inputs : {1, 15, 16, 17, 32, 40, 64, 512, 513, 528, 530, 576, 1024, 1100, 2048, 2049, 2064, 4096, 4200, 28672})
      for (int64_t rows : {1, 5})
        EXPECT_EQ(groups_of(column_spans(arm, rows, inputs)), groups_of(column_order(Profile::kTc, arm, rows, inputs)))
            << inputs << " inputs, arm " << name(arm);
}

TEST(TensorCoreOrder, RowSpansAreTheRunsOfKOrder) {
  for (ControlArm arm : kArms)
    for (auto [k, unit] : {std::pair<int64_t, int64_t>{4096, 512}, {12288, 64}, {768, 64}, {24, 8}, {7, 1}, {1, 1}, {200, 4}})
      for (int first = 0; first < numerics::kSegments; ++first)
        for (int last = first + 1; last <= numerics::kSegments; ++last) {
          const RowSegments segments = RowSegments::cut(k, unit);
          EXPECT_EQ(groups_of(row_spans(arm, 2, segments, first, last)),
                    groups_of(row_order(Profile::kTc, arm, 2, segments, first, last)))
              << k << " inputs, segments " << first << " .. " << last << ", arm " << name(arm);
        }
}

TEST(TensorCoreOrder, DeliveredNodesHaveTheValuesOfTheTree) {
  hostile::Values values(3);
  for (auto [k, unit] : {std::pair<int64_t, int64_t>{12288, 64}, {768, 64}, {24, 8}, {7, 1}, {1, 1}, {3, 1}})
    for (int first = 0; first < numerics::kSegments; ++first)
      for (int last = first + 1; last <= numerics::kSegments; ++last) {
        RowLinear problem{.segments = RowSegments::cut(k, unit), .first = first, .last = last};
        problem.nodes = maximal_subtrees(problem.segments, first, last);
        float segment[numerics::kSegments];
        std::vector<TreeNode> held;
        std::vector<float> held_values;
        for (int i = 0; i < numerics::kSegments; ++i) {
          segment[i] = numerics::bits_float(0x3f800000u + (values.next() >> 9));
          if (i < first || i >= last || problem.segments.empty(i, i + 1)) continue;
          held.push_back({0, i});
          held_values.push_back(segment[i]);
        }
        std::vector<float> delivered(problem.nodes.size(), -1.0f);
        merge_segments(tree_delivery(problem), segment, [&](int place, float value) {
          ASSERT_LT(static_cast<size_t>(place), delivered.size());
          EXPECT_EQ(delivered[place], -1.0f) << "twice";
          delivered[place] = value;
        });
        std::vector<const float*> inputs;
        for (const float& v : held_values) inputs.push_back(&v);
        for (size_t i = 0; i < problem.nodes.size(); ++i) {
          float expected = 0;
          TreeMerge(held, problem.nodes[i]).apply(inputs.data(), 1, &expected);
          EXPECT_EQ(numerics::float_bits(delivered[i]), numerics::float_bits(expected)) << k << " " << first << " .. " << last;
        }
      }
}

TEST(TensorCoreLayout, EveryElementHasItsOwnPlaceAndEightLinesAreOneStretch) {
  const int64_t outputs = 70, inputs = 130, padded = padded_outputs(outputs);
  EXPECT_EQ(padded, 128);
  std::set<int64_t> places;
  for (int64_t n = 0; n < outputs; ++n)
    for (int64_t k = 0; k < inputs; ++k) {
      const int64_t place = packed_element(padded, n, k);
      EXPECT_TRUE(places.insert(place).second);
      EXPECT_EQ(place / 64, k / 64 * padded + n);
      EXPECT_EQ(place % 64, (k % 64 / 8 ^ n % 8) * 8 + k % 8);
    }
}

}  // namespace
}  // namespace invar::cuda::tc
