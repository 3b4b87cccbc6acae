#include "runtime/engine/page_pool.h"

#include <numeric>
#include <set>

#include "gtest/gtest.h"

namespace invar::engine {
namespace {

std::vector<BlockKey> keys_of(std::vector<int32_t> tokens, int64_t page_size = 4) {
  std::vector<BlockKey> keys;
  extend_block_keys(tokens, page_size, &keys);
  return keys;
}

TEST(BlockKeys, OnlyFullBlocksAndChained) {
  EXPECT_TRUE(keys_of({1, 2, 3}).empty());
  const auto a = keys_of({1, 2, 3, 4, 5, 6, 7, 8, 9});
  ASSERT_EQ(a.size(), 2u);
  EXPECT_EQ(keys_of({1, 2, 3, 4})[0], a[0]);
  const auto b = keys_of({9, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_NE(b[1], a[1]) << "equal blocks after different prefixes are different";
  EXPECT_NE(keys_of({5, 6, 7, 8})[0], a[1]) << "the same block at the start is different";
}

TEST(BlockKeys, ExtendingEqualsComputingAtOnce) {
  std::vector<int32_t> tokens(37);
  std::iota(tokens.begin(), tokens.end(), 3);
  std::vector<BlockKey> grown;
  for (size_t n = 0; n <= tokens.size(); ++n) extend_block_keys(std::span(tokens).first(n), 4, &grown);
  EXPECT_EQ(grown, keys_of(tokens));
}

TEST(PagePool, AllocatesAllOrNothing) {
  PagePool pool(4);
  std::vector<uint32_t> pages;
  EXPECT_TRUE(pool.allocate(3, &pages));
  EXPECT_FALSE(pool.allocate(2, &pages));
  EXPECT_EQ(pages.size(), 3u);
  EXPECT_EQ(pool.used(), 3);
  EXPECT_EQ(std::set<uint32_t>(pages.begin(), pages.end()).size(), 3u);
  pool.release(pages);
  EXPECT_EQ(pool.available(), 4);
}

TEST(PagePool, CachedPagesAreFoundSharedAndKept) {
  PagePool pool(3);
  const auto keys = keys_of({1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<uint32_t> pages;
  ASSERT_TRUE(pool.allocate(2, &pages));
  pool.remember(keys[0], pages[0]);
  pool.remember(keys[1], pages[1]);
  pool.share(pages[0]);
  EXPECT_EQ(pool.references(pages[0]), 2);
  pool.release(pages);
  EXPECT_EQ(pool.used(), 1);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.find(keys[0]), pages[0]);
  EXPECT_EQ(pool.find(keys[1]), pages[1]);
  pool.release(std::span(pages).first(1));
  EXPECT_EQ(pool.cached(), 2);
  EXPECT_EQ(pool.available(), 3);
}

TEST(PagePool, EvictsTheTailOfTheLeastRecentlyUsedFirst) {
  PagePool pool(4);
  const auto a = keys_of({1, 1, 1, 1, 2, 2, 2, 2}), b = keys_of({3, 3, 3, 3, 4, 4, 4, 4});
  std::vector<uint32_t> pa, pb;
  ASSERT_TRUE(pool.allocate(2, &pa) && pool.allocate(2, &pb));
  for (int i = 0; i < 2; ++i) pool.remember(a[i], pa[i]), pool.remember(b[i], pb[i]);
  pool.release(pa);
  pool.release(pb);
  std::vector<uint32_t> more;
  ASSERT_TRUE(pool.allocate(1, &more));
  EXPECT_FALSE(pool.find(a[1]).has_value());
  EXPECT_TRUE(pool.find(a[0]).has_value());
  ASSERT_TRUE(pool.allocate(1, &more));
  EXPECT_FALSE(pool.find(a[0]).has_value());
  EXPECT_TRUE(pool.find(b[0]).has_value() && pool.find(b[1]).has_value());
  // Using b again makes it young; there is nothing older left, so its tail goes next.
  pool.share(pb[0]);
  pool.release(std::span(pb).first(1));
  ASSERT_TRUE(pool.allocate(1, &more));
  EXPECT_FALSE(pool.find(b[1]).has_value());
}

TEST(PagePool, TheFirstOfTwoEqualBlocksIsKept) {
  PagePool pool(2);
  const auto keys = keys_of({1, 2, 3, 4});
  std::vector<uint32_t> pages;
  ASSERT_TRUE(pool.allocate(2, &pages));
  pool.remember(keys[0], pages[0]);
  pool.remember(keys[0], pages[1]);
  EXPECT_EQ(pool.find(keys[0]), pages[0]);
  pool.release(pages);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.available(), 2);
}

TEST(PagePool, FlushAndForget) {
  PagePool pool(3);
  const auto keys = keys_of({1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<uint32_t> pages;
  ASSERT_TRUE(pool.allocate(2, &pages));
  pool.remember(keys[0], pages[0]);
  pool.remember(keys[1], pages[1]);
  EXPECT_EQ(pool.flush(), 0) << "in use";
  EXPECT_TRUE(pool.find(keys[0]).has_value());
  pool.forget(pages[1]);
  EXPECT_FALSE(pool.find(keys[1]).has_value());
  pool.release(pages);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.flush(), 1);
  EXPECT_FALSE(pool.find(keys[0]).has_value());
  EXPECT_EQ(pool.available(), 3);
}

}  // namespace
}  // namespace invar::engine
