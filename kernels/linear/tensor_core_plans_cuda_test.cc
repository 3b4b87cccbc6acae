// Every plan of the tc profile's linears on the GPU, also those that nobody would choose, bit for bit against the generic
// schedule.
#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_decode.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_linear.h"
#include "kernels/linear/cuda/tensor_core_prefill.h"
#include "kernels/linear/gated_linear.h"
#include "kernels/linear/tensor_core_linear_cuda_test.h"

namespace invar {
namespace {

// A linear of `outputs` x `inputs` with so many rows, by every plan there is for it.
struct PlanCase {
  int64_t outputs, inputs, rows;
};
std::string name_of(const testing::TestParamInfo<PlanCase>& info) {
  return std::to_string(info.param.outputs) + "x" + std::to_string(info.param.inputs) + "_" + std::to_string(info.param.rows) +
         "_rows";
}
std::vector<PlanCase> plan_cases(const std::vector<std::pair<int64_t, int64_t>>& shapes, const std::vector<int64_t>& rows) {
  std::vector<PlanCase> cases;
  for (auto [outputs, inputs] : shapes)
    for (int64_t m : rows) cases.push_back({outputs, inputs, m});
  return cases;
}

// Outputs behind each row of y that are another's: rows then end within a piece of 16 bytes, or begin there.
std::vector<int64_t> gaps(int64_t outputs) {
  if (outputs > 4096) return {0};  // the host's comparisons take seconds
  return {0, 3, 8 - outputs % 8};
}

// What every schedule for a linear's columns and rows is held to.
class EveryPlan : public TensorCoreLinearCuda, public testing::WithParamInterface<PlanCase> {
 protected:
  using Gated = std::function<void(const ColumnLinear&, int64_t width)>;

  // The outputs of the case, bias included, taken as runs of gate and up in turn: silu_mul of the pairs. What lies behind a row
  // of y stays.
  std::string gated_difference(const Gated& schedule, const ColumnCase& c, int64_t rows, int64_t gap) {
    const int64_t both = c.weights.device.outputs(), width = both / 2, stride = width + gap;
    std::vector<Bf16> wanted(static_cast<size_t>(rows * stride), Bf16{0xabcd});
    const DeviceArray<Bf16> y(tc(), wanted), bias(tc(), *c.bias);
    for (int64_t i = 0; i < rows * width; ++i) {
      const int64_t row = i / width, j = i % width;
      const float* gate = &c.expected[row * both + j / kGatedRun * 2 * kGatedRun + j % kGatedRun];
      wanted[row * stride + j] = numerics::silu_mul(numerics::bf(gate[0]), numerics::bf(gate[kGatedRun]));
    }
    schedule({.rows = rows,
              .x = c.x.device(0),
              .x_stride = c.x.stride(),
              .weights = &c.weights.device,
              .bias = bias.data(),
              .y = y.data(),
              .y_stride = stride},
             width);
    return difference(y.to_host(tc()), wanted, stride);
  }

  // By the generic schedule.
  std::vector<float> generic(const RowLinear& row) {
    const DeviceArray<float> values(tc(), static_cast<int64_t>(row.nodes.size()) * row.rows * row.weights->outputs());
    RowLinear problem = row;
    problem.partials = values.data();
    cuda::tc::generic_row(tc(), problem);
    return values.to_host(tc());
  }
};

// Every way to lay the decode schedule over the GPU, also those that nobody would choose.
class EveryDecodePlan : public EveryPlan {
 protected:
  // The row's values in the second area of each of two places, whose turn it is; the first one's stay.
  std::string sent_difference(RowLinear row, const cuda::tc::LinearShape& shape, const cuda::tc::DecodePlan& plan,
                              const std::vector<float>& wanted) {
    const auto count = static_cast<int64_t>(wanted.size());
    const DeviceArray<uint64_t> turn(tc(), std::vector<uint64_t>{6});
    std::vector<DeviceArray<float>> places;
    row.targets.count = 2;
    row.targets.area = count;
    row.targets.turn = turn.data();
    row.targets.absent = 0x7fc12345u;
    for (int i = 0; i < row.targets.count; ++i) {
      places.emplace_back(tc(), std::vector<float>(2 * wanted.size(), 77.0f));
      row.targets.values[i] = places.back().data();
    }
    cuda::tc::decode_row(tc(), row, shape, plan);
    std::vector<float> both(wanted.size(), 77.0f);
    both.insert(both.end(), wanted.begin(), wanted.end());
    for (const auto& place : places)
      if (const std::string found = difference(place.to_host(tc()), both, row.weights->outputs()); !found.empty()) return found;
    return "";
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, EveryDecodePlan,
                         testing::ValuesIn(plan_cases({{130, 4224}, {72, 512}, {72, 2304}, {768, 4096}, {16640, 1024}},
                                                      {3, 16, 29, 64})),
                         name_of);
TEST_P(EveryDecodePlan, GivesTheSameBits) {
  const auto [outputs, inputs, m] = GetParam();
  Values values(107);
  const Weights weights(tc(), values.vector(Kind::kWide, outputs * inputs), inputs, outputs, inputs);
  const Rows x(tc(), &values, Kind::kWide, 64, inputs, 8);
  const std::vector<Bf16> bias = values.vector(Kind::kWide, outputs);
  const ColumnCase column{weights, x, &bias, generic_column(weights, x, bias, m)};
  const auto column_shape = *cuda::tc::linear_shape(m, outputs, inputs);
  for (const auto& plan : cuda::tc::decode_plans(column_shape, {})) {
    const auto schedule = [&](const Device& device, const ColumnLinear& p) {
      cuda::tc::decode_column(device, p, column_shape, plan);
    };
    for (const int64_t gap : gaps(outputs)) expect_column(schedule, column, 0, m, gap, plan.describe());
    if (HasFailure()) return;
    if (outputs % 16 || plan.choice.tile_outputs % 16) continue;
    const Gated gated = [&](const ColumnLinear& p, int64_t width) {
      cuda::tc::decode_column(tc(), p, column_shape, plan, width);
    };
    for (const int64_t gap : {0, 3, 8})
      ASSERT_EQ(gated_difference(gated, column, m, gap), "") << m << " rows, gated, gap " << gap << ": " << plan.describe();
  }
  const RowSegments segments = RowSegments::cut(inputs, 64);
  const DeviceArray<float> y(tc(), m * outputs);
  const std::vector<float> garbage(m * outputs, 77.0f);
  const RowLinear row{.rows = m,
                      .x = x.device(0),
                      .x_stride = x.stride(),
                      .weights = &weights.device,
                      .segments = segments,
                      .nodes = maximal_subtrees(segments, 0, kSegments),
                      .partials = y.data()};
  const std::vector<float> row_wanted = generic(row);
  const auto row_shape = *cuda::tc::linear_shape(row);
  for (const auto& plan : cuda::tc::decode_plans(row_shape, {})) {
    tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
    ASSERT_NO_THROW(cuda::tc::decode_row(tc(), row, row_shape, plan); tc().synchronize()) << plan.describe();
    ASSERT_EQ(difference(y.to_host(tc()), row_wanted, outputs), "") << m << " rows, row: " << plan.describe();
    if (outputs % 8 == 0) {
      ASSERT_EQ(sent_difference(row, row_shape, plan, row_wanted), "") << m << " rows, sent: " << plan.describe();
    }
  }
}

// On a small chip too: there are several rounds there.
std::vector<cuda::tc::PrefillPlan> every_prefill_plan(const cuda::tc::LinearShape& shape) {
  std::vector<cuda::tc::PrefillPlan> plans = cuda::tc::prefill_plans(shape, {});
  for (const auto& plan : cuda::tc::prefill_plans(shape, {.multiprocessors = 5})) plans.push_back(plan);
  return plans;
}

class EveryPrefillPlan : public EveryPlan {
 protected:
  // The one node's values, which came by way of so many owners.
  std::vector<float> dealt(RowLinear row, const cuda::tc::LinearShape& shape, const cuda::tc::PrefillPlan& plan, int owners) {
    const int64_t outputs = row.weights->outputs();
    std::vector<DeviceArray<float>> places;
    row.owners.count = owners;
    for (int owner = 0; owner < owners; ++owner) {
      places.emplace_back(tc(), std::vector<float>(RowOwners::held(row.rows, owners, owner) * outputs, 77.0f));
      row.owners.values[owner] = places.back().data();
    }
    cuda::tc::prefill_row(tc(), row, 0, shape, plan);
    std::vector<float> values(static_cast<size_t>(row.rows * outputs));
    for (int owner = 0; owner < owners; ++owner) {
      const std::vector<float> held = places[owner].to_host(tc());
      for (size_t i = 0; i < held.size() / outputs; ++i)
        std::copy_n(&held[i * outputs], outputs, &values[RowOwners::row_of(owners, owner, static_cast<int64_t>(i)) * outputs]);
    }
    return values;
  }
};
INSTANTIATE_TEST_SUITE_P(
    Shapes, EveryPrefillPlan,
    testing::ValuesIn(plan_cases({{200, 4224}, {72, 2304}, {1000, 4096}, {520, 512}, {328, 6464}, {1040, 1024}, {333, 1024}},
                                 {65, 257, 700})),
    name_of);
TEST_P(EveryPrefillPlan, GivesTheSameBits) {
  const auto [outputs, inputs, m] = GetParam();
  Values values(109);
  const Weights weights(tc(), values.vector(Kind::kWide, outputs * inputs), inputs, outputs, inputs);
  const Rows x(tc(), &values, Kind::kWide, m, inputs, 8);
  const std::vector<Bf16> bias = values.vector(Kind::kWide, outputs);
  const ColumnCase column{weights, x, &bias, generic_column(weights, x, bias, m)};
  const auto shape = *cuda::tc::linear_shape(m, outputs, inputs);
  for (const auto& plan : every_prefill_plan(shape)) {
    const auto schedule = [&](const Device& device, const ColumnLinear& p) { cuda::tc::prefill_column(device, p, shape, plan); };
    for (const int64_t gap : gaps(outputs)) expect_column(schedule, column, 0, m, gap, plan.describe());
    if (HasFailure()) return;
    if (outputs % 16) continue;
    const Gated gated = [&](const ColumnLinear& p, int64_t width) { cuda::tc::prefill_column(tc(), p, shape, plan, width); };
    for (const int64_t gap : {0, 3, 8}) {
      if (!cuda::tc::prefill_gates(plan.merge, plan.columns)) {
        EXPECT_THROW(gated_difference(gated, column, m, gap), std::logic_error) << plan.describe();
      } else {
        ASSERT_EQ(gated_difference(gated, column, m, gap), "") << m << " rows, gated, gap " << gap << ": " << plan.describe();
      }
    }
  }
  const DeviceArray<Bf16> device_bias(tc(), bias), y_bf16(tc(), m * outputs);
  const DeviceArray<float> y(tc(), m * outputs);
  const std::vector<float> garbage(m * outputs, 77.0f);
  const RowSegments segments = RowSegments::cut(inputs, 64);
  for (const TreeNode& node : {TreeNode{0, 3}, {1, 1}, {2, 1}, {3, 0}}) {
    RowLinear row{.rows = m,
                  .x = x.device(0),
                  .x_stride = x.stride(),
                  .weights = &weights.device,
                  .segments = segments,
                  .nodes = {node},
                  .partials = y.data()};
    const std::vector<float> row_wanted = generic(row);
    const auto row_shape = *cuda::tc::linear_shape(m, outputs, segments, 0, node);
    const bool whole_pieces = outputs % 8 == 0;
    for (const auto& plan : every_prefill_plan(row_shape)) {
      tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
      ASSERT_NO_THROW(cuda::tc::prefill_row(tc(), row, 0, row_shape, plan); tc().synchronize()) << plan.describe();
      ASSERT_EQ(difference(y.to_host(tc()), row_wanted, outputs), "")
          << m << " rows, node " << node.level << "," << node.index << ": " << plan.describe();
      for (const int owners : {2, 8}) {
        if (!whole_pieces) break;
        ASSERT_EQ(difference(dealt(row, row_shape, plan, owners), row_wanted, outputs), "")
            << m << " rows, node " << node.level << "," << node.index << ", " << owners << " owners: " << plan.describe();
      }
      if (!root_alone(row.nodes)) continue;
      for (const bool biased : {false, true}) {
        std::vector<Bf16> finished(row_wanted.size());
        finish_row_linear(cpu(), row_wanted.data(), biased ? bias.data() : nullptr, m, outputs, finished.data());
        RowLinear whole = row;
        whole.y = y_bf16.data();
        whole.bias = biased ? device_bias.data() : nullptr;
        tc().upload(y_bf16.data(), garbage.data(), y_bf16.size() * sizeof(Bf16));
        ASSERT_NO_THROW(cuda::tc::prefill_row(tc(), whole, 0, row_shape, plan); tc().synchronize()) << plan.describe();
        ASSERT_EQ(difference(y_bf16.to_host(tc()), finished, outputs), "")
            << m << " rows, finished" << (biased ? ", bias: " : ": ") << plan.describe();
        if (!whole_pieces) continue;
        std::vector<Bf16> stream = values.vector(Kind::kWide, m * outputs);
        tc().upload(y_bf16.data(), stream.data(), y_bf16.size() * sizeof(Bf16));
        residual_add(cpu(), stream.data(), finished.data(), m * outputs);
        whole.adds = true;
        ASSERT_NO_THROW(cuda::tc::prefill_row(tc(), whole, 0, row_shape, plan); tc().synchronize()) << plan.describe();
        ASSERT_EQ(difference(y_bf16.to_host(tc()), stream, outputs), "")
            << m << " rows, added" << (biased ? ", bias: " : ": ") << plan.describe();
      }
    }
  }
}

}  // namespace
}  // namespace invar
