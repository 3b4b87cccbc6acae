// The GPU's `portable` linears against the scalar reference and against the CPU backend, bit for bit (README.md, "Order").
#include <cstring>
#include <string>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/hostile_values.h"
#include "kernels/linear/linear.h"

namespace invar {
namespace {

using hostile::Kind;
using hostile::Values;
using numerics::canonical_bits;
using numerics::kSegments;

constexpr Bf16 kUntouched{0x1234};
constexpr float kUntouchedFp32 = 77.0f;

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

PackedWeights pack(const Device& device, const std::vector<Bf16>& rows, int64_t outputs, int64_t inputs, int64_t stride,
                   int64_t begin) {
  PackedWeights weights(device, outputs, inputs);
  weights.pack_rows(0, rows.data() + begin, outputs, stride);
  return weights;
}

// With one bit in a million wrong nobody wants a million lines: the first difference and how many there are.
testing::AssertionResult same(const std::vector<float>& got, const std::vector<float>& want) {
  int64_t different = 0, first = -1;
  for (size_t i = 0; i < want.size(); ++i)
    if (canonical_bits(got[i]) != canonical_bits(want[i]) && ++different == 1) first = static_cast<int64_t>(i);
  if (!different) return testing::AssertionSuccess();
  return testing::AssertionFailure() << different << " of " << want.size() << " differ, first at " << first << ": got "
                                     << std::hex << numerics::float_bits(got[first]) << " want "
                                     << numerics::float_bits(want[first]);
}

// y of the linear on `device`, with `gap` elements between its rows that must stay as they are. Only bf16 results are rounded, so
// fp32 ones are compared as they are and bf16 ones widened.
struct Column {
  const PackedWeights* weights;
  const Rows* x;
  int64_t first_row, rows;
  const std::vector<Bf16>* bias = nullptr;
  bool rounds = false;

  std::vector<float> run(const Device& device, int64_t gap = 0) const {
    const int64_t outputs = weights->outputs(), stride = outputs + gap;
    const DeviceArray<Bf16> x_there(device, x->data);
    DeviceArray<Bf16> bias_there;
    if (bias) bias_there = DeviceArray<Bf16>(device, *bias);
    const DeviceArray<Bf16> y(device, std::vector<Bf16>(rows * stride, kUntouched));
    const DeviceArray<float> y_fp32(device, std::vector<float>(rows * stride, kUntouchedFp32));
    linear_column(device, {.rows = rows,
                           .x = x_there.data() + first_row * x->stride,
                           .x_stride = x->stride,
                           .weights = weights,
                           .bias = bias ? bias_there.data() : nullptr,
                           .y = rounds ? y.data() : nullptr,
                           .y_fp32 = rounds ? nullptr : y_fp32.data(),
                           .y_stride = stride});
    const std::vector<Bf16> rounded = y.to_host(device);
    const std::vector<float> whole = y_fp32.to_host(device);
    std::vector<float> dense;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < stride; ++n) {
        const int64_t i = m * stride + n;
        EXPECT_TRUE(rounds ? whole[i] == kUntouchedFp32 : rounded[i].bits == kUntouched.bits);
        if (n < outputs)
          dense.push_back(rounds ? numerics::widen(rounded[i]) : whole[i]);
        else
          EXPECT_TRUE(rounds ? rounded[i].bits == kUntouched.bits : whole[i] == kUntouchedFp32) << "gap of row " << m;
      }
    return dense;
  }
};

class PortableLinear : public CudaTest, public testing::WithParamInterface<Kind> {
 protected:
  Kind kind() const { return GetParam(); }
};

// Aligned rows take the fast schedules where the shape allows them, rows with a gap of 5 never do.
TEST_P(PortableLinear, ColumnEqualsReference) {
  const auto gpu = open(Profile::kPortable);
  const Device cpu(DeviceOptions{});
  struct Shape {
    int64_t outputs, inputs;
  };
  for (const Shape& shape : {Shape{70, 600}, {33, 1}, {1, 17}, {128, 256}, {130, 528}, {5, 1100}, {200, 2064}}) {
    const int64_t n = shape.outputs;
    Values values(17 + n);
    const std::vector<Bf16> w = values.vector(kind(), n * shape.inputs);
    const PackedWeights there = pack(*gpu, w, n, shape.inputs, shape.inputs, 0);
    const PackedWeights here = pack(cpu, w, n, shape.inputs, shape.inputs, 0);
    const std::vector<Bf16> bias = values.vector(kind() == Kind::kNonFinite ? Kind::kOrdinary : kind(), n);
    for (const int64_t gap : {0, 5, 8}) {
      const Rows x(&values, kind(), 66, shape.inputs, gap);
      std::vector<float> expected(x.count * n), expected_biased(x.count * n);
      linear_column_reference(Profile::kPortable, {.rows = x.count,
                                                   .x = x.data.data(),
                                                   .x_stride = x.stride,
                                                   .weights = &here,
                                                   .y_fp32 = expected.data(),
                                                   .y_stride = n});
      for (int64_t i = 0; i < x.count * n; ++i) expected_biased[i] = numerics::add(expected[i], numerics::widen(bias[i % n]));
      int trial = 0;
      for (const int64_t m : {1, 2, 3, 4, 7, 8, 13, 16, 17, 64, 65}) {
        const int64_t first = (x.count - m) / 2;  // rows from the middle: a row's place in the batch changes nothing
        for (const bool biased : {false, true}) {
          const bool rounds = trial++ % 3 == 0;
          const auto& all = biased ? expected_biased : expected;
          std::vector<float> want(all.begin() + first * n, all.begin() + (first + m) * n);
          if (rounds)
            for (float& y : want) y = numerics::widen(numerics::bf(y));
          const Column column{&there, &x, first, m, biased ? &bias : nullptr, rounds};
          ASSERT_TRUE(same(column.run(*gpu, trial % 2 ? 0 : 3), want))
              << "outputs " << n << " inputs " << shape.inputs << " rows " << m << " gap " << gap << (biased ? " biased" : "")
              << (rounds ? " bf16" : " fp32");
        }
      }
    }
  }
}

struct RowRun {
  const PackedWeights* weights;
  RowSegments segments;
  int first, last;
  const Rows* x;
  int64_t first_row, rows;

  RowLinear problem(const Bf16* x_data, float* partials) const {
    return {.rows = rows,
            .x = x_data + first_row * x->stride + segments.begin[first],
            .x_stride = x->stride,
            .weights = weights,
            .segments = segments,
            .first = first,
            .last = last,
            .nodes = maximal_subtrees(segments, first, last),
            .partials = partials};
  }
  // [node][row][output]; `apart` elements more between two nodes.
  std::vector<float> run(const Device& device, int64_t apart) const {
    const int64_t values = rows * weights->outputs(), stride = values + apart;
    const auto nodes = static_cast<int64_t>(maximal_subtrees(segments, first, last).size());
    const DeviceArray<Bf16> x_there(device, x->data);
    const DeviceArray<float> partials(device, std::vector<float>(nodes * stride, kUntouchedFp32));
    RowLinear p = problem(x_there.data(), partials.data());
    p.node_stride = apart ? stride : 0;
    linear_row(device, p);
    std::vector<float> dense;
    const std::vector<float> got = partials.to_host(device);
    for (int64_t i = 0; i < nodes * stride; ++i) {
      if (i % stride < values)
        dense.push_back(got[i]);
      else
        EXPECT_EQ(got[i], kUntouchedFp32) << "between the nodes";
    }
    return dense;
  }
};

TEST_P(PortableLinear, RowEqualsReferenceOnEveryRankCount) {
  const auto gpu = open(Profile::kPortable);
  const Device cpu(DeviceOptions{});
  struct Shape {
    int64_t outputs, inputs, unit;
  };
  for (const Shape& shape :
       {Shape{40, 576, 64}, {33, 24, 8}, {5, 7, 1}, {70, 1, 1}, {9, 2304, 64}, {64, 200, 4}, {130, 1536, 64}, {72, 176, 16}}) {
    const int64_t n = shape.outputs;
    const RowSegments segments = RowSegments::cut(shape.inputs, shape.unit);
    Values values(29 + n);
    const std::vector<Bf16> w = values.vector(kind(), n * shape.inputs);
    const Rows x(&values, kind(), 19, shape.inputs, shape.inputs % 8 ? 3 : 0);
    int trial = 0;
    for (int ranks = 1; ranks <= 8; ++ranks)
      for (int rank = 0; rank < ranks; ++rank) {
        const int first = rank * kSegments / ranks, last = (rank + 1) * kSegments / ranks;
        const int64_t begin = segments.begin[first], inputs = segments.begin[last] - begin;
        const PackedWeights there = pack(*gpu, w, n, inputs, shape.inputs, begin);
        const PackedWeights here = pack(cpu, w, n, inputs, shape.inputs, begin);
        const int64_t m = std::vector<int64_t>{1, 4, 8, 19}[trial++ % 4];
        RowRun row{&there, segments, first, last, &x, x.count - m, m};
        const std::vector<float> got = row.run(*gpu, trial % 3 ? 0 : 11);
        std::vector<float> want(got.size());
        row.weights = &here;
        linear_row_reference(Profile::kPortable, row.problem(x.data.data(), want.data()));
        ASSERT_TRUE(same(got, want)) << "outputs " << n << " inputs " << shape.inputs << " rank " << rank << " of " << ranks
                                     << " rows " << m;
      }
  }
}

std::string label(const testing::TestParamInfo<Kind>& info) {
  static const char* const kinds[] = {"Ordinary", "Wide", "Cancelling",  "Subnormal", "Zeros",
                                      "Ties",     "Full", "Overflowing", "NonFinite", "AnyBits"};
  return kinds[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(All, PortableLinear, testing::ValuesIn(hostile::kKinds), label);

class PortableLinearModel : public CudaTest {};

// Shapes of models, in which every schedule has its full extent; the CPU backend is the oracle, since it equals the reference.
TEST_F(PortableLinearModel, EveryBatchSizeGivesTheBitsOfTheCpu) {
  const auto gpu = open(Profile::kPortable);
  const Device cpu({.threads = 16});
  struct Shape {
    int64_t outputs, inputs;
    bool row;
    int first = 0, last = kSegments;
  };
  for (const Shape& shape : {Shape{1024, 4096, false},
                             {768, 4096, false},
                             {9000, 576, false},
                             {4096, 4096, true},
                             {576, 1536, true},
                             {1024, 12288, true},
                             {512, 14336, true, 2, 5},
                             {768, 8192, true, 7, 8}}) {
    Values values(3 + shape.outputs);
    const RowSegments segments = RowSegments::cut(shape.inputs, numerics::down_unit(shape.inputs));
    const int64_t n = shape.outputs, inputs = shape.row ? segments.begin[shape.last] - segments.begin[shape.first] : shape.inputs;
    const std::vector<Bf16> w = values.vector(Kind::kOrdinary, n * inputs);
    const PackedWeights there = pack(*gpu, w, n, inputs, inputs, 0), here = pack(cpu, w, n, inputs, inputs, 0);
    const Rows x(&values, Kind::kOrdinary, 300, shape.inputs, 0);
    for (const int64_t m : {1, 2, 5, 7, 8, 9, 16, 31, 32, 64, 65, 128, 256, 300}) {
      if (shape.outputs > 4096 && m > 65) continue;
      const int64_t first_row = x.count - m;
      std::vector<float> got, want;
      if (shape.row) {
        RowRun row{&there, segments, shape.first, shape.last, &x, first_row, m};
        got = row.run(*gpu, 0);
        row.weights = &here;
        want = row.run(cpu, 0);
      } else {
        Column column{&there, &x, first_row, m};
        got = column.run(*gpu);
        column.weights = &here;
        want = column.run(cpu);
      }
      ASSERT_TRUE(same(got, want)) << n << " x " << shape.inputs << (shape.row ? " row" : " column") << " segments "
                                   << shape.first << ".." << shape.last << " rows " << m;
    }
  }
}

// K is such that every arm cuts it elsewhere than the contract. The deliberate breaks give the bits that they give on the CPU,
// which are others than the contract's.
TEST_F(PortableLinearModel, ControlArmsDifferAsOnTheCpu) {
  Values values(21);
  const int64_t n = 64, inputs = 4608;
  const std::vector<Bf16> w = values.vector(Kind::kOrdinary, n * inputs);
  const Rows x(&values, Kind::kOrdinary, 16, inputs, 0);
  const RowSegments segments = RowSegments::cut(inputs, 64);
  const auto run = [&](bool on_gpu, ControlArm arm, int64_t rows, bool row) {
    const auto device = on_gpu ? open(Profile::kPortable, arm) : std::make_unique<Device>(DeviceOptions{.control_arm = arm});
    const PackedWeights weights = pack(*device, w, n, inputs, inputs, 0);
    std::vector<float> y =
        row ? RowRun{&weights, segments, 0, kSegments, &x, 0, rows}.run(*device, 0) : Column{&weights, &x, 0, rows}.run(*device);
    y.resize(2 * n);
    return y;
  };
  for (const bool row : {false, true}) {
    const std::vector<float> plain = run(true, ControlArm::kNone, 2, row);
    EXPECT_TRUE(same(run(true, ControlArm::kNone, 16, row), plain));
    for (const ControlArm arm : {ControlArm::kFixedSplitCount, ControlArm::kSwappedGroups})
      for (const int64_t rows : {2, 16}) {
        const std::vector<float> broken = run(true, arm, rows, row);
        EXPECT_TRUE(same(broken, run(false, arm, rows, row))) << name(arm) << " rows " << rows;
        EXPECT_FALSE(same(broken, plain)) << name(arm) << " rows " << rows << (row ? " row" : " column");
      }
    EXPECT_FALSE(same(run(true, ControlArm::kFixedSplitCount, 2, row), run(true, ControlArm::kFixedSplitCount, 16, row)));
  }
}

TEST_F(PortableLinearModel, NothingToDoIsNothingDone) {
  const auto gpu = open(Profile::kPortable);
  Values values(8);
  const std::vector<Bf16> bias = values.vector(Kind::kOrdinary, 4);
  const PackedWeights none(*gpu, 4, 0);
  const DeviceArray<Bf16> bias_there(*gpu, bias);
  const DeviceArray<float> y(*gpu, std::vector<float>{1, 2, 3, 4});
  linear_column(*gpu, {.rows = 0, .weights = &none, .y_fp32 = y.data(), .y_stride = 4});
  EXPECT_EQ(y.to_host(*gpu), (std::vector<float>{1, 2, 3, 4}));
  linear_column(
      *gpu, {.rows = 1, .weights = &none, .bias = bias_there.data(), .y_fp32 = y.data(), .y_stride = 4});  // an empty sum is +0
  for (int j = 0; j < 4; ++j) EXPECT_EQ(y.to_host(*gpu)[j], numerics::widen(bias[j]));
}

TEST_F(PortableLinearModel, WeightsComeBackHoweverTheyArrive) {
  const auto gpu = open(Profile::kPortable);
  Values values(4);
  const int64_t outputs = 75, inputs = 131;
  const std::vector<Bf16> rows = values.vector(Kind::kAnyBits, outputs * (inputs + 7));
  PackedWeights weights(*gpu, outputs, inputs);
  for (int64_t n = outputs; n > 0;) {  // ragged pieces, last first
    const int64_t first = std::max<int64_t>(0, n - 1 - n % 13);
    weights.pack_rows(first, rows.data() + first * (inputs + 7), n - first, inputs + 7);
    n = first;
  }
  for (int64_t n = 0; n < outputs; n += 7)
    for (int64_t k = 0; k < inputs; k += 5) ASSERT_EQ(weights.at(n, k).bits, rows[n * (inputs + 7) + k].bits) << n << " " << k;
}

}  // namespace
}  // namespace invar
