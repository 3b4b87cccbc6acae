#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/activation/activation.h"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/moe/expert_mlp.h"

namespace invar {
namespace {

using namespace test_rows;

struct Shape {
  int64_t hidden, intermediate;
};
struct Share {
  int first, last;
};

class ExpertMlpCuda : public CudaTest {
 protected:
  struct Expert {
    std::vector<Bf16> gate_up, down;  // [2 * intermediate][hidden], [hidden][intermediate]
  };
  static std::vector<Expert> draw(const Shape& shape, int count) {
    std::vector<Expert> experts;
    for (int e = 0; e < count; ++e)
      experts.push_back({bf16_data(2 * shape.intermediate * shape.hidden, Kind::kOrdinary, 100 + 2 * e),
                         bf16_data(shape.hidden * shape.intermediate, Kind::kOrdinary, 101 + 2 * e)});
    return experts;
  }
  enum class How { kOneByOne, kTogether, kTogetherFromDevice, kOneByOneFromDevice, kIndexed, kIndexedOneByOne };
  // Partials [node][row][hidden] of one rank's share of the intermediate width.
  static std::vector<float> run(const Device& device, const Shape& shape, const std::vector<Expert>& experts,
                                const std::vector<int64_t>& offsets, const std::vector<Bf16>& x, Share share,
                                How how = How::kOneByOne) {
    const RowSegments segments = RowSegments::cut(shape.intermediate, numerics::down_unit(shape.intermediate));
    const int64_t begin = segments.begin[share.first], width = segments.begin[share.last] - begin;
    std::vector<ExpertWeights> packed;
    for (const Expert& e : experts) {
      ExpertWeights w{GatedWeights(device, width, shape.hidden), PackedWeights(device, shape.hidden, width)};
      w.gate_up.pack_gate(0, e.gate_up.data() + begin * shape.hidden, width, shape.hidden);
      w.gate_up.pack_up(0, e.gate_up.data() + (shape.intermediate + begin) * shape.hidden, width, shape.hidden);
      w.down.pack_rows(0, e.down.data() + begin, shape.hidden, shape.intermediate);
      packed.push_back(std::move(w));
    }
    std::vector<const ExpertWeights*> pointers;
    for (const ExpertWeights& w : packed) pointers.push_back(&w);
    const auto nodes = maximal_subtrees(segments, share.first, share.last);
    // With an index each row lies somewhere else, and rows that nobody names lie between.
    const bool indexed = how == How::kIndexed || how == How::kIndexedOneByOne;
    std::vector<Bf16> moved(2 * x.size(), Bf16{0x7fff});
    std::vector<int32_t> index;
    for (int64_t row = 0; row < offsets.back(); ++row) {
      index.push_back(static_cast<int32_t>(2 * (row * 37 % offsets.back()) + row % 2));
      if (std::count(index.begin(), index.end() - 1, index.back())) index.back() ^= 1;
      std::copy_n(x.begin() + row * shape.hidden, shape.hidden, moved.begin() + index.back() * shape.hidden);
    }
    const DeviceArray<Bf16> x_there(device, indexed ? moved : x);
    const DeviceArray<int32_t> index_there(device, index);
    const DeviceArray<float> partials(
        device, std::vector<float>(nodes.size() * static_cast<size_t>(offsets.back() * shape.hidden), -7.0f));
    Buffer scratch;
    const ExpertTable table(device, pointers);
    const DeviceArray<int64_t> offsets_there(device, offsets);
    const bool on_device = how == How::kTogetherFromDevice || how == How::kOneByOneFromDevice || indexed;
    ExpertMlp problem{
        .rows = offsets.back(),
        .experts = pointers,
        .table = how == How::kTogether || how == How::kTogetherFromDevice || how == How::kIndexed ? &table : nullptr,
        .x = x_there.data(),
        .index = indexed ? index_there.data() : nullptr,
        .hidden = shape.hidden,
        .segments = segments,
        .first = share.first,
        .last = share.last,
        .nodes = nodes,
        .partials = partials.data(),
        .scratch = &scratch};
    if (on_device)
      problem.offsets_on_device = offsets_there.data();
    else
      problem.offsets = offsets;
    expert_mlp(device, problem);
    const size_t grown = scratch.size();
    expert_mlp(device, problem);  // in memory that the first call left behind
    EXPECT_EQ(scratch.size(), grown);
    const std::vector<float> values = partials.to_host(device);
    if (root_alone(nodes)) {  // and the rows themselves
      const DeviceArray<Bf16> y(device, std::vector<Bf16>(values.size(), Bf16{0x1234}));
      const DeviceArray<float> room(device, values.size());
      problem.partials = room.data();
      problem.y = y.data();
      expert_mlp(device, problem);
      const std::vector<Bf16> rows = y.to_host(device);
      for (size_t i = 0; i < rows.size(); ++i)
        if (rows[i].bits != numerics::bf(values[i]).bits) {
          ADD_FAILURE() << device.describe() << ", way " << static_cast<int>(how) << ": element " << i << " of y";
          break;
        }
    }
    return values;
  }
};

class ExpertShapesCuda : public ExpertMlpCuda, public testing::WithParamInterface<Shape> {};
INSTANTIATE_TEST_SUITE_P(HiddenAndInner, ExpertShapesCuda, testing::Values(Shape{72, 176}, Shape{256, 768}, Shape{512, 1024}),
                         [](const auto& info) { return absl::StrCat(info.param.hidden, "x", info.param.intermediate); });

// The CPU backend is the oracle: expert_mlp_test.cc holds it against the reference linears.
TEST_P(ExpertShapesCuda, RaggedGroupsGiveTheBitsOfTheCpu) {
  const Shape shape = GetParam();
  const std::vector<Expert> experts = draw(shape, 5);
  for (const std::vector<int64_t>& offsets : {std::vector<int64_t>{0, 3, 3, 4, 25, 26}, std::vector<int64_t>{0, 0, 0, 9, 9, 9},
                                              std::vector<int64_t>{0, 100, 101, 101, 103, 140}}) {
    const std::vector<Bf16> x = bf16_data(offsets.back() * shape.hidden, Kind::kOrdinary, 1);
    for (const Share share : {Share{0, 8}, Share{0, 4}, Share{3, 6}, Share{5, 6}})
      for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
        const Device cpu({.profile = profile, .threads = 16});
        const auto gpu = open(profile);
        const std::vector<float> want = run(cpu, shape, experts, offsets, x, share);
        for (const How how : {How::kOneByOneFromDevice, How::kIndexed})
          ASSERT_TRUE(same_bits(run(cpu, shape, experts, offsets, x, share, how), want));
        for (const How how : {How::kOneByOne, How::kTogether, How::kTogetherFromDevice, How::kOneByOneFromDevice, How::kIndexed,
                              How::kIndexedOneByOne})
          ASSERT_TRUE(same_bits(run(*gpu, shape, experts, offsets, x, share, how), want))
              << name(profile) << ", hidden " << shape.hidden << ", rows " << offsets.back() << ", segments " << share.first
              << " to " << share.last << ", way " << static_cast<int>(how);
      }
  }
}

// More than 48 rows an expert on average: other kernels. Hidden sizes on both sides of eight blocks of 64, one to eight segments.
TEST_F(ExpertMlpCuda, ManyRowsAnExpertGiveTheBitsOfTheCpu) {
  for (const Shape& shape : {Shape{576, 768}, Shape{256, 512}}) {
    const std::vector<Expert> experts = draw(shape, 5);
    const std::vector<int64_t> offsets = {0, 200, 200, 263, 264, 400};
    const std::vector<Bf16> x = bf16_data(offsets.back() * shape.hidden, Kind::kOrdinary, 1);
    const Device cpu({.profile = Profile::kTc, .threads = 16});
    const auto gpu = open(Profile::kTc);
    for (const Share share : {Share{0, 8}, Share{0, 4}, Share{2, 4}, Share{7, 8}}) {
      const std::vector<float> want = run(cpu, shape, experts, offsets, x, share);
      for (const How how : {How::kTogether, How::kTogetherFromDevice, How::kIndexed})
        ASSERT_TRUE(same_bits(run(*gpu, shape, experts, offsets, x, share, how), want))
            << "hidden " << shape.hidden << ", segments " << share.first << " to " << share.last << ", way "
            << static_cast<int>(how);
    }
  }
}

// Of other expert's weights a row must not give the same: the groups' pointers are looked at.
TEST_F(ExpertMlpCuda, TogetherEachGroupHasItsOwnWeights) {
  const Shape shape{256, 768};
  std::vector<Expert> experts = draw(shape, 3);
  const std::vector<Bf16> row = bf16_data(shape.hidden, Kind::kOrdinary, 3);
  std::vector<Bf16> x;
  for (int i = 0; i < 3; ++i) x.insert(x.end(), row.begin(), row.end());
  for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
    const std::vector<float> y = run(*open(profile), shape, experts, {0, 1, 2, 3}, x, {0, 8}, How::kTogetherFromDevice);
    const auto part = [&](int i) { return std::vector<float>(y.begin() + i * shape.hidden, y.begin() + (i + 1) * shape.hidden); };
    EXPECT_FALSE(same_bits(part(0), part(1)));
    EXPECT_FALSE(same_bits(part(1), part(2)));
  }
}

TEST_F(ExpertMlpCuda, ARowHasTheSameBitsWhateverItsGroup) {
  const Shape shape{256, 768};
  const std::vector<Expert> experts = draw(shape, 2);
  const std::vector<Bf16> x = bf16_data(40 * shape.hidden, Kind::kOrdinary, 3);
  const std::vector<Bf16> row(x.begin() + 3 * shape.hidden, x.begin() + 4 * shape.hidden);
  for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
    const auto gpu = open(profile);
    const std::vector<float> crowded = run(*gpu, shape, experts, {0, 39, 40}, x, {0, 8});
    const std::vector<float> alone = run(*gpu, shape, experts, {0, 1, 1}, row, {0, 8});
    EXPECT_TRUE(same_bits(std::vector<float>(crowded.begin() + 3 * shape.hidden, crowded.begin() + 4 * shape.hidden), alone));
    EXPECT_FALSE(same_bits(run(*gpu, shape, experts, {0, 0, 1}, row, {0, 8}), alone));  // control: another expert
  }
}

}  // namespace
}  // namespace invar
