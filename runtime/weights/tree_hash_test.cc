#include "runtime/weights/tree_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace invar {
namespace {

std::string hash(const std::vector<std::string>& parts) {
  Sha256 sha;
  for (const std::string& part : parts) sha.part(part);
  return sha.finish();
}

TEST(Sha256, PartsDoNotRunTogether) {
  EXPECT_EQ(hash({"ab", "c"}), hash({"ab", "c"}));
  EXPECT_NE(hash({"ab", "c"}), hash({"a", "bc"}));
  EXPECT_NE(hash({"ab", ""}), hash({"ab"}));
  EXPECT_EQ(hash({}).size(), 32u);
  EXPECT_NE(Sha256().number(1).finish(), Sha256().number(256).finish());
}

class HashItems : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937_64 random(9);
    data_.resize(2 * kHashChunkBytes + 12345);
    for (size_t i = 0; i + 8 <= data_.size(); i += 8) {
      const uint64_t word = random();
      std::copy_n(reinterpret_cast<const std::byte*>(&word), 8, &data_[i]);
    }
  }
  std::string root(int threads = 2) {
    const int64_t bytes = static_cast<int64_t>(data_.size());
    return hash_items("t", {{"a", "first", data_.data(), bytes}, {"b", "none", nullptr, 0}, {"c", "last", data_.data() + 5, 100}},
                      threads, [&](size_t i, int64_t begin, int64_t end) { hashed_[i] += end - begin; });
  }
  std::vector<std::byte> data_;
  int64_t hashed_[3] = {};
};

TEST_F(HashItems, DoesNotDependOnThreads) {
  const std::string one = root(1);
  EXPECT_EQ(hashed_[0], static_cast<int64_t>(data_.size()));
  EXPECT_EQ(hashed_[1], 0);
  EXPECT_EQ(hashed_[2], 100);
  for (const int threads : {2, 3, 9}) EXPECT_EQ(root(threads), one);
}

TEST_F(HashItems, SeesBytesOrderAndChunkBoundaries) {
  const std::string original = root();
  data_.back() ^= std::byte{1};
  EXPECT_NE(root(), original);
  data_.back() ^= std::byte{1};
  EXPECT_EQ(root(), original);
  std::swap_ranges(data_.begin(), data_.begin() + kHashChunkBytes, data_.begin() + kHashChunkBytes);  // two chunks change places
  EXPECT_NE(root(), original);
}

TEST_F(HashItems, SeesTitleNamesAndDescriptions) {
  const HashItem item = {"n", "d", data_.data(), 10};
  const auto none = [](size_t, int64_t, int64_t) {};
  const std::string original = hash_items("t", {item}, 1, none);
  EXPECT_EQ(hash_items("t", {item}, 1, none), original);
  HashItem other = item;
  other.name = "m";
  EXPECT_NE(hash_items("t", {other}, 1, none), original);
  other = item;
  other.description = "e";
  EXPECT_NE(hash_items("t", {other}, 1, none), original);
  EXPECT_NE(hash_items("u", {item}, 1, none), original);
  EXPECT_NE(hash_items("t", {item, item}, 1, none), original);
}

}  // namespace
}  // namespace invar
