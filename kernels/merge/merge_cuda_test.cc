// Merging tree nodes on a GPU against the reference, bit for bit.
#include <gtest/gtest.h>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/merge/merge.h"
#include "kernels/merge/merge_cases.h"

namespace invar {
namespace {

using namespace test_rows;
using namespace merge_cases;
using MergeCuda = CudaTest;

TEST_F(MergeCuda, EveryNodeSet_GivesTheReferenceBits) {
  constexpr int64_t kRows = 3;
  for (const int64_t outputs : {1000, 1001})
    for (const auto& nodes : node_sets()) {
      const int64_t all = kRows * outputs;
      const std::vector<Bf16> bias = bf16_data(outputs, Kind::kSpread, 3);
      const DeviceArray<Bf16> device_bias(device(), bias);
      for (const Kind kind : {Kind::kSpread, Kind::kCancelling, Kind::kNonFinite}) {
        const auto values = node_values(nodes.size(), all, kind);
        std::vector<DeviceArray<float>> device_values;
        for (const auto& v : values) device_values.emplace_back(device(), v);
        for (const bool listed : {false, true})
          for (const bool biased : {false, true})
            for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, all}, {64, 2496}, {1999, 2001}}) {
              std::vector<Bf16> want(all, Bf16{0xabcd});
              const DeviceArray<Bf16> y(device(), want);
              MergeNodes problem{.outputs = outputs,
                                 .begin = begin,
                                 .end = end,
                                 .nodes = nodes,
                                 .listed_order = listed,
                                 .bias = biased ? bias.data() : nullptr,
                                 .y = want.data()};
              for (size_t i = 0; i < nodes.size(); ++i) problem.values[i] = values[i].data() + begin;
              merge_nodes_reference(problem);
              problem.bias = biased ? device_bias.data() : nullptr;
              problem.y = y.data();
              for (size_t i = 0; i < nodes.size(); ++i) problem.values[i] = device_values[i].data() + begin;
              merge_nodes(device(), problem);
              ASSERT_TRUE(same_bits(y.to_host(device()), want))
                  << nodes.size() << " nodes, kind " << static_cast<int>(kind) << ", listed " << listed << ", bias " << biased
                  << ", outputs " << outputs << ", [" << begin << ", " << end << ")";
            }
      }
    }
}

TEST_F(MergeCuda, TheListedOrder_Differs) {
  const std::vector<TreeNode> nodes = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}, {0, 7}};
  const auto values = node_values(8, 8000, Kind::kCancelling);
  std::vector<DeviceArray<float>> device_values;
  for (const auto& v : values) device_values.emplace_back(device(), v);
  std::vector<Bf16> results[2];
  for (const bool listed : {false, true}) {
    const DeviceArray<Bf16> y(device(), 8000);
    MergeNodes problem{.outputs = 1000, .end = 8000, .nodes = nodes, .listed_order = listed, .y = y.data()};
    for (size_t i = 0; i < 8; ++i) problem.values[i] = device_values[i].data();
    merge_nodes(device(), problem);
    results[listed] = y.to_host(device());
  }
  EXPECT_FALSE(same_bits(results[0], results[1]));
}

TEST_F(MergeCuda, AddListed_GivesTheHostBits) {
  const Device cpu({});
  for (const size_t terms : {0, 1, 3, 8})
    for (const int64_t count : {1, 1000, 300001}) {
      const auto values = node_values(terms, count, Kind::kSpread);
      std::vector<DeviceArray<float>> device_values;
      std::vector<const float*> host_pointers, device_pointers;
      for (const auto& v : values) {
        device_values.emplace_back(device(), v);
        host_pointers.push_back(v.data());
        device_pointers.push_back(device_values.back().data());
      }
      std::vector<float> want(count, 7.0f);
      const DeviceArray<float> sum(device(), want);
      add_listed(cpu, host_pointers, count, want.data());
      add_listed(device(), device_pointers, count, sum.data());
      ASSERT_TRUE(same_bits(sum.to_host(device()), want)) << terms << " terms of " << count;
    }
}

TEST_F(MergeCuda, MergeResidualNorm_GivesTheHostBits) {
  const Device cpu({});
  for (const int64_t width : {64, 100, 576, 2048, 4096, 5120, 8192, 9216})
    for (const int64_t rows : {1, 7, 64})
      for (const auto& nodes : {std::vector<TreeNode>{{3, 0}},
                                {{1, 0}, {1, 1}, {2, 1}},
                                {{2, 0}, {2, 1}},
                                {{1, 0}, {1, 1}, {1, 2}, {1, 3}},
                                {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}, {0, 7}}})
        for (const bool listed : {false, true})
          for (const bool keeps : {false, true}) {
            const auto values = node_values(nodes.size(), rows * width, Kind::kSpread);
            const std::vector<Bf16> start = bf16_data(rows * width, Kind::kSpread, 4),
                                    weight = bf16_data(width, Kind::kOrdinary, 5);
            const std::vector<Bf16> bias = bf16_data(width, Kind::kOrdinary, 6);
            std::vector<Bf16> x = start, y(rows * width), normed(rows * width);
            const auto problem_on = [&](const std::vector<const float*>& from, const Bf16* b, Bf16* to_y, Bf16* to_x,
                                        const Bf16* w, Bf16* n) {
              MergeResidualNorm p{.merge = {.outputs = width,
                                            .end = rows * width,
                                            .nodes = nodes,
                                            .listed_order = listed,
                                            .bias = b,
                                            .y = keeps ? to_y : nullptr},
                                  .x = to_x,
                                  .weight = w,
                                  .epsilon = 1e-6f,
                                  .normed = n};
              for (size_t i = 0; i < from.size(); ++i) p.merge.values[i] = from[i];
              return p;
            };
            std::vector<DeviceArray<float>> device_values;
            std::vector<const float*> host_pointers, device_pointers;
            for (const auto& v : values) {
              device_values.emplace_back(device(), v);
              host_pointers.push_back(v.data());
              device_pointers.push_back(device_values.back().data());
            }
            merge_residual_norm(cpu, problem_on(host_pointers, bias.data(), y.data(), x.data(), weight.data(), normed.data()));
            const DeviceArray<Bf16> db(device(), bias), dy(device(), rows * width), dx(device(), start), dw(device(), weight),
                dn(device(), rows * width);
            merge_residual_norm(device(), problem_on(device_pointers, db.data(), dy.data(), dx.data(), dw.data(), dn.data()));
            ASSERT_TRUE(same_bits(dn.to_host(device()), normed))
                << "norm: width " << width << ", rows " << rows << ", listed " << listed;
            ASSERT_TRUE(same_bits(dx.to_host(device()), x)) << "x: width " << width << ", rows " << rows;
            ASSERT_TRUE(same_bits(dy.to_host(device()), y)) << "y: width " << width << ", rows " << rows;
          }
}

}  // namespace
}  // namespace invar
