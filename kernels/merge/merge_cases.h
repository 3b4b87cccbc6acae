// Node sets, values and problems for the tests of the merge. Test code only.
#pragma once

#include <vector>

#include "kernels/lanes/test_rows.h"
#include "kernels/linear/row_tree.h"
#include "kernels/merge/merge.h"

namespace invar::merge_cases {

// What `ranks` ranks with shares of the segments ship, for K that fills all segments or leaves some empty.
inline std::vector<std::vector<TreeNode>> node_sets() {
  std::vector<std::vector<TreeNode>> sets = {{}, {{0, 5}}, {{1, 1}, {0, 7}}};
  for (const auto& [k, unit] : {std::pair<int64_t, int64_t>{4096, 64}, {3, 1}, {5, 1}, {576, 64}})
    for (int ranks = 1; ranks <= 8; ++ranks) {
      const RowSegments segments = RowSegments::cut(k, unit);
      std::vector<TreeNode> nodes;
      for (int rank = 0; rank < ranks; ++rank)
        for (const TreeNode& node : maximal_subtrees(segments, rank * 8 / ranks, (rank + 1) * 8 / ranks)) nodes.push_back(node);
      sets.push_back(nodes);
    }
  sets.push_back({{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}, {0, 7}});
  return sets;
}

// `count` values of each node.
inline std::vector<std::vector<float>> node_values(size_t nodes, int64_t count, test_rows::Kind kind) {
  std::vector<std::vector<float>> values;
  for (size_t i = 0; i < nodes; ++i) values.push_back(test_rows::float_data(count, kind, 100 + i));
  return values;
}

}  // namespace invar::merge_cases
