#include "parallel/transport/gpu_tenant.h"

#include <gtest/gtest.h>

#include <utility>

namespace invar::parallel {
namespace {

using enum GpuTenant::Bears;

TEST(GpuTenant, AGroupOfOneRankAGpuIsAlone) {
  const int a = 0, b = 0;
  {
    const GpuTenant first(3, &a, kNobody);
    EXPECT_TRUE(first.there());
    EXPECT_TRUE(GpuTenant(2, &b, kNobody).there());  // another GPU
    EXPECT_FALSE(GpuTenant(3, &b, kNobody).there());
    EXPECT_FALSE(GpuTenant(3, &a, kNobody).there());
    EXPECT_FALSE(GpuTenant(3, &b, kOwnRank).there());
  }
  EXPECT_TRUE(GpuTenant(3, &b, kNobody).there());
}

TEST(GpuTenant, ARankMayHaveTwoThingsOnItsGpu) {
  const int a = 0, b = 0;
  GpuTenant peer(0, &a, kNobody);
  const GpuTenant nccl(0, &a, kOwnRank);
  EXPECT_TRUE(nccl.there());
  peer = GpuTenant();
  EXPECT_FALSE(GpuTenant(0, &b, kOwnRank).there());  // one of the two is still there
  EXPECT_TRUE(GpuTenant(0, &a, kOwnRank).there());
}

TEST(GpuTenant, RanksThatShareAGpuBearOneAnother) {
  const int a = 0, b = 0, c = 0;
  const GpuTenant first(0, &a, kEverybody), second(0, &b, kEverybody);
  EXPECT_TRUE(first.there() && second.there());
  EXPECT_FALSE(GpuTenant(0, &c, kNobody).there());
}

TEST(GpuTenant, MovesWithItsOwner) {
  const int a = 0, b = 0;
  GpuTenant held;
  {
    GpuTenant made(1, &a, kNobody);
    held = std::move(made);
  }
  EXPECT_FALSE(GpuTenant(1, &b, kNobody).there());
  held = GpuTenant();
  EXPECT_TRUE(GpuTenant(1, &b, kNobody).there());
}

}  // namespace
}  // namespace invar::parallel
