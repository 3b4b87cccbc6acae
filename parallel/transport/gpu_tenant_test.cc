#include "parallel/transport/gpu_tenant.h"

#include <gtest/gtest.h>

#include <utility>

namespace invar::parallel {
namespace {

TEST(GpuTenant, OthersAreNotLetIn) {
  const int a = 0, b = 0;
  {
    const GpuTenant first(3, &a);
    EXPECT_TRUE(first.there());
    EXPECT_TRUE(GpuTenant(2, &b).there());  // another GPU
    EXPECT_FALSE(GpuTenant(3, &b).there());
  }
  EXPECT_TRUE(GpuTenant(3, &b).there());
}

TEST(GpuTenant, OneMayHaveTwoThingsOnAGpu) {
  const int a = 0, b = 0;
  GpuTenant peer(0, &a);
  const GpuTenant nccl(0, &a);
  EXPECT_TRUE(nccl.there());
  peer = GpuTenant();
  EXPECT_FALSE(GpuTenant(0, &b).there());  // one of the two is still there
  EXPECT_TRUE(GpuTenant(0, &a).there());
}

TEST(GpuTenant, MovesWithItsOwner) {
  const int a = 0, b = 0;
  GpuTenant held;
  {
    GpuTenant made(1, &a);
    held = std::move(made);
  }
  EXPECT_FALSE(GpuTenant(1, &b).there());
  held = GpuTenant();
  EXPECT_TRUE(GpuTenant(1, &b).there());
}

}  // namespace
}  // namespace invar::parallel
