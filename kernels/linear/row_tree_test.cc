#include "kernels/linear/row_tree.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/linear/hostile_values.h"

namespace invar {
namespace {

using numerics::bits_float;
using numerics::float_bits;
using numerics::kSegments;

std::string show(const std::vector<TreeNode>& nodes) {
  std::string text;
  for (const TreeNode& node : nodes) text += "(" + std::to_string(node.level) + "," + std::to_string(node.index) + ")";
  return text;
}

uint32_t canonical(float x) { return numerics::canonical_bits(x); }

// Written out from the contract, without the code under test: ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)), missing operands skipped.
struct Operand {
  bool there;
  float value;
};
Operand join(Operand a, Operand b) {
  if (!a.there) return b;
  if (!b.there) return a;
  return {true, numerics::add(a.value, b.value)};
}
Operand root_of(const Operand (&s)[8]) {
  return join(join(join(s[0], s[1]), join(s[2], s[3])), join(join(s[4], s[5]), join(s[6], s[7])));
}

TEST(RowSegments, CutsWholeUnitsAndLosesNothing) {
  for (int64_t unit : {1, 4, 16, 64, 128})
    for (int64_t units = 0; units <= 40; ++units) {
      const RowSegments s = RowSegments::cut(units * unit, unit);
      EXPECT_EQ(s.begin[0], 0);
      EXPECT_EQ(s.begin[kSegments], units * unit);
      for (int i = 0; i < kSegments; ++i) {
        EXPECT_LE(s.begin[i], s.begin[i + 1]);
        EXPECT_EQ(s.begin[i] % unit, 0);
        EXPECT_EQ(s.begin[i], unit * (i * units / 8));
        EXPECT_LE(s.begin[i + 1] - s.begin[i], (units / 8 + 1) * unit);  // as equal as whole units allow
      }
    }
}

TEST(MaximalSubtrees, EqualSharesAreOneNode) {
  const RowSegments s = RowSegments::cut(512, 64);
  EXPECT_EQ(show(maximal_subtrees(s, 0, 8)), "(3,0)");
  EXPECT_EQ(show(maximal_subtrees(s, 4, 8)), "(2,1)");
  EXPECT_EQ(show(maximal_subtrees(s, 2, 4)), "(1,1)");
  EXPECT_EQ(show(maximal_subtrees(s, 7, 8)), "(0,7)");
}

TEST(MaximalSubtrees, UnevenSharesAreTheLargestAlignedPieces) {
  const RowSegments s = RowSegments::cut(512, 64);
  EXPECT_EQ(show(maximal_subtrees(s, 1, 7)), "(0,1)(1,1)(1,2)(0,6)");
  EXPECT_EQ(show(maximal_subtrees(s, 0, 3)), "(1,0)(0,2)");
  EXPECT_EQ(show(maximal_subtrees(s, 3, 5)), "(0,3)(0,4)");
  EXPECT_EQ(show(maximal_subtrees(s, 5, 5)), "");
}

TEST(MaximalSubtrees, EmptyOnesAreLeftOut) {
  const RowSegments s = RowSegments::cut(3 * 16, 16);  // begins 0 0 0 16 16 16 32 32 48: segments 2, 5 and 7 have terms
  EXPECT_EQ(show(maximal_subtrees(s, 0, 8)), "(3,0)");
  EXPECT_EQ(show(maximal_subtrees(s, 0, 2)), "");
  EXPECT_EQ(show(maximal_subtrees(s, 0, 4)), "(2,0)");
  EXPECT_EQ(show(maximal_subtrees(s, 3, 7)), "(1,2)");
}

// Any cut of the segments over ranks gives the root of the whole, for full and sparse trees.
TEST(MergeToRoot, EveryCutGivesTheSameRoot) {
  hostile::Values random(3);
  for (int64_t units : {0, 1, 2, 3, 5, 7, 8, 9, 64}) {
    const RowSegments segments = RowSegments::cut(units * 16, 16);
    Operand s[8];
    for (int i = 0; i < 8; ++i) s[i] = {!segments.empty(i, i + 1), bits_float((random.next() & 0x81ffffffu) | 0x3e000000u)};
    const Operand root = root_of(s);
    EXPECT_EQ(root.there, units > 0);
    for (int cut = 0; cut < 128; ++cut) {  // bit i: a new rank starts at segment i + 1
      std::vector<TreeNode> all;
      std::vector<float> values;
      int first = 0;
      for (int i = 0; i < 8; ++i) {
        if (i < 7 && !(cut >> i & 1)) continue;
        const auto nodes = maximal_subtrees(segments, first, i + 1);
        for (const TreeNode& node : nodes) {
          Operand part[8];
          for (int j = 0; j < 8; ++j) part[j] = {s[j].there && j >> node.level == node.index, s[j].value};
          all.push_back(node);
          values.push_back(root_of(part).value);
        }
        first = i + 1;
      }
      ASSERT_EQ(float_bits(merge_to_root(all, values.data(), 1)), float_bits(root.there ? root.value : 0.0f))
          << units << " " << cut;
    }
  }
}

TEST(MergeToRoot, ADifferentOrderGivesDifferentBits) {
  hostile::Values random(5);
  const auto nodes = [] {
    std::vector<TreeNode> n;
    for (int i = 0; i < 8; ++i) n.push_back({0, i});
    return n;
  }();
  int different = 0;
  for (int trial = 0; trial < 200; ++trial) {
    float v[8], sum = 0;
    for (float& x : v) x = bits_float((random.next() & 0x81ffffffu) | 0x3e000000u);
    for (float x : v) sum = numerics::add(sum, x);
    different += float_bits(sum) != float_bits(merge_to_root(nodes, v, 1));
  }
  EXPECT_GT(different, 20);
}

TEST(MergeToRoot, AMissingOperandIsNotAZero) {
  // -0 + missing stays -0; with an added +0 it would not.
  const std::vector<TreeNode> nodes = {{0, 2}};
  const float minus_zero = -0.0f;
  EXPECT_EQ(float_bits(merge_to_root(nodes, &minus_zero, 1)), 0x80000000u);
  const float* values = &minus_zero;
  float root = 1;
  merge_to_root(nodes, &values, 1, &root);
  EXPECT_EQ(float_bits(root), 0x80000000u);
}

TEST(MergeToRoot, ManyElementsEqualOneByOne) {
  hostile::Values random(9);
  for (int64_t units : {1, 3, 6, 8, 11}) {
    const RowSegments segments = RowSegments::cut(units * 8, 8);
    for (int ranks = 1; ranks <= 8; ++ranks) {
      std::vector<TreeNode> nodes;
      for (int rank = 0; rank < ranks; ++rank)
        for (const TreeNode& node : maximal_subtrees(segments, rank * 8 / ranks, (rank + 1) * 8 / ranks)) nodes.push_back(node);
      for (int64_t count : {1, 7, 255, 256, 257, 1000}) {
        std::vector<std::vector<float>> values(nodes.size(), std::vector<float>(count));
        for (auto& node : values)
          for (float& x : node) x = bits_float(random.next() % 9 ? (random.next() & 0xbfffffffu) : random.next());
        std::vector<float> expected(count), element(nodes.size());
        for (int64_t e = 0; e < count; ++e) {
          for (size_t i = 0; i < nodes.size(); ++i) element[i] = values[i][e];
          expected[e] = merge_to_root(nodes, element.data(), 1);
        }
        std::vector<const float*> pointers;
        for (const auto& node : values) pointers.push_back(node.data());
        std::vector<float> root(count);
        merge_to_root(nodes, pointers.data(), count, root.data());
        for (int64_t e = 0; e < count; ++e)
          ASSERT_EQ(canonical(root[e]), canonical(expected[e])) << units << " " << ranks << " " << e;
        merge_to_root(nodes, pointers.data(), count, values[0].data());  // in place
        for (int64_t e = 0; e < count; ++e) ASSERT_EQ(canonical(values[0][e]), canonical(expected[e]));
      }
    }
  }
}

}  // namespace
}  // namespace invar
