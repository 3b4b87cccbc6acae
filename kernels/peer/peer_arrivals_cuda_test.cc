// Linears that write into the windows of all members, and the sums behind them: members are streams of one GPU that nothing on
// the host holds together, so that one may be a whole operation behind another. Bits against the CPU, and against values that
// wait in the member's own memory.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "kernels/device/cuda/context.h"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/norm/residual_norm.h"
#include "kernels/peer/peer.h"

namespace invar {
namespace {

using numerics::kSegments;
using test_rows::Kind;

// Loading a kernel at its first launch waits for all that runs on the GPU, here for kernels that wait for what is queued next.
const bool kLoadedAtOnce = setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0;

constexpr float kEpsilon = 1e-6f;
constexpr int64_t kMostRows = 64;

// Windows of several members on one GPU, each with a stream of its own.
class Members {
 public:
  Members(int ranks, int64_t outputs, std::chrono::nanoseconds deadline = std::chrono::seconds(6)) {
    const PeerLayout layout{.quick_bytes = static_cast<size_t>(kMostRows * outputs * 16 * kSegments),
                            .rows_bytes = static_cast<size_t>(kMostRows * outputs * 4 * kSegments),
                            .arrival_bytes = static_cast<size_t>(kMostRows * outputs * 4 * kSegments)};
    for (int r = 0; r < ranks; ++r) {
      devices_.push_back(*Device::open({.profile = Profile::kTc, .backend = Backend::kCuda}));
      const Device& device = *devices_.back();
      windows_.emplace_back(device, layout.bytes());
      records_.push_back(Buffer::staging(device, sizeof(PeerRecord)));
      *records_.back().as<PeerRecord>() = {};
      // In the stream that the buffer's zeros are written in: on a busy GPU they come late.
      cuda::check(
          cudaMemsetAsync(windows_.back().data() + layout.arrivals(0), 0xff, 2 * layout.arrival_bytes, device.cuda().stream));
    }
    synchronize();
    for (int r = 0; r < ranks; ++r) {
      PeerView& view = views_.emplace_back();
      view = {.rank = r,
              .ranks = ranks,
              .layout = layout,
              .record = records_[r].as<PeerRecord>(),
              .deadline_ns = static_cast<uint64_t>(deadline.count()),
              .crowded = true};
      for (int m = 0; m < ranks; ++m) view.window[m] = windows_[m].data();
    }
  }
  int ranks() const { return static_cast<int>(devices_.size()); }
  const Device& device(int rank) const { return *devices_[rank]; }
  const PeerView& view(int rank) const { return views_[rank]; }
  const PeerRecord& record(int rank) const { return *records_[rank].as<PeerRecord>(); }
  void synchronize() const {
    for (const auto& device : devices_) device->synchronize();
  }
  // Words of both areas that some value has been left in.
  int64_t left_over(int rank) const {
    const PeerLayout& layout = views_[rank].layout;
    std::vector<uint32_t> words(2 * layout.arrival_bytes / 4);
    devices_[rank]->download(words.data(), windows_[rank].data() + layout.arrivals(0), words.size() * 4);
    return std::count_if(words.begin(), words.end(), [](uint32_t w) { return w != kAbsentWord; });
  }

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Buffer> windows_, records_;
  std::vector<PeerView> views_;
};

// A row-parallel linear, its inputs in several variants, and the norm behind it.
struct Problem {
  int64_t outputs, inputs;
  int variants = 3;
  RowSegments segments;
  std::vector<Bf16> weights, bias, x, norm_weight;
  std::vector<std::vector<Bf16>> rows;  // by variant: [kMostRows][inputs]

  Problem(int64_t n, int64_t k, Kind kind) : outputs(n), inputs(k), segments(RowSegments::cut(k, 64)) {
    weights = test_rows::bf16_data(n * k, Kind::kSpread, 1);
    bias = test_rows::bf16_data(n, Kind::kSpread, 2);
    x = test_rows::bf16_data(kMostRows * n, Kind::kOrdinary, 3);
    norm_weight = test_rows::bf16_data(n, Kind::kOrdinary, 4);
    for (int v = 0; v < variants; ++v) rows.push_back(test_rows::bf16_data(kMostRows * k, kind, 5 + v));
  }
};

// bf(RN(root + bias)) of all rows of a variant, on the CPU. The arm changes the order.
std::vector<Bf16> on_cpu(const Problem& p, int variant, ControlArm arm = ControlArm::kNone) {
  const Device cpu({.profile = Profile::kTc, .threads = 2, .control_arm = arm});
  PackedWeights weights(cpu, p.outputs, p.inputs);
  weights.pack_rows(0, p.weights.data(), p.outputs, p.inputs);
  std::vector<float> partials(static_cast<size_t>(kMostRows * p.outputs));
  std::vector<Bf16> y(partials.size());
  linear_row(cpu, {.rows = kMostRows,
                   .x = p.rows[variant].data(),
                   .x_stride = p.inputs,
                   .weights = &weights,
                   .segments = p.segments,
                   .nodes = {{3, 0}},
                   .partials = partials.data()});
  finish_row_linear(cpu, partials.data(), p.bias.data(), kMostRows, p.outputs, y.data());
  return y;
}

// One member's share of a problem on its device.
class Share {
 public:
  Share(const Members& members, const Problem& p, int rank) : members_(members), problem_(p), rank_(rank) {
    const int ranks = members.ranks();
    for (int r = 0; r < ranks; ++r) {
      first_.push_back(static_cast<int>(nodes_.size()));
      for (const TreeNode n : maximal_subtrees(p.segments, segment(r), segment(r + 1))) nodes_.push_back(n);
    }
    first_.push_back(static_cast<int>(nodes_.size()));
    const Device& device = members.device(rank);
    const int64_t begin = p.segments.begin[segment(rank)];
    width_ = p.segments.begin[segment(rank + 1)] - begin;
    weights_ = PackedWeights(device, p.outputs, width_);
    weights_.pack_rows(0, p.weights.data() + begin, p.outputs, p.inputs);
    for (const std::vector<Bf16>& rows : p.rows) {
      std::vector<Bf16> mine;
      for (int64_t r = 0; r < kMostRows; ++r)
        mine.insert(mine.end(), rows.begin() + r * p.inputs + begin, rows.begin() + r * p.inputs + begin + width_);
      rows_.emplace_back(device, mine);
    }
    bias_ = DeviceArray<Bf16>(device, p.bias);
    x_ = DeviceArray<Bf16>(device, p.x);
    norm_weight_ = DeviceArray<Bf16>(device, p.norm_weight);
    normed_ = DeviceArray<Bf16>(device, kMostRows * p.outputs);
    y_ = DeviceArray<Bf16>(device, kMostRows * p.outputs);
    partials_ = DeviceArray<float>(device, kSegments * kMostRows * p.outputs);
  }
  bool sends(int64_t rows) const {
    return row_sends(device(), rows, problem_.outputs, problem_.segments, segment(rank_), segment(rank_ + 1), own_nodes());
  }
  // Queues the linear alone, into memory that nobody reads.
  void idle(int64_t rows) const { linear(rows, 0, {}); }
  void send(int64_t rows, int variant) const {
    linear(rows, variant, cuda::peer_targets(view(), first_[rank_], rows * problem_.outputs));
  }
  void add(int64_t rows) const { cuda::peer_arrivals_norm(device(), view(), merge(rows), norm()); }
  // The same by values in this member's memory.
  void send_and_add_the_other_way(int64_t rows, int variant) const {
    linear(rows, variant, {});
    const PeerMerge m = merge(rows);
    for (const PeerWay way : {PeerWay::kUnits, PeerWay::kFlags})
      if (cuda::peer_merge_norm_limit(view(), m, norm(), way) >= rows)
        return cuda::peer_merge_norm(device(), view(), m, norm(), way);
    cuda::peer_merge_quick(device(), view(), m, y_.data());
    residual_rms_norm(device(), {.rows = rows,
                                 .width = problem_.outputs,
                                 .x = x_.data(),
                                 .y = y_.data(),
                                 .weight = norm_weight_.data(),
                                 .epsilon = kEpsilon,
                                 .normed = normed_.data()});
  }
  const Device& device() const { return members_.device(rank_); }
  const PeerView& view() const { return members_.view(rank_); }
  std::vector<Bf16> x() const { return x_.to_host(device()); }
  std::vector<Bf16> normed(int64_t rows) const {
    std::vector<Bf16> all = normed_.to_host(device());
    all.resize(static_cast<size_t>(rows * problem_.outputs));
    return all;
  }
  size_t nodes() const { return own_nodes().size(); }

 private:
  int segment(int rank) const { return kSegments * rank / members_.ranks(); }
  std::vector<TreeNode> own_nodes() const { return {nodes_.begin() + first_[rank_], nodes_.begin() + first_[rank_ + 1]}; }
  void linear(int64_t rows, int variant, const RowTargets& targets) const {
    linear_row(device(), {.rows = rows,
                          .x = rows_[variant].data(),
                          .x_stride = width_,
                          .weights = &weights_,
                          .segments = problem_.segments,
                          .first = segment(rank_),
                          .last = segment(rank_ + 1),
                          .nodes = own_nodes(),
                          .partials = partials_.data(),
                          .targets = targets});
  }
  PeerMerge merge(int64_t rows) const {
    PeerMerge m{.outputs = problem_.outputs,
                .end = rows * problem_.outputs,
                .nodes = nodes_,
                .partials = partials_.data(),
                .stride = rows * problem_.outputs,
                .bias = bias_.data()};
    std::copy(first_.begin(), first_.end(), m.first.begin());
    return m;
  }
  PeerNorm norm() const { return {x_.data(), norm_weight_.data(), kEpsilon, normed_.data()}; }

  const Members& members_;
  const Problem& problem_;
  int rank_;
  std::vector<TreeNode> nodes_;  // of all members
  std::vector<int> first_;
  int64_t width_ = 0;
  PackedWeights weights_;
  std::vector<DeviceArray<Bf16>> rows_;
  DeviceArray<Bf16> bias_, x_, norm_weight_, normed_, y_;
  DeviceArray<float> partials_;
};

// What the rows are after operations on them, on the CPU.
class Wanted {
 public:
  explicit Wanted(const Problem& p) : problem_(p), x_(p.x), normed_(p.x.size()) {
    for (int v = 0; v < p.variants; ++v) y_.push_back(on_cpu(p, v));
  }
  void add(int64_t rows, int variant) {
    const Device cpu(DeviceOptions{});
    residual_rms_norm(cpu, {.rows = rows,
                            .width = problem_.outputs,
                            .x = x_.data(),
                            .y = y_[variant].data(),
                            .weight = problem_.norm_weight.data(),
                            .epsilon = kEpsilon,
                            .normed = normed_.data()});
  }
  const std::vector<Bf16>& x() const { return x_; }
  const std::vector<Bf16>& y(int variant) const { return y_[variant]; }
  std::vector<Bf16> normed(int64_t rows) const { return {normed_.begin(), normed_.begin() + rows * problem_.outputs}; }

 private:
  const Problem& problem_;
  std::vector<std::vector<Bf16>> y_;
  std::vector<Bf16> x_, normed_;
};

std::vector<Share> shares_of(const Members& members, const Problem& p) {
  std::vector<Share> shares;
  shares.reserve(static_cast<size_t>(members.ranks()));
  for (int r = 0; r < members.ranks(); ++r) shares.emplace_back(members, p, r);
  return shares;
}

class PeerArrivals : public CudaTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(kLoadedAtOnce);
    CudaTest::SetUp();
  }
};

TEST_F(PeerArrivals, GiveTheCpusBits) {
  struct Shape {
    int64_t outputs, inputs;
    Kind kind;
  };
  for (const Shape& shape :
       {Shape{512, 1024, Kind::kSpread}, Shape{1032, 512, Kind::kSpread}, Shape{4096, 512, Kind::kSpread},
        // Segments of two lengths.
        Shape{264, 576, Kind::kSpread}, Shape{264, 576, Kind::kNonFinite}, Shape{264, 576, Kind::kSubnormal}}) {
    const Problem p(shape.outputs, shape.inputs, shape.kind);
    const Wanted first(p);
    for (const int ranks : {2, 3, 4, 5}) {
      const Members members(ranks, shape.outputs);
      const std::vector<Share> shares = shares_of(members, p);
      Wanted wanted = first;
      int variant = 0;
      for (const int64_t rows : {1, 7, 16, 17, 64}) {
        variant = (variant + 1) % p.variants;
        for (const Share& s : shares) ASSERT_TRUE(s.sends(rows)) << rows << " rows";
        for (const Share& s : shares) s.send(rows, variant), s.add(rows);
        wanted.add(rows, variant);
        members.synchronize();
        for (int r = 0; r < ranks; ++r) {
          ASSERT_EQ(members.record(r).state, PeerRecord::kWaiting);
          ASSERT_TRUE(test_rows::same_bits(shares[r].x(), wanted.x()))
              << "x of member " << r << " of " << ranks << ", " << shares[r].nodes() << " nodes, " << rows << " x "
              << shape.outputs << " of " << shape.inputs << ", kind " << static_cast<int>(shape.kind);
          ASSERT_TRUE(test_rows::same_bits(shares[r].normed(rows), wanted.normed(rows))) << "norm of member " << r;
        }
      }
      for (int r = 0; r < ranks; ++r) EXPECT_EQ(members.left_over(r), 0);
    }
  }
}

// Nothing but the device holds the members together, who are late by turns; now and then an operation goes the other way, or is
// only a meeting, so that areas change places in every order.
TEST_F(PeerArrivals, ManyOperationsWithoutTheHost) {
  constexpr int kOperations = 200, kInFlight = 40;
  constexpr int64_t kRows[] = {1, 16, 64, 7};
  const Problem p(512, 1024, Kind::kSpread);
  const Wanted first(p);
  for (const int ranks : {2, 3, 4})
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const Members members(ranks, p.outputs);
      const std::vector<Share> shares = shares_of(members, p);
      Wanted wanted = first;
      test_rows::Random random{seed * 1000};
      int64_t rows = 0;
      for (int i = 0; i < kOperations; ++i) {
        rows = seed == 0 ? kRows[i % 4] : kRows[random.next() % 4];
        const int variant = i % p.variants, late = static_cast<int>(random.next()) & 15;
        const uint32_t what = seed == 0 ? 15 : random.next() % 16;
        for (int r = 0; r < ranks; ++r) {
          const Share& s = shares[r];
          if (late == r)
            for (uint32_t n = random.next() % 8; n-- > 0;) s.idle(kMostRows);
          if (late == r + 8)
            for (int n = 0; n < 30; ++n) s.idle(kMostRows);
          if (what == 0) cuda::peer_greeting(s.device(), s.view());
          if (what == 1)
            s.send_and_add_the_other_way(rows, variant);
          else
            s.send(rows, variant), s.add(rows);
        }
        wanted.add(rows, variant);
        if (i % kInFlight == 0) members.synchronize();  // all queues are long, none is full: the host waits for a place in one
      }
      members.synchronize();
      for (int r = 0; r < ranks; ++r) {
        const PeerRecord& record = members.record(r);
        ASSERT_EQ(record.state, PeerRecord::kWaiting)
            << "member " << r << " of " << ranks << ", seed " << seed << ", waited for " << record.peer << " in operation "
            << record.operation << ", phase " << record.phase;
        EXPECT_TRUE(test_rows::same_bits(shares[r].x(), wanted.x())) << "member " << r << " of " << ranks << ", seed " << seed;
        EXPECT_TRUE(test_rows::same_bits(shares[r].normed(rows), wanted.normed(rows))) << "member " << r << " of " << ranks;
        EXPECT_EQ(members.left_over(r), 0);
      }
    }
}

// Recorded once, run many times: the areas' turns are the device's own.
TEST_F(PeerArrivals, RecordedWork) {
  constexpr int kRuns = 40;
  const Problem p(1024, 512, Kind::kSpread);
  Wanted wanted(p);
  const Members members(2, p.outputs);
  const std::vector<Share> shares = shares_of(members, p);
  std::vector<RecordedWork> work;
  for (const Share& s : shares) s.idle(7), s.idle(64);
  members.synchronize();
  for (const Share& s : shares)
    work.push_back(s.device().record([&] {
      s.send(64, 0), s.add(64);
      s.send(7, 1), s.add(7);
      if (s.view().rank == 1) s.idle(64);
      s.send(7, 2), s.add(7);
    }));
  for (int i = 0; i < kRuns; ++i) {
    for (const Share& s : shares) s.device().run(work[static_cast<size_t>(s.view().rank)]);
    wanted.add(64, 0), wanted.add(7, 1), wanted.add(7, 2);
  }
  members.synchronize();
  for (const Share& s : shares) {
    EXPECT_TRUE(test_rows::same_bits(s.x(), wanted.x())) << "member " << s.view().rank;
    EXPECT_TRUE(test_rows::same_bits(s.normed(7), wanted.normed(7))) << "member " << s.view().rank;
  }
}

// The twins that must fail: other additions, and a value of another operation.
TEST_F(PeerArrivals, OtherValues_Differ) {
  const Problem p(512, 1024, Kind::kCancelling);
  Wanted wanted(p);
  EXPECT_FALSE(test_rows::same_bits(on_cpu(p, 1, ControlArm::kSwappedGroups), wanted.y(1)));
  const Members members(2, p.outputs);
  const std::vector<Share> shares = shares_of(members, p);
  for (const Share& s : shares) s.send(16, s.view().rank == 1 ? 2 : 1), s.add(16);
  wanted.add(16, 1);
  members.synchronize();
  EXPECT_FALSE(test_rows::same_bits(shares[0].x(), wanted.x()));
  EXPECT_FALSE(test_rows::same_bits(shares[1].x(), wanted.x()));
}

TEST_F(PeerArrivals, AbsentMember_IsNamedWithinTheDeadline) {
  const Problem p(512, 1024, Kind::kSpread);
  const Members members(3, p.outputs, std::chrono::milliseconds(300));
  const std::vector<Share> shares = shares_of(members, p);
  for (const Share& s : shares) s.send(7, 0), s.add(7);
  members.synchronize();
  for (const Share& s : shares)
    if (s.view().rank != 2) s.send(7, 1), s.add(7);
  members.synchronize();
  for (int r = 0; r < 2; ++r) {
    const PeerRecord& record = members.record(r);
    EXPECT_EQ(record.state, PeerRecord::kExpired);
    EXPECT_EQ(record.peer, 2);
    EXPECT_EQ(record.operation, 2u);
    EXPECT_EQ(record.phase, static_cast<uint32_t>(PeerPhase::kArrivals));
    EXPECT_GE(record.waited_ns, 300'000'000u);
  }
  EXPECT_EQ(members.record(2).state, PeerRecord::kWaiting);
}

// Shares that go the other way: more rows, leaves that begin anywhere, and a member without a share.
TEST_F(PeerArrivals, OtherShares_AreRefused) {
  const auto tc = open(Profile::kTc), portable = open(Profile::kPortable),
             swapped = open(Profile::kTc, ControlArm::kSwappedGroups);
  const RowSegments even = RowSegments::cut(1024, 64), odd = RowSegments::cut(1024 - 32, 8);
  const auto sends = [](const Device& d, int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last) {
    return row_sends(d, rows, outputs, segments, first, last, maximal_subtrees(segments, first, last));
  };
  EXPECT_TRUE(sends(*tc, 64, 512, even, 0, 4));
  EXPECT_FALSE(sends(*tc, 65, 512, even, 0, 4));
  EXPECT_FALSE(sends(*tc, 64, 516, even, 0, 4));
  EXPECT_FALSE(sends(*tc, 64, 512, odd, 0, 4));
  EXPECT_FALSE(sends(*tc, 64, 512, even, 4, 4));
  EXPECT_FALSE(sends(*portable, 64, 512, even, 0, 4));
  EXPECT_FALSE(sends(*swapped, 64, 512, even, 0, 4));
}

}  // namespace
}  // namespace invar
