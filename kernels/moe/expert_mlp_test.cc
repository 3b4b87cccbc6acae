#include "kernels/moe/expert_mlp.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

// One rank's share [first, last) of the experts' intermediate width.
struct Share {
  int first = 0;
  int last = numerics::kSegments;
};

class ExpertMlpTest : public ::testing::Test {
 protected:
  static constexpr int64_t kHidden = 72;
  static constexpr int64_t kIntermediate = 176;

  // The k of a share, cut as the contract cuts it.
  RowSegments segments_ = RowSegments::cut(kIntermediate, numerics::down_unit(kIntermediate));

  struct Expert {
    std::vector<Bf16> gate, up, down;  // [intermediate][hidden] twice, [hidden][intermediate]
  };
  Expert draw_expert(uint64_t seed) const {
    return {bf16_data(kIntermediate * kHidden, Kind::kOrdinary, seed),
            bf16_data(kIntermediate * kHidden, Kind::kOrdinary, seed + 1),
            bf16_data(kHidden * kIntermediate, Kind::kOrdinary, seed + 2)};
  }
  ExpertWeights pack(const Device& device, const Expert& e, Share share) const {
    const int64_t begin = segments_.begin[share.first], width = segments_.begin[share.last] - begin;
    ExpertWeights w{GatedWeights(device, width, kHidden), PackedWeights(device, kHidden, width)};
    w.gate_up.pack_gate(0, e.gate.data() + begin * kHidden, width, kHidden);
    w.gate_up.pack_up(0, e.up.data() + begin * kHidden, width, kHidden);
    w.down.pack_rows(0, e.down.data() + begin, kHidden, kIntermediate);
    return w;
  }

  // Partials [node][row][hidden].
  std::vector<float> run(const DeviceOptions& options, const std::vector<Expert>& experts, const std::vector<int64_t>& offsets,
                         const std::vector<Bf16>& x, Share share) const {
    const Device device(options);
    std::vector<ExpertWeights> packed;
    for (const Expert& e : experts) packed.push_back(pack(device, e, share));
    std::vector<const ExpertWeights*> pointers;
    for (const ExpertWeights& w : packed) pointers.push_back(&w);
    const std::vector<TreeNode> nodes = maximal_subtrees(segments_, share.first, share.last);
    std::vector<float> partials(nodes.size() * offsets.back() * kHidden, -7.0f);
    expert_mlp(device, {.offsets = offsets,
                        .experts = pointers,
                        .x = x.data(),
                        .hidden = kHidden,
                        .segments = segments_,
                        .first = share.first,
                        .last = share.last,
                        .nodes = nodes,
                        .partials = partials.data()});
    return partials;
  }

  // Row by row through the reference linears: the clauses in their plainest form.
  std::vector<float> reference(Profile profile, const std::vector<Expert>& experts, const std::vector<int64_t>& offsets,
                               const std::vector<Bf16>& x, Share share) const {
    const Device device({});
    const std::vector<TreeNode> nodes = maximal_subtrees(segments_, share.first, share.last);
    const int64_t rows = offsets.back();
    std::vector<float> partials(nodes.size() * rows * kHidden, -7.0f);
    for (size_t e = 0; e < experts.size(); ++e) {
      const ExpertWeights w = pack(device, experts[e], share);
      const int64_t width = w.down.inputs();
      for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        std::vector<Bf16> both(2 * width), act(width);
        linear_column_reference(profile, {.rows = 1,
                                          .x = x.data() + r * kHidden,
                                          .x_stride = kHidden,
                                          .weights = &w.gate_up.matrix(),
                                          .y = both.data(),
                                          .y_stride = 2 * width});
        silu_mul_reference(
            {.rows = 1, .width = width, .x = both.data(), .x_stride = 2 * width, .y = act.data(), .y_stride = width});
        std::vector<float> row(nodes.size() * kHidden);
        linear_row_reference(profile, {.rows = 1,
                                       .x = act.data(),
                                       .x_stride = width,
                                       .weights = &w.down,
                                       .segments = segments_,
                                       .first = share.first,
                                       .last = share.last,
                                       .nodes = nodes,
                                       .partials = row.data()});
        for (size_t i = 0; i < nodes.size(); ++i)
          std::copy_n(row.begin() + i * kHidden, kHidden, partials.begin() + (i * rows + r) * kHidden);
      }
    }
    return partials;
  }
};

TEST_F(ExpertMlpTest, RaggedGroups_GiveTheReferenceBitsOnEveryShare) {
  const std::vector<Expert> experts = {draw_expert(100), draw_expert(200), draw_expert(300), draw_expert(400)};
  for (const std::vector<int64_t>& offsets : {std::vector<int64_t>{0, 3, 3, 4, 11}, std::vector<int64_t>{0, 0, 0, 9, 9}}) {
    const std::vector<Bf16> x = bf16_data(offsets.back() * kHidden, Kind::kOrdinary, 1);
    for (const Share share : {Share{0, 8}, Share{0, 4}, Share{3, 6}, Share{1, 8}, Share{5, 6}})
      for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
        const std::vector<float> want = reference(profile, experts, offsets, x, share);
        for (DeviceOptions options : devices()) {
          options.profile = profile;
          ASSERT_TRUE(same_bits(run(options, experts, offsets, x, share), want))
              << describe(options) << ", segments " << share.first << " to " << share.last;
        }
      }
  }
}

TEST_F(ExpertMlpTest, ARow_HasTheSameBitsWhateverItsGroup) {
  const std::vector<Expert> experts = {draw_expert(1), draw_expert(2)};
  const std::vector<Bf16> x = bf16_data(6 * kHidden, Kind::kOrdinary, 3);
  const std::vector<float> crowded = run({}, experts, {0, 5, 6}, x, {});
  const std::vector<float> alone =
      run({}, experts, {0, 1, 1}, std::vector<Bf16>(x.begin() + 3 * kHidden, x.begin() + 4 * kHidden), {});
  EXPECT_TRUE(same_bits(std::vector<float>(crowded.begin() + 3 * kHidden, crowded.begin() + 4 * kHidden), alone));
  const std::vector<float> other_expert =
      run({}, experts, {0, 0, 1}, std::vector<Bf16>(x.begin() + 3 * kHidden, x.begin() + 4 * kHidden), {});
  EXPECT_FALSE(same_bits(other_expert, alone));  // control
}

TEST_F(ExpertMlpTest, NoRowsOrNoExperts_TouchNothing) {
  EXPECT_TRUE(run({}, {draw_expert(1)}, {0, 0}, {}, {}).empty());
  EXPECT_TRUE(run({}, {}, {0}, {}, {}).empty());
}

}  // namespace
}  // namespace invar
