// Norm, rotation and cache write in one launch against the four operations, each of which is tested against its reference: on the
// host for the rows, on the GPU for the pages, whose layout is the backend's own.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/heads/cuda/heads.h"
#include "kernels/heads/heads.h"
#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;
using HeadsCuda = CudaTest;
using Schedule = cuda::HeadsPlan::Schedule;

struct Shape {
  int64_t rows, query_heads, kv_heads, head_dim, rotary_dim, gap;
};

std::vector<Bf16> memory_of(const Device& device, const Bf16* from, size_t bytes) {
  std::vector<Bf16> values(bytes / sizeof(Bf16));
  device.download(values.data(), from, values.size() * sizeof(Bf16));
  return values;
}

TEST_F(HeadsCuda, OneLaunch_GivesTheBitsOfTheFourOperations) {
  constexpr int64_t kPages = 12, kPageSize = 32;
  for (const Shape& s :
       {Shape{1, 32, 8, 128, 128, 0}, Shape{65, 32, 8, 128, 128, 8}, Shape{7, 9, 3, 64, 64, 0}, Shape{3, 4, 4, 96, 96, 0},
        Shape{2, 2, 1, 256, 64, 0}, Shape{9, 3, 2, 256, 256, 8}, Shape{5, 6, 2, 80, 32, 16}, Shape{4, 3, 1, 24, 16, 0},
        Shape{2, 2, 2, 40, 40, 0}, Shape{300, 32, 8, 128, 128, 0}, Shape{77, 4, 1, 128, 128, 0}, Shape{33, 14, 2, 64, 64, 0}})
    for (const bool normed : {true, false})
      for (const Kind kind : {Kind::kOrdinary, Kind::kSpread, Kind::kNonFinite}) {
        RopeTable table = RopeTable::make({}, 10000, s.rotary_dim, 500).value();
        table.to_device(device());
        const int64_t stride = (s.query_heads + 2 * s.kv_heads) * s.head_dim + s.gap;
        const std::vector<Bf16> start = bf16_data(s.rows * stride, kind, 3);
        const std::vector<Bf16> q_weight = bf16_data(s.head_dim, Kind::kSpread, 4),
                                k_weight = bf16_data(s.head_dim, Kind::kSpread, 5);
        std::vector<int32_t> positions(s.rows);
        std::vector<int64_t> slots(s.rows);
        for (int64_t r = 0; r < s.rows; ++r) {
          positions[r] = static_cast<int32_t>((r * 7919 + 3) % 500);
          slots[r] = r * 37 % (kPages * kPageSize);
        }
        const Device cpu({});
        std::vector<Bf16> want = start;
        KvPages host_pages(cpu, kPages, kPageSize, s.kv_heads, s.head_dim);
        PrepareHeads problem{.rows = s.rows,
                             .query_heads = s.query_heads,
                             .kv_heads = s.kv_heads,
                             .head_dim = s.head_dim,
                             .qkv = want.data(),
                             .stride = stride,
                             .q_weight = normed ? q_weight.data() : nullptr,
                             .k_weight = normed ? k_weight.data() : nullptr,
                             .epsilon = 1e-6f,
                             .positions = positions.data(),
                             .table = &table,
                             .pages = &host_pages,
                             .slots = slots.data()};
        prepare_heads(cpu, problem);
        const DeviceArray<Bf16> qw(device(), q_weight), kw(device(), k_weight), separate(device(), start);
        const DeviceArray<int32_t> device_positions(device(), positions);
        const DeviceArray<int64_t> device_slots(device(), slots);
        KvPages separate_pages(device(), kPages, kPageSize, s.kv_heads, s.head_dim);
        problem.q_weight = normed ? qw.data() : nullptr, problem.k_weight = normed ? kw.data() : nullptr;
        problem.positions = device_positions.data(), problem.slots = device_slots.data();
        problem.qkv = separate.data(), problem.pages = &separate_pages;
        prepare_heads_separately(device(), problem);
        const size_t bytes = static_cast<size_t>(kPages * kPageSize * s.kv_heads * s.head_dim) * sizeof(Bf16);
        const std::vector<Bf16> keys = memory_of(device(), separate_pages.keys(), bytes),
                                values = memory_of(device(), separate_pages.values(), bytes);
        ASSERT_FALSE(same_bits(keys, std::vector<Bf16>(keys.size()))) << "nothing was written";
        // The plan of so many rows, and those of fewer and of more.
        std::vector<cuda::HeadsPlan> plans = {cuda::plan_heads(132, problem)};
        if (plans[0].schedule != Schedule::kSeparate)
          plans.push_back({Schedule::kPieces, true}), plans.push_back({Schedule::kPieces, false});
        if (s.rotary_dim == s.head_dim && (s.head_dim == 64 || s.head_dim == 128 || s.head_dim == 256))
          plans.push_back({Schedule::kPairs});
        for (const cuda::HeadsPlan& plan : plans) {
          const std::string where = std::to_string(s.rows) + " rows, head_dim " + std::to_string(s.head_dim) + ", rotary " +
                                    std::to_string(s.rotary_dim) + ", normed " + std::to_string(normed) + ", kind " +
                                    std::to_string(static_cast<int>(kind)) + ", plan " +
                                    std::to_string(static_cast<int>(plan.schedule)) + (plan.early ? " early" : "");
          const DeviceArray<Bf16> fused(device(), start);
          KvPages pages(device(), kPages, kPageSize, s.kv_heads, s.head_dim);
          problem.qkv = fused.data(), problem.pages = &pages;
          if (!cuda::prepare_heads(device(), problem, plan)) prepare_heads_separately(device(), problem);
          ASSERT_TRUE(same_bits(fused.to_host(device()), want)) << where;
          ASSERT_TRUE(same_bits(separate.to_host(device()), want)) << where;
          ASSERT_TRUE(same_bits(memory_of(device(), pages.keys(), bytes), keys)) << where;
          ASSERT_TRUE(same_bits(memory_of(device(), pages.values(), bytes), values)) << where;
          const int64_t last = s.rows - 1;
          ASSERT_EQ(pages.key(slots[last], 0, 1).bits, host_pages.key(slots[last], 0, 1).bits) << where;
          ASSERT_EQ(pages.value(slots[last], 0, 1).bits, host_pages.value(slots[last], 0, 1).bits) << where;
        }
      }
}

// Needs no GPU.
TEST(HeadsPlan, TakesPairsOnceThePiecesDoNotFitAtOnce) {
  const RopeTable table = RopeTable::make({}, 10000, 128, 10).value(), half_rotated = RopeTable::make({}, 10000, 64, 10).value();
  const auto plan = [](int64_t rows, const RopeTable& t, int64_t stride) {
    return cuda::plan_heads(132,
                            {.rows = rows, .query_heads = 32, .kv_heads = 8, .head_dim = 128, .stride = stride, .table = &t});
  };
  for (const int64_t rows : {1, 8, 32, 128}) {
    EXPECT_EQ(plan(rows, table, 6144).schedule, Schedule::kPieces) << rows;
    EXPECT_TRUE(plan(rows, table, 6144).early) << rows;
  }
  EXPECT_EQ(plan(256, table, 6144).schedule, Schedule::kPieces);
  EXPECT_FALSE(plan(256, table, 6144).early);
  for (const int64_t rows : {64, 512, 8192}) EXPECT_EQ(plan(rows, table, 6144).schedule, Schedule::kPairs) << rows;
  EXPECT_EQ(plan(8192, half_rotated, 6144).schedule, Schedule::kPieces);
  EXPECT_EQ(plan(cuda::kMostPairRows + 1, table, 6144).schedule, Schedule::kPieces);
  EXPECT_EQ(plan(8192, table, 6145).schedule, Schedule::kSeparate);
}

TEST_F(HeadsCuda, ANegativeSlotTakesNothing) {
  RopeTable table = RopeTable::make({}, 10000, 64, 10).value();
  table.to_device(device());
  const DeviceArray<Bf16> qkv(device(), bf16_data(2 * 3 * 64, Kind::kOrdinary, 1));
  const DeviceArray<int32_t> positions(device(), std::vector<int32_t>{3, 4});
  const DeviceArray<int64_t> slots(device(), std::vector<int64_t>{-1, -1});
  for (const Schedule schedule : {Schedule::kSeparate, Schedule::kPieces, Schedule::kPairs}) {
    KvPages pages(device(), 2, 16, 1, 64);
    const PrepareHeads problem{.rows = 2,
                               .query_heads = 1,
                               .kv_heads = 1,
                               .head_dim = 64,
                               .qkv = qkv.data(),
                               .stride = 192,
                               .positions = positions.data(),
                               .table = &table,
                               .pages = &pages,
                               .slots = slots.data()};
    if (!cuda::prepare_heads(device(), problem, {schedule})) prepare_heads_separately(device(), problem);
    const size_t bytes = 2 * 16 * 64 * sizeof(Bf16);
    EXPECT_TRUE(same_bits(memory_of(device(), pages.keys(), bytes), std::vector<Bf16>(2 * 16 * 64)));
    EXPECT_TRUE(same_bits(memory_of(device(), pages.values(), bytes), std::vector<Bf16>(2 * 16 * 64)));
  }
}

}  // namespace
}  // namespace invar
