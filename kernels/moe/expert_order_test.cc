#include "kernels/moe/expert_order.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

// `top_k` different experts for each token, ascending; `crowded`: most tokens want the first ones.
std::vector<int32_t> draw_ids(int64_t rows, int64_t top_k, int64_t experts, bool crowded) {
  test_rows::Random random{static_cast<uint64_t>(rows * 1000 + experts)};
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t> chosen;
    while (static_cast<int64_t>(chosen.size()) < top_k) {
      const auto range = crowded && random.next() % 8 ? std::min<int64_t>(experts, top_k + 1) : experts;
      const auto id = static_cast<int32_t>(random.next() % range);
      if (std::find(chosen.begin(), chosen.end(), id) == chosen.end()) chosen.push_back(id);
    }
    std::sort(chosen.begin(), chosen.end());
    ids.insert(ids.end(), chosen.begin(), chosen.end());
  }
  return ids;
}

// The plainest reading: sort (expert, token).
void expect_sorted(const Device& device) {
  struct Case {
    int64_t rows, top_k, experts;
  };
  for (const Case& c : {Case{1, 1, 1},
                        {1, 8, 128},
                        {16, 8, 128},
                        {7, 3, 5},
                        {33, 2, 8},
                        {1000, 8, 64},
                        {1025, 4, 9},
                        {4100, 8, 130},
                        {5, 4, 4},
                        {33000, 2, 7},
                        {0, 2, 8}})
    for (const bool crowded : {false, true}) {
      const std::vector<int32_t> ids = draw_ids(c.rows, c.top_k, c.experts, crowded);
      std::vector<std::tuple<int32_t, int32_t, int64_t>> sorted;  // expert, token, entry
      for (size_t i = 0; i < ids.size(); ++i) sorted.emplace_back(ids[i], static_cast<int32_t>(i) / c.top_k, i);
      std::sort(sorted.begin(), sorted.end());

      const DeviceArray<int32_t> there(device, ids), token_of(device, std::vector<int32_t>(ids.size() + 1, -7));
      const DeviceArray<int64_t> offsets(device, std::vector<int64_t>(c.experts + 2, -7)),
          row_of(device, std::vector<int64_t>(ids.size() + 1, -7));
      order_by_expert(device, {.rows = c.rows,
                               .top_k = c.top_k,
                               .experts = c.experts,
                               .ids = there.data(),
                               .offsets = offsets.data(),
                               .row_of = row_of.data(),
                               .token_of = token_of.data()});
      const auto got_offsets = offsets.to_host(device), got_row_of = row_of.to_host(device);
      const auto got_token_of = token_of.to_host(device);
      for (size_t row = 0; row < sorted.size(); ++row) {
        const auto& [expert, token, entry] = sorted[row];
        ASSERT_EQ(got_token_of[row], token) << device.describe() << ", " << c.rows << " tokens, row " << row;
        ASSERT_EQ(got_row_of[entry], static_cast<int64_t>(row));
        ASSERT_LE(got_offsets[expert], static_cast<int64_t>(row));
        ASSERT_GT(got_offsets[expert + 1], static_cast<int64_t>(row));
      }
      EXPECT_EQ(got_offsets[0], 0);
      EXPECT_TRUE(std::is_sorted(got_offsets.begin(), got_offsets.end() - 1));
      EXPECT_EQ(got_offsets[c.experts], static_cast<int64_t>(ids.size()));
      EXPECT_EQ(got_offsets.back(), -7);  // nothing behind the ends
      EXPECT_EQ(got_row_of.back(), -7);
      EXPECT_EQ(got_token_of.back(), -7);
    }
}

// One launch or two: the choice is the router's, the order that of its ids.
void expect_routed_in_order(const Device& device) {
  const Device cpu(DeviceOptions{});
  for (const int64_t rows : {1, 2, 8, 9, 40})
    for (const auto& [experts, top_k] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {20, 3}, {64, 8}, {128, 8}, {200, 32}, {300, 8}}) {
      test_rows::Random random{static_cast<uint64_t>(rows * 1000 + experts)};
      std::vector<float> logits(static_cast<size_t>(rows * experts));
      for (float& z : logits) z = static_cast<float>(random.next() % 64) * 0.125f;  // with ties
      const size_t entries = static_cast<size_t>(rows * top_k);
      const auto run = [&](const Device& d, bool together) {
        const DeviceArray<float> logits_there(d, logits), weights(d, rows * top_k);
        const DeviceArray<int32_t> ids(d, rows * top_k), token_of(d, std::vector<int32_t>(entries + 1, -7));
        const DeviceArray<int64_t> offsets(d, std::vector<int64_t>(experts + 2, -7)),
            row_of(d, std::vector<int64_t>(entries + 1, -7));
        const Router router{.rows = rows,
                            .experts = experts,
                            .top_k = top_k,
                            .logits = logits_there.data(),
                            .ids = ids.data(),
                            .weights = weights.data()};
        const ExpertOrder order{.rows = rows,
                                .top_k = top_k,
                                .experts = experts,
                                .ids = ids.data(),
                                .offsets = offsets.data(),
                                .row_of = row_of.data(),
                                .token_of = token_of.data()};
        if (together) {
          route_in_order(d, router, order);
        } else {
          route_reference(router);
          order_by_expert(d, order);
        }
        std::vector<int64_t> all;  // of weights the bits
        for (const float w : weights.to_host(d)) all.push_back(numerics::float_bits(w));
        const auto add = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
        add(ids.to_host(d));
        add(offsets.to_host(d));
        add(row_of.to_host(d));
        add(token_of.to_host(d));
        return all;
      };
      EXPECT_EQ(run(device, true), run(cpu, false)) << device.describe() << ", " << rows << " rows, " << experts << " experts";
    }
}

TEST(ExpertOrder, TheRoutersChoiceIsOrdered) { expect_routed_in_order(Device(DeviceOptions{})); }

TEST(ExpertOrder, RowsLieByExpertThenToken) { expect_sorted(Device(DeviceOptions{})); }

class ExpertOrderCuda : public CudaTest {};

TEST_F(ExpertOrderCuda, TheRoutersChoiceIsOrdered) { expect_routed_in_order(device()); }

TEST_F(ExpertOrderCuda, RowsLieByExpertThenToken) { expect_sorted(device()); }

}  // namespace
}  // namespace invar
