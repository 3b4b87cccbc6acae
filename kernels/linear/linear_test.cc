// Every schedule against the scalar reference, bit for bit (README.md, "Order").
#include "kernels/linear/linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/activation/activation.h"
#include "kernels/linear/hostile_values.h"

namespace invar {
namespace {

using hostile::Kind;
using hostile::Values;
using numerics::canonical_bits;
using numerics::kSegments;

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512})
    if (isa <= detect_isa()) all.push_back(isa);
  return all;
}

Device device(Profile profile, Isa isa, int threads = 1, ControlArm arm = ControlArm::kNone) {
  return Device({.profile = profile, .threads = threads, .isa = isa, .control_arm = arm});
}

// Rows of x with a gap behind each that holds NaN and infinity: reading it would show.
struct Rows {
  int64_t count, width, stride;
  std::vector<Bf16> data;

  Rows(Values* values, Kind kind, int64_t rows, int64_t inputs, int64_t gap)
      : count(rows), width(inputs), stride(inputs + gap), data(static_cast<size_t>(rows * stride)) {
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t k = 0; k < stride; ++k)
        data[m * stride + k] = k < inputs ? values->bf16(kind, k) : Bf16{static_cast<uint16_t>(k & 1 ? 0x7fff : 0xff80)};
  }
};

PackedWeights random_weights(Values* values, Kind kind, int64_t outputs, int64_t inputs) {
  const Device d = device(Profile::kPortable, Isa::kScalar);
  PackedWeights weights(d, outputs, inputs);
  const std::vector<Bf16> rows = values->vector(kind, outputs * inputs);
  weights.pack_rows(0, rows.data(), outputs, inputs);
  return weights;
}

struct Shape {
  int64_t outputs, inputs;
};

class Linear : public testing::TestWithParam<std::tuple<Profile, Kind>> {
 protected:
  Profile profile() const { return std::get<0>(GetParam()); }
  Kind kind() const { return std::get<1>(GetParam()); }
};

// All batch sizes, vector paths and thread counts give the bits of the reference rows; K that no group divides, outputs that no
// panel divides, one and several leaves; gaps in x are not read and gaps in y not written.
TEST_P(Linear, ColumnEqualsReference) {
  for (const Shape& shape : {Shape{70, 600}, {33, 1}, {1, 17}, {128, 256}, {130, 530}, {5, 1100}, {3, 4200}}) {
    const int64_t n = shape.outputs;
    Values values(17 + n);
    const PackedWeights weights = random_weights(&values, kind(), n, shape.inputs);
    // Where the tensor-core emulator takes the scalar step for nearly every lane, fewer rows say as much.
    const bool slow = profile() == Profile::kTc && kind() != Kind::kOrdinary && kind() != Kind::kWide;
    const Rows x(&values, kind(), slow ? 17 : n == 70 ? 256 : 65, shape.inputs, 5);
    const std::vector<Bf16> bias = values.vector(kind() == Kind::kNonFinite ? Kind::kOrdinary : kind(), n);
    std::vector<float> expected(x.count * n), expected_biased(x.count * n);
    ColumnLinear problem{.rows = x.count, .x = x.data.data(), .x_stride = x.stride, .weights = &weights, .y_stride = n};
    problem.y_fp32 = expected.data();
    linear_column_reference(profile(), problem);
    for (int64_t i = 0; i < x.count * n; ++i) expected_biased[i] = numerics::add(expected[i], numerics::widen(bias[i % n]));
    std::vector<Bf16> rounded(2 * n);
    problem.rows = 2;
    problem.bias = bias.data();
    problem.y = rounded.data();
    problem.y_fp32 = nullptr;
    linear_column_reference(profile(), problem);
    for (int64_t i = 0; i < 2 * n; ++i) ASSERT_EQ(rounded[i].bits, numerics::bf(expected_biased[i]).bits);

    int trial = 0;
    for (Isa isa : isas())
      for (int64_t m : {1, 2, 3, 7, 8, 13, 16, 64, 65, 256}) {
        if (m > x.count || (isa == Isa::kScalar && m > (profile() == Profile::kTc ? 3 : 16))) continue;
        const Device d = device(profile(), isa, 1 + trial++ % 3);
        const std::string where = std::string(name(isa)) + " outputs " + std::to_string(n) + " inputs " +
                                  std::to_string(shape.inputs) + " rows " + std::to_string(m) + " threads " +
                                  std::to_string(d.pool().threads());
        const int64_t y_stride = n + 3;
        const int64_t first = (x.count - m) / 2;  // rows from the middle: a row's place in the batch changes nothing
        problem.rows = m;
        problem.x = x.data.data() + first * x.stride;
        problem.y_stride = y_stride;
        for (bool biased : {false, true}) {
          const float* want = (biased ? expected_biased : expected).data() + first * n;
          problem.bias = biased ? bias.data() : nullptr;
          const bool rounds = trial % 2 == 0;
          std::vector<float> y_fp32(m * y_stride, 77.0f);
          std::vector<Bf16> y(m * y_stride, Bf16{0x1234});
          problem.y = rounds ? y.data() : nullptr;
          problem.y_fp32 = rounds ? nullptr : y_fp32.data();
          linear_column(d, problem);
          for (int64_t r = 0; r < m; ++r)
            for (int64_t j = 0; j < y_stride; ++j) {
              const int64_t i = r * y_stride + j;
              const float expect = j < n ? want[r * n + j] : 77.0f;
              if (rounds) {
                ASSERT_EQ(y[i].bits, j < n ? numerics::bf(expect).bits : 0x1234) << where << " at " << r << "," << j;
              } else {
                ASSERT_EQ(canonical_bits(y_fp32[i]), canonical_bits(expect)) << where << " at " << r << "," << j;
              }
            }
        }
      }
  }
}

struct RowShape {
  int64_t outputs, inputs, unit;
};

// Ranks 1 .. 8: each rank's nodes equal the reference's, and all merge to the root of one rank.
TEST_P(Linear, RowEqualsReferenceOnEveryRankCount) {
  for (const RowShape& shape : {RowShape{40, 576, 64}, {33, 24, 8}, {5, 7, 1}, {70, 1, 1}, {9, 2304, 64}, {64, 200, 4}}) {
    const int64_t n = shape.outputs;
    const RowSegments segments = RowSegments::cut(shape.inputs, shape.unit);
    Values values(29 + n);
    const std::vector<Bf16> w = values.vector(kind(), n * shape.inputs);
    const Rows x(&values, kind(), 19, shape.inputs, 3);
    std::vector<float> root(x.count * n);
    {
      PackedWeights weights(device(profile(), Isa::kScalar), n, shape.inputs);
      weights.pack_rows(0, w.data(), n, shape.inputs);
      RowLinear problem{.rows = x.count,
                        .x = x.data.data(),
                        .x_stride = x.stride,
                        .weights = &weights,
                        .segments = segments,
                        .nodes = maximal_subtrees(segments, 0, kSegments),
                        .partials = root.data()};
      ASSERT_EQ(problem.nodes.size(), 1u);
      linear_row_reference(profile(), problem);
    }
    int trial = 0;
    for (int ranks = 1; ranks <= 8; ++ranks)
      for (Isa isa : isas())
        for (int64_t m : {1, 4, 19}) {
          if (profile() == Profile::kTc ? m != (isa == Isa::kScalar ? 1 : ranks % 2 ? 19 : 4) : isa == Isa::kScalar && m != 4)
            continue;
          const Device d = device(profile(), isa, 1 + trial++ % 3);
          const int64_t first_row = x.count - m;
          std::vector<TreeNode> all_nodes;
          std::vector<std::vector<float>> all_partials;
          for (int rank = 0; rank < ranks; ++rank) {
            const int first = rank * kSegments / ranks, last = (rank + 1) * kSegments / ranks;
            const int64_t begin = segments.begin[first], inputs = segments.begin[last] - begin;
            PackedWeights weights(d, n, inputs);
            weights.pack_rows(0, w.data() + begin, n, shape.inputs);
            RowLinear problem{.rows = m,
                              .x = x.data.data() + first_row * x.stride + begin,
                              .x_stride = x.stride,
                              .weights = &weights,
                              .segments = segments,
                              .first = first,
                              .last = last,
                              .nodes = maximal_subtrees(segments, first, last)};
            std::vector<float> partials(problem.nodes.size() * m * n), expected(partials.size());
            problem.partials = partials.data();
            linear_row(d, problem);
            problem.partials = expected.data();
            linear_row_reference(profile(), problem);
            for (size_t i = 0; i < partials.size(); ++i)
              ASSERT_EQ(canonical_bits(partials[i]), canonical_bits(expected[i]))
                  << name(isa) << " rank " << rank << "/" << ranks << " rows " << m << " at " << i;
            for (size_t i = 0; i < problem.nodes.size(); ++i) {
              all_nodes.push_back(problem.nodes[i]);
              all_partials.emplace_back(partials.begin() + i * m * n, partials.begin() + (i + 1) * m * n);
            }
          }
          std::vector<const float*> pointers;
          for (const auto& p : all_partials) pointers.push_back(p.data());
          std::vector<float> merged(m * n);
          merge_to_root(all_nodes, pointers.data(), m * n, merged.data());
          for (int64_t i = 0; i < m * n; ++i)
            ASSERT_EQ(canonical_bits(merged[i]), canonical_bits(root[first_row * n + i]))
                << name(isa) << " ranks " << ranks << " at " << i;
        }
  }
}

std::string label(const testing::TestParamInfo<std::tuple<Profile, Kind>>& info) {
  static const char* const kinds[] = {"Ordinary", "Wide", "Cancelling",  "Subnormal", "Zeros",
                                      "Ties",     "Full", "Overflowing", "NonFinite", "AnyBits"};
  return std::string(std::get<0>(info.param) == Profile::kTc ? "Tc" : "Portable") +
         kinds[static_cast<int>(std::get<1>(info.param))];
}
INSTANTIATE_TEST_SUITE_P(All, Linear,
                         testing::Combine(testing::Values(Profile::kPortable, Profile::kTc), testing::ValuesIn(hostile::kKinds)),
                         label);

// More rows than the schedule prepares at once.
TEST(LinearBatch, FourThousandRowsEqualOneByOne) {
  Values values(5);
  const PackedWeights weights = random_weights(&values, Kind::kWide, 5, 20);
  const Rows x(&values, Kind::kWide, 4096, 20, 0);
  const RowSegments segments = RowSegments::cut(20, 1);
  const auto nodes = maximal_subtrees(segments, 0, kSegments);
  for (Profile profile : {Profile::kPortable, Profile::kTc})
    for (Isa isa : isas()) {
      const Device d = device(profile, isa, 2);
      std::vector<float> y(4096 * 5), root(4096 * 5);
      linear_column(d,
                    {.rows = 4096, .x = x.data.data(), .x_stride = 20, .weights = &weights, .y_fp32 = y.data(), .y_stride = 5});
      linear_row(d, {.rows = 4096,
                     .x = x.data.data(),
                     .x_stride = 20,
                     .weights = &weights,
                     .segments = segments,
                     .nodes = nodes,
                     .partials = root.data()});
      for (int64_t m = 0; m < 4096; m += 61) {
        float one[5], one_root[5];
        linear_column_reference(
            profile, {.rows = 1, .x = x.data.data() + m * 20, .x_stride = 20, .weights = &weights, .y_fp32 = one, .y_stride = 5});
        linear_row_reference(profile, {.rows = 1,
                                       .x = x.data.data() + m * 20,
                                       .x_stride = 20,
                                       .weights = &weights,
                                       .segments = segments,
                                       .nodes = nodes,
                                       .partials = one_root});
        for (int j = 0; j < 5; ++j) {
          ASSERT_EQ(canonical_bits(y[m * 5 + j]), canonical_bits(one[j])) << name(profile) << name(isa) << m;
          ASSERT_EQ(canonical_bits(root[m * 5 + j]), canonical_bits(one_root[j])) << name(profile) << name(isa) << m;
        }
      }
    }
}

// A long K whose prepared rows do not fit one chunk even for 768 rows, several runs a leaf.
TEST(LinearBatch, LongInputsInSeveralChunks) {
  Values values(6);
  const int64_t inputs = 16000, rows = 230;
  const PackedWeights weights = random_weights(&values, Kind::kOrdinary, 3, inputs);
  const Rows x(&values, Kind::kOrdinary, rows, inputs, 0);
  for (Profile profile : {Profile::kPortable, Profile::kTc}) {
    std::vector<float> y(rows * 3), last(3);
    linear_column(device(profile, detect_isa(), 2),
                  {.rows = rows, .x = x.data.data(), .x_stride = inputs, .weights = &weights, .y_fp32 = y.data(), .y_stride = 3});
    for (int64_t m : {int64_t{0}, rows / 2, rows - 1}) {
      linear_column_reference(profile, {.rows = 1,
                                        .x = x.data.data() + m * inputs,
                                        .x_stride = inputs,
                                        .weights = &weights,
                                        .y_fp32 = last.data(),
                                        .y_stride = 3});
      for (int j = 0; j < 3; ++j)
        EXPECT_EQ(canonical_bits(y[m * 3 + j]), canonical_bits(last[j])) << name(profile) << " row " << m;
    }
  }
}

TEST(LinearBatch, NothingToDoIsNothingDone) {
  Values values(8);
  const Device d = device(Profile::kPortable, detect_isa(), 2);
  const PackedWeights none(d, 4, 0);
  const std::vector<Bf16> bias = values.vector(Kind::kOrdinary, 4);
  float y[4] = {1, 2, 3, 4};
  linear_column(d, {.rows = 1, .weights = &none, .bias = bias.data(), .y_fp32 = y, .y_stride = 4});  // an empty sum is +0
  for (int j = 0; j < 4; ++j) EXPECT_EQ(y[j], numerics::widen(bias[j]));
  const PackedWeights weights = random_weights(&values, Kind::kOrdinary, 4, 8);
  linear_column(d, {.rows = 0, .weights = &weights, .y_fp32 = y, .y_stride = 4});
  for (int j = 0; j < 4; ++j) EXPECT_EQ(y[j], numerics::widen(bias[j]));
}

TEST(PackedWeights, RowsComeBackHoweverTheyArrive) {
  Values values(4);
  const Device d = device(Profile::kTc, detect_isa());
  const int64_t outputs = 75, inputs = 131;
  const std::vector<Bf16> rows = values.vector(Kind::kAnyBits, outputs * (inputs + 7));
  PackedWeights whole(d, outputs, inputs), pieces(d, outputs, inputs);
  whole.pack_rows(0, rows.data(), outputs, inputs + 7);
  for (int64_t n = outputs; n > 0;) {  // ragged pieces, last first
    const int64_t first = std::max<int64_t>(0, n - 1 - n % 13);
    pieces.pack_rows(first, rows.data() + first * (inputs + 7), n - first, inputs + 7);
    n = first;
  }
  for (int64_t n = 0; n < outputs; ++n)
    for (int64_t k = 0; k < inputs; ++k) {
      ASSERT_EQ(whole.at(n, k).bits, rows[n * (inputs + 7) + k].bits);
      ASSERT_EQ(pieces.at(n, k).bits, rows[n * (inputs + 7) + k].bits);
    }
  EXPECT_EQ(whole.bytes(), pieces.bytes());
  EXPECT_EQ(std::memcmp(whole.data(), pieces.data(), whole.bytes()), 0);
}

TEST(FinishRowLinear, RoundsOnceWithBiasAndOnceAfter) {
  Values values(12);
  for (int64_t outputs : {1, 31, 513, 1400})
    for (Kind kind : {Kind::kOrdinary, Kind::kTies, Kind::kNonFinite}) {
      const int64_t rows = outputs == 1400 ? 60 : 3;
      std::vector<float> root(rows * outputs);
      for (float& x : root)
        x = numerics::bits_float(uint32_t{values.bf16(kind, 0).bits} << 16 |
                                 (values.next() % 2 ? 0x8000u : values.next() & 0xffffu));
      const std::vector<Bf16> bias = values.vector(kind, outputs);
      std::vector<Bf16> y(rows * outputs), plain(rows * outputs);
      const Device d = device(Profile::kPortable, detect_isa(), 2);
      finish_row_linear(d, root.data(), bias.data(), rows, outputs, y.data());
      finish_row_linear(d, root.data(), nullptr, rows, outputs, plain.data());
      for (int64_t i = 0; i < rows * outputs; ++i) {
        ASSERT_EQ(y[i].bits, numerics::bf(numerics::add(root[i], numerics::widen(bias[i % outputs]))).bits);
        ASSERT_EQ(plain[i].bits, numerics::bf(root[i]).bits);
      }
    }
}

// linear_row's own y is what the second pass makes of its root; a rank with a share of the segments has none.
TEST(FinishRowLinear, LinearRowWritesTheSameItself) {
  for (const Profile profile : {Profile::kPortable, Profile::kTc})
    for (const int64_t outputs : {1, 70})
      for (const int64_t rows : {1, 5, 70}) {
        const int64_t inputs = 576;
        Values values(static_cast<uint64_t>(40 + rows));
        const Device d = device(profile, detect_isa(), 2);
        PackedWeights weights(d, outputs, inputs);
        const std::vector<Bf16> w = values.vector(Kind::kWide, outputs * inputs), x = values.vector(Kind::kWide, rows * inputs);
        const std::vector<Bf16> bias = values.vector(Kind::kWide, outputs);
        weights.pack_rows(0, w.data(), outputs, inputs);
        std::vector<float> root(rows * outputs);
        RowLinear p{
            .rows = rows, .x = x.data(), .x_stride = inputs, .weights = &weights, .segments = RowSegments::cut(inputs, 64)};
        p.nodes = maximal_subtrees(p.segments, 0, kSegments);
        p.partials = root.data();
        linear_row(d, p);
        ASSERT_TRUE(row_finishes(d, p));
        for (const bool biased : {false, true}) {
          std::vector<Bf16> want(rows * outputs), y(rows * outputs), reference(rows * outputs);
          finish_row_linear(d, root.data(), biased ? bias.data() : nullptr, rows, outputs, want.data());
          p.bias = biased ? bias.data() : nullptr;
          std::vector<float> scratch(rows * outputs);
          p.partials = scratch.data();
          p.y = y.data();
          linear_row(d, p);
          p.y = reference.data();
          if (rows < 70) linear_row_reference(profile, p);
          for (int64_t i = 0; i < rows * outputs; ++i) {
            ASSERT_EQ(y[i].bits, want[i].bits) << name(profile) << ", " << rows << " rows, element " << i;
            if (rows < 70) {
              ASSERT_EQ(reference[i].bits, want[i].bits);
            }
          }
        }
        p.nodes = maximal_subtrees(p.segments, 0, 4);
        EXPECT_FALSE(row_finishes(d, p));
      }
}

// The same with a residual stream as y: the bits of residual_add() behind it, whatever either holds.
TEST(FinishRowLinear, LinearRowAddsToAResidualStream) {
  const int64_t outputs = 70, inputs = 200;
  for (const Profile profile : {Profile::kPortable, Profile::kTc})
    for (Kind kind : hostile::kKinds)
      for (const int64_t rows : {1, 9, 70}) {
        Values values(static_cast<uint64_t>(50 + rows));
        const Device d = device(profile, detect_isa(), 2);
        const PackedWeights weights = random_weights(&values, kind, outputs, inputs);
        const std::vector<Bf16> x = values.vector(kind, rows * inputs), bias = values.vector(kind, outputs);
        std::vector<Bf16> stream = values.vector(kind, rows * outputs);
        for (const auto& [at, bits] : {std::pair<int, int>{0, 0x8000}, {7, 0x7f80}, {14, 0xff80}, {21, 0xffc1}, {28, 0x0001}})
          stream[static_cast<size_t>(at)].bits = static_cast<uint16_t>(bits);
        std::vector<float> root(rows * outputs);
        RowLinear p{
            .rows = rows, .x = x.data(), .x_stride = inputs, .weights = &weights, .segments = RowSegments::cut(inputs, 8)};
        p.nodes = maximal_subtrees(p.segments, 0, kSegments);
        p.partials = root.data();
        linear_row(d, p);
        for (const bool biased : {false, true}) {
          std::vector<Bf16> result(rows * outputs), want = stream, y = stream, reference = stream;
          finish_row_linear(d, root.data(), biased ? bias.data() : nullptr, rows, outputs, result.data());
          residual_add_reference(want.data(), result.data(), rows * outputs);
          p.bias = biased ? bias.data() : nullptr;
          p.adds = true;
          p.y = y.data();
          ASSERT_TRUE(row_adds_residual(d, p));
          linear_row(d, p);
          p.y = reference.data();
          if (rows < 70) linear_row_reference(profile, p);
          for (int64_t i = 0; i < rows * outputs; ++i) {
            ASSERT_EQ(y[i].bits, want[i].bits) << name(profile) << ", " << rows << " rows, element " << i;
            if (rows < 70) {
              ASSERT_EQ(reference[i].bits, want[i].bits) << name(profile) << ", element " << i;
            }
          }
        }
        p.nodes = maximal_subtrees(p.segments, 0, 4);
        EXPECT_FALSE(row_adds_residual(d, p));
      }
}

// The twins that must fail.
class LinearControl : public testing::TestWithParam<Profile> {
 protected:
  int64_t different(ControlArm arm_a, int64_t rows_a, ControlArm arm_b, int64_t rows_b, bool row) {
    Values values(21);
    const int64_t n = 64, inputs = 1024;
    const PackedWeights weights = random_weights(&values, Kind::kOrdinary, n, inputs);
    const Rows x(&values, Kind::kOrdinary, 16, inputs, 0);
    const RowSegments segments = RowSegments::cut(inputs, 64);
    int64_t scalar = 0;
    for (Isa isa : isas()) {
      std::vector<float> result[2];
      const ControlArm arms[2] = {arm_a, arm_b};
      const int64_t rows[2] = {rows_a, rows_b};
      for (int i = 0; i < 2; ++i) {
        result[i].resize(rows[i] * n);
        const Device d = device(GetParam(), isa, 2, arms[i]);
        if (row) {
          linear_row(d, {.rows = rows[i],
                         .x = x.data.data(),
                         .x_stride = inputs,
                         .weights = &weights,
                         .segments = segments,
                         .nodes = maximal_subtrees(segments, 0, kSegments),
                         .partials = result[i].data()});
        } else {
          linear_column(d, {.rows = rows[i],
                            .x = x.data.data(),
                            .x_stride = inputs,
                            .weights = &weights,
                            .y_fp32 = result[i].data(),
                            .y_stride = n});
        }
      }
      int64_t count = 0;
      for (int64_t i = 0; i < std::min(rows_a, rows_b) * n; ++i)
        count += canonical_bits(result[0][i]) != canonical_bits(result[1][i]);
      if (isa == Isa::kScalar) scalar = count;
      EXPECT_EQ(count, scalar) << name(isa);  // the arm itself is the same on every path
    }
    return scalar;
  }
};

TEST_P(LinearControl, BatchSizeChangesNothingUnlessTheSplitCountIsFixed) {
  for (bool row : {false, true}) {
    EXPECT_EQ(different(ControlArm::kNone, 2, ControlArm::kNone, 16, row), 0);
    EXPECT_GT(different(ControlArm::kFixedSplitCount, 2, ControlArm::kFixedSplitCount, 16, row), 20) << (row ? "row" : "column");
  }
}

TEST_P(LinearControl, SwappedGroupsChangeBits) {
  for (bool row : {false, true})
    EXPECT_GT(different(ControlArm::kNone, 8, ControlArm::kSwappedGroups, 8, row), 20) << (row ? "row" : "column");
}

INSTANTIATE_TEST_SUITE_P(Profiles, LinearControl, testing::Values(Profile::kPortable, Profile::kTc),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace invar
