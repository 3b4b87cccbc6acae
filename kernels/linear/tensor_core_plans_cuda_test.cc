// Every plan of the tc profile's linears on the GPU, also those that nobody would choose, bit for bit against the generic
// schedule.
#include <string>
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_decode.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_linear.h"
#include "kernels/linear/cuda/tensor_core_prefill.h"
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

// Every way to lay the decode schedule over the GPU, also those that nobody would choose.
class EveryDecodePlan : public TensorCoreLinearCuda, public testing::WithParamInterface<PlanCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, EveryDecodePlan,
                         testing::ValuesIn(plan_cases({{130, 4224}, {72, 512}, {72, 2304}, {768, 4096}, {16640, 1024}},
                                                      {3, 16, 29, 64})),
                         name_of);
TEST_P(EveryDecodePlan, GivesTheSameBits) {
  const auto [outputs, inputs, m] = GetParam();
  Values values(107);
  const Weights weights(tc(), values.vector(Kind::kWide, outputs * inputs), inputs, outputs, inputs);
  const Rows x(tc(), &values, Kind::kWide, 64, inputs, 8);
  const RowSegments segments = RowSegments::cut(inputs, 64);
  const std::vector<TreeNode> nodes = maximal_subtrees(segments, 0, kSegments);
  const DeviceArray<float> y(tc(), m * outputs);
  ColumnLinear column{
      .rows = m, .x = x.device(0), .x_stride = x.stride(), .weights = &weights.device, .y_fp32 = y.data(), .y_stride = outputs};
  RowLinear row{.rows = m,
                .x = x.device(0),
                .x_stride = x.stride(),
                .weights = &weights.device,
                .segments = segments,
                .nodes = nodes,
                .partials = y.data()};
  const std::vector<float> garbage(m * outputs, 77.0f);
  cuda::tc::generic_column(tc(), column);
  const std::vector<float> column_wanted = y.to_host(tc());
  cuda::tc::generic_row(tc(), row);
  const std::vector<float> row_wanted = y.to_host(tc());
  const auto column_shape = *cuda::tc::linear_shape(m, outputs, inputs);
  const auto row_shape = *cuda::tc::linear_shape(row);
  for (const auto& plan : cuda::tc::decode_plans(column_shape, {})) {
    tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
    ASSERT_NO_THROW(cuda::tc::decode_column(tc(), column, column_shape, plan); tc().synchronize()) << plan.describe();
    ASSERT_EQ(difference(y.to_host(tc()), column_wanted, outputs), "") << m << " rows, column: " << plan.describe();
    if (outputs % 16 || plan.choice.tile_outputs % 16) continue;
    const int64_t width = outputs / 2;
    const DeviceArray<Bf16> product(tc(), std::vector<Bf16>(m * width, Bf16{0xabcd}));
    ColumnLinear gated = column;
    gated.y = product.data();
    gated.y_stride = width;
    cuda::tc::decode_column(tc(), gated, column_shape, plan, width);
    const std::vector<Bf16> products = product.to_host(tc());
    for (int64_t i = 0; i < m * width; ++i) {
      const float* gate = &column_wanted[i / width * outputs + i % width / 8 * 16 + i % 8];
      ASSERT_EQ(products[i].bits, numerics::silu_mul(numerics::bf(gate[0]), numerics::bf(gate[8])).bits)
          << "gated, row " << i / width << ", output " << i % width << ": " << plan.describe();
    }
  }
  for (const auto& plan : cuda::tc::decode_plans(row_shape, {})) {
    tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
    ASSERT_NO_THROW(cuda::tc::decode_row(tc(), row, row_shape, plan); tc().synchronize()) << plan.describe();
    ASSERT_EQ(difference(y.to_host(tc()), row_wanted, outputs), "") << m << " rows, row: " << plan.describe();
  }
}

// On a small chip too: there are several rounds there.
std::vector<cuda::tc::PrefillPlan> every_prefill_plan(const cuda::tc::LinearShape& shape) {
  std::vector<cuda::tc::PrefillPlan> plans = cuda::tc::prefill_plans(shape, {});
  for (const auto& plan : cuda::tc::prefill_plans(shape, {.multiprocessors = 5})) plans.push_back(plan);
  return plans;
}

class EveryPrefillPlan : public TensorCoreLinearCuda, public testing::WithParamInterface<PlanCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, EveryPrefillPlan,
                         testing::ValuesIn(plan_cases({{200, 4224}, {72, 2304}, {1000, 4096}, {520, 512}, {328, 6464}},
                                                      {65, 257, 700})),
                         name_of);
TEST_P(EveryPrefillPlan, GivesTheSameBits) {
  const auto [outputs, inputs, m] = GetParam();
  Values values(109);
  const Weights weights(tc(), values.vector(Kind::kWide, outputs * inputs), inputs, outputs, inputs);
  const Rows x(tc(), &values, Kind::kWide, m, inputs, 8);
  const std::vector<Bf16> bias = values.vector(Kind::kWide, outputs);
  const DeviceArray<Bf16> device_bias(tc(), bias);
  const DeviceArray<float> y(tc(), m * outputs);
  const std::vector<float> garbage(m * outputs, 77.0f);
  ColumnLinear column{
      .rows = m, .x = x.device(0), .x_stride = x.stride(), .weights = &weights.device, .y_fp32 = y.data(), .y_stride = outputs};
  cuda::tc::generic_column(tc(), column);
  const std::vector<float> wanted = y.to_host(tc());
  const auto shape = *cuda::tc::linear_shape(m, outputs, inputs);
  std::vector<Bf16> rounded(wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i)
    rounded[i] = numerics::bf(numerics::add(wanted[i], numerics::widen(bias[i % static_cast<size_t>(outputs)])));
  const DeviceArray<Bf16> y_bf16(tc(), m * outputs);
  for (const auto& plan : every_prefill_plan(shape)) {
    tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
    ASSERT_NO_THROW(cuda::tc::prefill_column(tc(), column, shape, plan); tc().synchronize()) << plan.describe();
    ASSERT_EQ(difference(y.to_host(tc()), wanted, outputs), "") << m << " rows, column: " << plan.describe();
    ColumnLinear with_bias = column;
    with_bias.bias = device_bias.data();
    with_bias.y_fp32 = nullptr;
    with_bias.y = y_bf16.data();
    tc().upload(y_bf16.data(), garbage.data(), y_bf16.size() * sizeof(Bf16));
    ASSERT_NO_THROW(cuda::tc::prefill_column(tc(), with_bias, shape, plan); tc().synchronize()) << plan.describe();
    ASSERT_EQ(difference(y_bf16.to_host(tc()), rounded, outputs), "") << m << " rows, bf16 with bias: " << plan.describe();
  }
  const RowSegments segments = RowSegments::cut(inputs, 64);
  for (const TreeNode& node : {TreeNode{0, 3}, {1, 1}, {2, 1}, {3, 0}}) {
    RowLinear row{.rows = m,
                  .x = x.device(0),
                  .x_stride = x.stride(),
                  .weights = &weights.device,
                  .segments = segments,
                  .nodes = {node},
                  .partials = y.data()};
    cuda::tc::generic_row(tc(), row);
    const std::vector<float> row_wanted = y.to_host(tc());
    const auto row_shape = *cuda::tc::linear_shape(m, outputs, segments, 0, node);
    for (const auto& plan : every_prefill_plan(row_shape)) {
      tc().upload(y.data(), garbage.data(), garbage.size() * sizeof(float));
      ASSERT_NO_THROW(cuda::tc::prefill_row(tc(), row, 0, row_shape, plan); tc().synchronize()) << plan.describe();
      ASSERT_EQ(difference(y.to_host(tc()), row_wanted, outputs), "")
          << m << " rows, node " << node.level << "," << node.index << ": " << plan.describe();
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
