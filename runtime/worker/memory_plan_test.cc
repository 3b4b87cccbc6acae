#include "runtime/worker/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace invar {
namespace {

using testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

ModelConfig config() {
  ModelConfig c;
  c.max_position_embeddings = 4096;
  return c;
}
constexpr MemoryNeeds kNeeds{.weights = 10 * kGiB, .activations = kGiB, .rope = 0, .page = 1 << 20};

TEST(MemoryPlan, PagesTakeWhatTheBudgetLeaves) {
  const auto kv = kv_size(config(), kNeeds, {}, 13 * kGiB);
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(kv->pages, 2048);  // 2 GiB of 1 MiB
}

TEST(MemoryPlan, NeverMoreThanAllSequencesCanUse) {
  RankOptions o;
  o.max_num_seqs = 2;
  EXPECT_EQ(kv_size(config(), kNeeds, o, 80 * kGiB)->pages, 2 * 4096 / 16);
  EXPECT_EQ(kv_size(config(), kNeeds, o, 0)->pages, 2 * 4096 / 16);
}

TEST(MemoryPlan, WhatDoesNotFitIsRefusedWithTheSum) {
  const auto none = kv_size(config(), kNeeds, {}, 11 * kGiB);
  EXPECT_THAT(std::string(none.status().message()),
              testing::AllOf(HasSubstr("11.00 GiB"), HasSubstr("10.00 GiB weights"), HasSubstr("--gpu-memory-utilization")));
  RankOptions o;
  o.kv_cache_bytes = 4 * kGiB;
  EXPECT_THAT(
      std::string(kv_size(config(), kNeeds, o, 13 * kGiB).status().message()),
      testing::AllOf(HasSubstr("leave 2.00 GiB"), HasSubstr("--kv-cache-memory-bytes 4294967296 (4.00 GiB of KV pages)")));
  EXPECT_EQ(kv_size(config(), kNeeds, o, 16 * kGiB)->pages, 4096);
  o.pages = 8192;
  EXPECT_THAT(std::string(kv_size(config(), kNeeds, o, 16 * kGiB).status().message()),
              testing::AllOf(HasSubstr("leave 5.00 GiB"), HasSubstr("--num-gpu-blocks-override 8192 (8.00 GiB of KV pages)")));
}

TEST(MemoryPlan, LessThanAPageIsTheFlagsFaultNotTheBudgets) {
  RankOptions o;
  o.kv_cache_bytes = 1000;
  EXPECT_THAT(std::string(kv_size(config(), kNeeds, o, 16 * kGiB).status().message()),
              HasSubstr("--kv-cache-memory-bytes 1000: not one page of 16 tokens fits; a page takes 1048576 bytes"));
}

TEST(MemoryPlan, OnTheHostPagesTakeTheirFlag) {
  RankOptions o;
  o.kv_cache_bytes = 8 << 20;
  EXPECT_EQ(kv_size(config(), kNeeds, o, 0)->pages, 8);
  o.kv_cache_bytes = 1;
  EXPECT_THAT(std::string(kv_size(config(), kNeeds, o, 0).status().message()), HasSubstr("--kv-cache-memory-bytes 1"));
  o.page_size = 24;
  EXPECT_THAT(std::string(kv_size(config(), kNeeds, o, 0).status().message()), HasSubstr("--block-size 24"));
}

}  // namespace
}  // namespace invar
