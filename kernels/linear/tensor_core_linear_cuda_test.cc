// Every schedule of the tc profile on the GPU, bit for bit: small shapes against the scalar reference and the CPU backend, large
// ones against the generic schedule, which the small ones have checked.
#include "kernels/linear/tensor_core_linear_cuda_test.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/activation/activation.h"
#include "kernels/linear/cuda/finish.h"
#include "kernels/linear/cuda/tensor_core_generic.h"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/linear/cuda/tensor_core_linear.h"

namespace invar {
namespace {

struct Shape {
  int64_t outputs, inputs;
};

TEST_F(TensorCoreLinearCuda, PackedRowsComeBackThroughGather) {
  for (const Shape& s : {Shape{70, 600}, {1, 17}, {64, 64}, {130, 130}, {200, 4096}}) {
    Values values(5 + s.outputs);
    const int64_t gap = 3;
    const std::vector<Bf16> rows = values.vector(Kind::kAnyBits, s.outputs * (s.inputs + gap));
    const Weights weights(tc(), rows, s.inputs + gap, s.outputs, s.inputs);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < 2 * s.outputs; ++i) ids.push_back(static_cast<int32_t>(1000 + values.below(s.outputs)));
    ids[0] = 999;  // not of this table: the row stays
    ids.back() = static_cast<int32_t>(1000 + s.outputs);
    const DeviceArray<int32_t> device_ids(tc(), ids);
    for (int64_t y_gap : {0, 5, 8}) {
      const int64_t y_stride = s.inputs + y_gap, count = static_cast<int64_t>(ids.size());
      std::vector<Bf16> want(count * y_stride, Bf16{0x1234});
      const DeviceArray<Bf16> y(tc(), want);
      for (int64_t r = 1; r + 1 < count; ++r)
        std::memcpy(&want[r * y_stride], &rows[(ids[r] - 1000) * (s.inputs + gap)], s.inputs * sizeof(Bf16));
      cuda::tc::gather_rows(tc(), weights.device.data(), s.outputs, s.inputs, device_ids.data(), 1000, count, y.data(), y_stride);
      EXPECT_EQ(difference(y.to_host(tc()), want, y_stride), "") << s.outputs << " x " << s.inputs << ", gap " << y_gap;
    }
  }
}

// K that no block or group divides takes the generic schedule, the others the fast ones; gaps of 5 forbid tensor maps.
TEST_F(TensorCoreLinearCuda, ColumnEqualsReferenceOnHostileValues) {
  for (Kind kind : hostile::kKinds)
    for (const Shape& s : {Shape{70, 600}, {33, 1}, {1, 17}, {33, 2100}, {128, 576}, {72, 4160}, {72, 64}}) {
      Values values(17 + s.outputs);
      const Weights weights(tc(), values.vector(kind, s.outputs * s.inputs), s.inputs, s.outputs, s.inputs);
      const std::vector<Bf16> bias = values.vector(kind == Kind::kNonFinite ? Kind::kOrdinary : kind, s.outputs);
      for (int64_t gap : {5, 8}) {
        const int64_t rows = gap == 8 ? 70 : 9;
        const Rows x(tc(), &values, kind, rows, s.inputs, gap);
        ColumnCase c{weights, x, &bias, cpu_column(weights, x, rows, &bias)};
        // The CPU backend has its own tests; a few rows of the reference itself all the same.
        std::vector<float> reference(2 * s.outputs);
        linear_column_reference(Profile::kTc, {.rows = 2,
                                               .x = x.host(0),
                                               .x_stride = x.stride(),
                                               .weights = &weights.host,
                                               .bias = bias.data(),
                                               .y_fp32 = reference.data(),
                                               .y_stride = s.outputs});
        ASSERT_EQ(difference(std::vector<float>(c.expected.begin(), c.expected.begin() + 2 * s.outputs), reference, s.outputs),
                  "");
        for (int64_t m : {1, 2, 7, 8, 16, 64, 65}) {
          if (m > rows) continue;
          const std::string where = kind_name(kind) + ", " + std::to_string(s.outputs) + " x " + std::to_string(s.inputs) + ", " +
                                    std::to_string(m) + " rows, gap " + std::to_string(gap);
          expect_column(linear_column, c, (rows - m) / 2, m, gap, where);
          if (m == 7) expect_column(cuda::tc::generic_column, c, 1, m, gap, where + ", generic");
          if (HasFailure()) return;
        }
      }
    }
}

// Chains of one to four steps without a bias that could hide a sign of zero, where sums end among the subnormals or below.
TEST_F(TensorCoreLinearCuda, ShortChainsAroundTheSmallestNumbersEqualReference) {
  const int64_t n = 64, m = 64;
  for (uint32_t lowest : {0u, 40u, 50u, 56u, 60u, 64u})
    for (int64_t k : {16, 32, 64}) {
      Values values(lowest + static_cast<uint64_t>(k));
      const auto small = [&] {
        const uint32_t r = values.next();
        return Bf16{static_cast<uint16_t>((r & 1) << 15 | (lowest + (r >> 8) % 8) << 7 | (r >> 1 & 127))};
      };
      std::vector<Bf16> w(n * k);
      for (Bf16& v : w) v = small();
      const Weights weights(tc(), w, k, n, k);
      Rows x(tc(), m, k, small);
      std::vector<float> want(m * n);
      linear_column_reference(
          Profile::kTc,
          {.rows = m, .x = x.host(0), .x_stride = x.stride(), .weights = &weights.host, .y_fp32 = want.data(), .y_stride = n});
      const DeviceArray<float> y(tc(), m * n);
      const ColumnLinear problem{
          .rows = m, .x = x.device(0), .x_stride = x.stride(), .weights = &weights.device, .y_fp32 = y.data(), .y_stride = n};
      for (const Column& schedule : {Column(cuda::tc::generic_column), Column(linear_column)}) {
        schedule(tc(), problem);
        const std::vector<float> got = y.to_host(tc());
        int zeros = 0, negative_zeros_wanted = 0, negative_zeros = 0, different = 0;
        for (int64_t i = 0; i < m * n; ++i) {
          zeros += want[i] == 0;
          negative_zeros_wanted += numerics::float_bits(want[i]) == 0x80000000u;
          negative_zeros += numerics::float_bits(got[i]) == 0x80000000u;
          different += numerics::float_bits(want[i]) != numerics::float_bits(got[i]);
        }
        EXPECT_EQ(difference(got, want, n), "")
            << "exponent fields from " << lowest << ", " << k << " inputs: " << different << " of " << m * n << " differ; zeros "
            << zeros << ", of them -0 wanted " << negative_zeros_wanted << ", -0 found " << negative_zeros;
      }
    }
}

TEST_F(TensorCoreLinearCuda, RowEqualsReferenceOnEveryShareOfTheSegments) {
  struct RowShape {
    int64_t outputs, inputs, unit;
  };
  for (Kind kind : hostile::kKinds)
    for (const RowShape& s : {RowShape{40, 576, 64}, {33, 24, 8}, {5, 7, 1}, {70, 1, 1}, {130, 1024, 128}, {9, 200, 4}}) {
      const RowSegments segments = RowSegments::cut(s.inputs, s.unit);
      Values values(29 + s.outputs);
      const std::vector<Bf16> w = values.vector(kind, s.outputs * s.inputs);
      for (int ranks : {1, 2, 3, 4, 5, 7, 8})
        for (int rank = 0; rank < ranks; ++rank) {
          const int first = rank * kSegments / ranks, last = (rank + 1) * kSegments / ranks;
          const int64_t origin = segments.begin[first], inputs = segments.begin[last] - origin;
          const std::vector<TreeNode> nodes = maximal_subtrees(segments, first, last);
          if (inputs == 0) continue;
          std::vector<Bf16> share(s.outputs * inputs);
          for (int64_t n = 0; n < s.outputs; ++n)
            std::memcpy(&share[n * inputs], &w[n * s.inputs + origin], inputs * sizeof(Bf16));
          const Weights weights(tc(), share, inputs, s.outputs, inputs);
          const int64_t count = ranks == 1 ? 70 : 17, gap = (8 - inputs % 8) % 8 + (ranks == 3 ? 3 : 8);
          const Rows x(tc(), &values, kind, count, inputs, gap);
          for (int64_t m : {1, 7, 17, 70}) {
            if (m > count) continue;
            const int64_t from = (count - m) / 2, node_stride = m * s.outputs + 12;
            std::vector<float> want(nodes.size() * node_stride, 77.0f);
            const DeviceArray<float> partials(tc(), want);
            RowLinear problem{.rows = m,
                              .x = x.host(from),
                              .x_stride = x.stride(),
                              .weights = &weights.host,
                              .segments = segments,
                              .first = first,
                              .last = last,
                              .nodes = nodes,
                              .partials = want.data(),
                              .node_stride = node_stride};
            if (m == 1)
              linear_row_reference(Profile::kTc, problem);
            else
              linear_row(cpu(), problem);
            problem.x = x.device(from);
            problem.weights = &weights.device;
            problem.partials = partials.data();
            linear_row(tc(), problem);
            ASSERT_EQ(difference(partials.to_host(tc()), want, s.outputs), "")
                << kind_name(kind) << ", " << s.outputs << " x " << s.inputs << ", segments " << first << " .. " << last << ", "
                << m << " rows";
          }
        }
    }
}

// Shapes of real layers against the generic schedule, which one row of the CPU backend holds to the reference here too.
TEST_F(TensorCoreLinearCuda, LargeColumnsEqualTheGenericSchedule) {
  for (const Shape& s : {Shape{768, 4096}, {6144, 4096}, {1280, 8192}, {4104, 2112}}) {
    Values values(101);
    const Weights weights(tc(), values.vector(Kind::kOrdinary, s.outputs * s.inputs), s.inputs, s.outputs, s.inputs);
    const std::vector<Bf16> bias = values.vector(Kind::kOrdinary, s.outputs);
    const int64_t rows = s.outputs == 6144 ? 4096 : 300;
    const Rows x(tc(), &values, Kind::kOrdinary, rows, s.inputs, 8);
    ColumnCase c{weights, x, &bias, generic_column(weights, x, bias, rows)};
    const std::vector<float> one = cpu_column(weights, x, 1, &bias);
    ASSERT_EQ(difference(std::vector<float>(c.expected.begin(), c.expected.begin() + s.outputs), one, s.outputs), "");
    for (int64_t m : {1, 2, 7, 8, 16, 17, 32, 33, 64, 65, 129, 256, 300, 4096}) {
      if (m > rows) continue;
      for (int64_t gap : {0, 3}) {
        if (gap && m > 300) continue;
        expect_column(linear_column, c, (rows - m) / 2, m, gap,
                      std::to_string(s.outputs) + " x " + std::to_string(s.inputs) + ", " + std::to_string(m) + " rows, gap " +
                          std::to_string(gap));
      }
      if (HasFailure()) return;
    }
  }
}

TEST_F(TensorCoreLinearCuda, LargeRowsEqualTheGenericSchedule) {
  struct RowShape {
    int64_t outputs, inputs, unit;
  };
  for (const RowShape& s : {RowShape{4096, 4096, 512}, {4096, 12288, 64}, {2048, 768, 64}, {520, 8192, 1024}}) {
    const RowSegments segments = RowSegments::cut(s.inputs, s.unit);
    Values values(103);
    const std::vector<Bf16> w = values.vector(Kind::kOrdinary, s.outputs * s.inputs);
    for (auto [first, last] : {std::pair<int, int>{0, 8}, {4, 8}, {5, 6}, {2, 7}, {0, 3}}) {
      const int64_t origin = segments.begin[first], inputs = segments.begin[last] - origin;
      const std::vector<TreeNode> nodes = maximal_subtrees(segments, first, last);
      if (inputs == 0) continue;
      std::vector<Bf16> share(s.outputs * inputs);
      for (int64_t n = 0; n < s.outputs; ++n) std::memcpy(&share[n * inputs], &w[n * s.inputs + origin], inputs * sizeof(Bf16));
      const Weights weights(tc(), share, inputs, s.outputs, inputs);
      const int64_t rows = last - first == 8 && s.inputs == 4096 ? 4096 : 300;
      const Rows x(tc(), &values, Kind::kOrdinary, rows, inputs, 8);
      const int64_t all = rows * s.outputs;
      const DeviceArray<float> expected(tc(), static_cast<int64_t>(nodes.size()) * all);
      RowLinear problem{.rows = rows,
                        .x = x.device(0),
                        .x_stride = x.stride(),
                        .weights = &weights.device,
                        .segments = segments,
                        .first = first,
                        .last = last,
                        .nodes = nodes,
                        .partials = expected.data()};
      cuda::tc::generic_row(tc(), problem);
      const std::vector<float> generic = expected.to_host(tc());
      std::vector<float> one(nodes.size() * s.outputs);
      RowLinear on_cpu = problem;
      on_cpu.rows = 1;
      on_cpu.x = x.host(0);
      on_cpu.weights = &weights.host;
      on_cpu.partials = one.data();
      linear_row(cpu(), on_cpu);
      for (size_t i = 0; i < nodes.size(); ++i)
        ASSERT_EQ(std::memcmp(&generic[i * all], &one[i * s.outputs], s.outputs * sizeof(float)), 0) << "generic, node " << i;
      for (int64_t m : {1, 2, 7, 8, 16, 17, 32, 33, 64, 65, 129, 256, 300, 4096}) {
        if (m > rows) continue;
        const int64_t from = (rows - m) / 2;
        std::vector<float> want(nodes.size() * m * s.outputs);
        for (size_t i = 0; i < nodes.size(); ++i)
          std::memcpy(&want[i * m * s.outputs], &generic[i * all + from * s.outputs], m * s.outputs * sizeof(float));
        const DeviceArray<float> partials(tc(), std::vector<float>(want.size(), 77.0f));
        problem.rows = m;
        problem.x = x.device(from);
        problem.partials = partials.data();
        linear_row(tc(), problem);
        ASSERT_EQ(difference(partials.to_host(tc()), want, s.outputs), "")
            << s.outputs << " x " << s.inputs << ", segments " << first << " .. " << last << ", " << m << " rows";
        std::vector<Bf16> stream = values.vector(Kind::kOrdinary, m * s.outputs), result(stream.size());
        const DeviceArray<Bf16> y(tc(), stream);
        RowLinear adding = problem;
        adding.y = y.data();
        ASSERT_EQ(row_adds_residual(tc(), adding), m > 64 && root_alone(nodes));
        if (!row_adds_residual(tc(), adding)) continue;
        adding.adds = true;
        linear_row(tc(), adding);
        finish_row_linear(cpu(), want.data(), nullptr, m, s.outputs, result.data());
        residual_add(cpu(), stream.data(), result.data(), m * s.outputs);
        ASSERT_EQ(difference(y.to_host(tc()), stream, s.outputs), "")
            << s.outputs << " x " << s.inputs << ", added, " << m << " rows";
      }
    }
  }
}

// A residual stream of any values, against the operations one by one; what lies behind it stays.
TEST_F(TensorCoreLinearCuda, RowsAddToAResidualStream) {
  constexpr int64_t kOutputs = 136, kInputs = 1024, kBehind = 40;
  const RowSegments segments = RowSegments::cut(kInputs, 64);
  for (Kind kind : hostile::kKinds)
    for (const int64_t m : {70, 150}) {
      Values values(211 + static_cast<uint64_t>(m));
      const Weights weights(tc(), values.vector(kind, kOutputs * kInputs), kInputs, kOutputs, kInputs);
      const Rows x(tc(), &values, kind, m, kInputs, 8);
      const std::vector<Bf16> bias = values.vector(kind == Kind::kNonFinite ? Kind::kOrdinary : kind, kOutputs);
      const DeviceArray<Bf16> device_bias(tc(), bias);
      std::vector<Bf16> stream = values.vector(kind, (m + kBehind) * kOutputs);
      for (const auto& [at, bits] : {std::pair<int, int>{0, 0x8000}, {1, 0x7f80}, {2, 0xff80}, {3, 0xffc1}, {4, 0x0001}})
        stream[static_cast<size_t>(at * 37)].bits = static_cast<uint16_t>(bits);
      std::vector<float> root(m * kOutputs);
      RowLinear row{.rows = m,
                    .x = x.host(0),
                    .x_stride = x.stride(),
                    .weights = &weights.host,
                    .segments = segments,
                    .nodes = {TreeNode{3, 0}},
                    .partials = root.data()};
      linear_row(cpu(), row);
      row.x = x.device(0);
      row.weights = &weights.device;
      row.partials = nullptr;
      row.adds = true;
      for (const bool biased : {false, true}) {
        std::vector<Bf16> result(root.size()), want = stream;
        finish_row_linear(cpu(), root.data(), biased ? bias.data() : nullptr, m, kOutputs, result.data());
        residual_add_reference(want.data(), result.data(), m * kOutputs);
        const DeviceArray<Bf16> y(tc(), stream);
        row.bias = biased ? device_bias.data() : nullptr;
        row.y = y.data();
        ASSERT_TRUE(row_adds_residual(tc(), row));
        linear_row(tc(), row);
        ASSERT_EQ(difference(y.to_host(tc()), want, kOutputs), "") << kind_name(kind) << ", " << m << " rows, bias " << biased;
        EXPECT_NE(difference(want, stream, kOutputs), "");
      }
    }
}

TEST_F(TensorCoreLinearCuda, RowsThatCannotAddToAResidualStreamSaySo) {
  constexpr int64_t kInputs = 512, kRows = 70;
  Values values(5);
  for (const int64_t outputs : {64, 68}) {
    const Weights weights(tc(), values.vector(Kind::kOrdinary, outputs * kInputs), kInputs, outputs, kInputs);
    const Rows x(tc(), &values, Kind::kOrdinary, kRows, kInputs, 8);
    const DeviceArray<Bf16> y(tc(), (kRows + 1) * outputs);
    const DeviceArray<float> partials(tc(), kRows * outputs);
    const RowLinear row{.rows = kRows,
                        .x = x.device(0),
                        .x_stride = x.stride(),
                        .weights = &weights.device,
                        .segments = RowSegments::cut(kInputs, 64),
                        .nodes = {TreeNode{3, 0}},
                        .partials = partials.data(),
                        .y = y.data(),
                        .adds = true};
    EXPECT_EQ(row_adds_residual(tc(), row), outputs == 64);
    RowLinear few = row, crooked = row, empty_segments = row;
    few.rows = 64;
    crooked.y = y.data() + 1;
    empty_segments.segments = RowSegments::cut(kInputs, 128);
    for (const RowLinear& p : {few, crooked, empty_segments}) {
      EXPECT_FALSE(row_adds_residual(tc(), p));
      EXPECT_THROW(linear_row(tc(), p), std::logic_error);
    }
  }
}

// Ragged groups, some empty, in one launch against each group alone.
TEST_F(TensorCoreLinearCuda, GroupsEqualTheirLinears) {
  struct Groups {
    const char* what;
    std::vector<int64_t> sizes;
  };
  for (const Groups& g : {Groups{"decode", {0, 1, 3, 0, 0, 17, 2, 1}},
                          {"few rows each", {40, 0, 9, 70, 33}},
                          {"prefill", {130, 0, 1, 300, 64, 257}},
                          {"several tiles a block", std::vector<int64_t>(24, 330)},
                          {"one group", {5}}})
    for (auto [outputs, inputs] : {std::pair<int64_t, int64_t>{200, 768}, {512, 2048}, {72, 512}, {72, 4224}}) {
      Values values(113);
      const int groups = static_cast<int>(g.sizes.size());
      std::vector<int64_t> offsets = {0};
      for (int64_t size : g.sizes) offsets.push_back(offsets.back() + size);
      const int64_t rows = offsets.back();
      std::vector<Weights> weights;
      std::vector<const std::byte*> packed;
      for (int i = 0; i < groups; ++i) {
        weights.emplace_back(tc(), values.vector(Kind::kWide, outputs * inputs), inputs, outputs, inputs);
        packed.push_back(weights.back().device.data());
      }
      const Rows x(tc(), &values, Kind::kWide, rows, inputs, 8);
      const DeviceArray<const std::byte*> device_packed(tc(), packed);
      const DeviceArray<int64_t> device_offsets(tc(), offsets);
      cuda::tc::GroupedLinear problem{.groups = groups,
                                      .weights = device_packed.data(),
                                      .offsets = device_offsets.data(),
                                      .rows = rows,
                                      .outputs = outputs,
                                      .inputs = inputs,
                                      .x = x.device(0),
                                      .x_stride = x.stride()};
      const std::string where = std::string(g.what) + ", " + std::to_string(outputs) + " x " + std::to_string(inputs);
      const int64_t y_stride = outputs + 8;
      const std::vector<Bf16> untouched(rows * y_stride, Bf16{0x1234});
      const DeviceArray<Bf16> wanted(tc(), untouched), y(tc(), untouched);
      for (int i = 0; i < groups; ++i)
        if (g.sizes[i])
          cuda::tc::generic_column(tc(), {.rows = g.sizes[i],
                                          .x = x.device(offsets[i]),
                                          .x_stride = x.stride(),
                                          .weights = &weights[i].device,
                                          .y = wanted.data() + offsets[i] * y_stride,
                                          .y_stride = y_stride});
      ASSERT_TRUE(cuda::tc::grouped_column_fits(tc(), problem));
      ASSERT_NO_THROW(cuda::tc::grouped_column(tc(), problem, y.data(), y_stride); tc().synchronize()) << where;
      ASSERT_EQ(difference(y.to_host(tc()), wanted.to_host(tc()), y_stride), "") << where << ", column";
      problem.many_rows = true;
      tc().upload(y.data(), untouched.data(), untouched.size() * sizeof(Bf16));
      ASSERT_NO_THROW(cuda::tc::grouped_column(tc(), problem, y.data(), y_stride); tc().synchronize()) << where;
      ASSERT_EQ(difference(y.to_host(tc()), wanted.to_host(tc()), y_stride), "") << where << ", column, many rows";

      const RowSegments segments = RowSegments::cut(inputs, 64);
      const std::vector<TreeNode> nodes = maximal_subtrees(segments, 0, kSegments);
      const DeviceArray<float> row_wanted(tc(), std::vector<float>(rows * outputs, 77.0f));
      const DeviceArray<float> partials(tc(), std::vector<float>(rows * outputs, 77.0f));
      for (int i = 0; i < groups; ++i)
        if (g.sizes[i])
          cuda::tc::generic_row(tc(), {.rows = g.sizes[i],
                                       .x = x.device(offsets[i]),
                                       .x_stride = x.stride(),
                                       .weights = &weights[i].device,
                                       .segments = segments,
                                       .nodes = nodes,
                                       .partials = row_wanted.data() + offsets[i] * outputs});
      ASSERT_TRUE(cuda::tc::grouped_row_fits(tc(), problem, segments, 0, kSegments, nodes));
      const std::vector<float> garbage(rows * outputs, 77.0f), root = row_wanted.to_host(tc());
      std::vector<Bf16> finished(root.size());
      for (size_t i = 0; i < root.size(); ++i) finished[i] = numerics::bf(root[i]);
      for (bool many : {false, true}) {
        problem.many_rows = many;
        tc().upload(partials.data(), garbage.data(), garbage.size() * sizeof(float));
        ASSERT_NO_THROW(cuda::tc::grouped_row(tc(), problem, segments, 0, kSegments, nodes, partials.data(), rows * outputs);
                        tc().synchronize())
            << where;
        ASSERT_EQ(difference(partials.to_host(tc()), root, outputs), "") << where << ", row, many rows: " << many;
        const DeviceArray<Bf16> rounded(tc(), std::vector<Bf16>(root.size(), Bf16{0x1234}));
        cuda::tc::grouped_row(tc(), problem, segments, 0, kSegments, nodes, partials.data(), rows * outputs, rounded.data());
        ASSERT_EQ(difference(rounded.to_host(tc()), finished, outputs), "") << where << ", finished, many rows: " << many;
      }
    }
}

TEST_F(TensorCoreLinearCuda, FinishAddsTheBiasOnceAndRounds) {
  for (Kind kind : hostile::kKinds)
    for (int64_t outputs : {1, 7, 64}) {
      Values values(7);
      const int64_t rows = 5;
      std::vector<float> root(rows * outputs);
      for (float& v : root) v = numerics::bits_float(values.next());
      const std::vector<Bf16> bias = values.vector(kind, outputs);
      const DeviceArray<float> device_root(tc(), root);
      const DeviceArray<Bf16> device_bias(tc(), bias), y(tc(), rows * outputs);
      for (bool biased : {false, true}) {
        std::vector<Bf16> want(rows * outputs);
        finish_row_linear(cpu(), root.data(), biased ? bias.data() : nullptr, rows, outputs, want.data());
        cuda::finish_row_linear(tc(), device_root.data(), biased ? device_bias.data() : nullptr, rows, outputs, y.data());
        EXPECT_EQ(difference(y.to_host(tc()), want, outputs), "") << kind_name(kind);
      }
    }
}

// The twins: each arm gives the CPU's bits of that arm, and others than the contract's.
TEST_F(TensorCoreLinearCuda, ControlArmsDiffer) {
  const int64_t n = 64, k = 1024, rows = 3;
  Values values(41);
  const Weights weights(tc(), values.vector(Kind::kOrdinary, n * k), k, n, k);
  const Rows x(tc(), &values, Kind::kOrdinary, rows, k, 8);
  const RowSegments segments = RowSegments::cut(k, 64);
  const auto column = [&](ControlArm arm) {
    const auto device = open(Profile::kTc, arm);
    const DeviceArray<float> y(*device, rows * n);
    linear_column(
        *device,
        {.rows = rows, .x = x.device(0), .x_stride = x.stride(), .weights = &weights.device, .y_fp32 = y.data(), .y_stride = n});
    return y.to_host(*device);
  };
  const auto row = [&](ControlArm arm, const Device& device, const Bf16* from, const PackedWeights& w, float* partials) {
    linear_row(device, {.rows = rows,
                        .x = from,
                        .x_stride = x.stride(),
                        .weights = &w,
                        .segments = segments,
                        .nodes = maximal_subtrees(segments, 0, kSegments),
                        .partials = partials});
    return arm;
  };
  tc().synchronize();
  std::vector<std::vector<float>> columns, roots;
  for (ControlArm arm : {ControlArm::kNone, ControlArm::kSwappedGroups, ControlArm::kFixedSplitCount}) {
    columns.push_back(column(arm));
    EXPECT_EQ(difference(columns.back(), cpu_column(weights, x, rows, nullptr, arm), n), "") << name(arm);
    const auto device = open(Profile::kTc, arm);
    const DeviceArray<float> partials(*device, rows * n);
    row(arm, *device, x.device(0), weights.device, partials.data());
    roots.push_back(partials.to_host(*device));
    std::vector<float> want(rows * n);
    row(arm, cpu(arm), x.host(0), weights.host, want.data());
    EXPECT_EQ(difference(roots.back(), want, n), "") << name(arm);
  }
  for (size_t i = 1; i < columns.size(); ++i) {
    EXPECT_NE(difference(columns[i], columns[0], n), "");
    EXPECT_NE(difference(roots[i], roots[0], n), "");
  }
}

}  // namespace
}  // namespace invar
