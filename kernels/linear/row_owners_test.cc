// Rows dealt to owners: each row is one owner's, in the place that its block's turn gives it.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/linear/linear.h"

namespace invar {
namespace {

TEST(RowOwners, EachRowIsHeldOnce) {
  for (const int count : {2, 4, 8})
    for (const int64_t rows : {1, 65, 127, 128, 129, 256, 257, 1024, 1030, 2047, 8192, 10000}) {
      std::vector<int> held(static_cast<size_t>(rows));
      for (int owner = 0; owner < count; ++owner) {
        EXPECT_LE(RowOwners::held(rows, count, owner), RowOwners::held(rows, count, 0));
        for (int64_t i = 0; i < RowOwners::held(rows, count, owner); ++i) {
          const int64_t row = RowOwners::row_of(count, owner, i);
          ASSERT_LT(row, rows) << count << " owners, owner " << owner << ", place " << i;
          EXPECT_EQ(row / RowOwners::kBlock % count, owner);
          EXPECT_EQ(row / RowOwners::kBlock / count * RowOwners::kBlock + row % RowOwners::kBlock, i);
          ++held[static_cast<size_t>(row)];
        }
      }
      for (int64_t row = 0; row < rows; ++row) EXPECT_EQ(held[static_cast<size_t>(row)], 1) << "row " << row << " of " << rows;
    }
}

}  // namespace
}  // namespace invar
