// The tree all-reduce over peer memory against the same on host threads, bit for bit: ranks are threads with a GPU each where
// there are enough, and all on one GPU anyway.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/norm/residual_norm.h"
#include "parallel/grid/grid.h"
#include "parallel/reduce/tree_all_reduce.h"
#include "parallel/transport/gpu_ranks.h"

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;
using test_rows::Kind;

struct Shape {
  int64_t rows, outputs, k, unit;
};
struct Case {
  Shape shape;
  Kind kind;
  bool biased;
  ControlArm arm = ControlArm::kNone;
};

// What each rank ships, from values of the 8 segments that all ranks know.
struct Inputs {
  RowSegments segments;
  std::vector<std::vector<float>> partials;  // by rank
  std::vector<Bf16> bias, x, weight;
};

Inputs inputs_of(const Case& c, int tp) {
  Inputs in{.segments = RowSegments::cut(c.shape.k, c.shape.unit)};
  const int64_t count = c.shape.rows * c.shape.outputs;
  std::vector<std::vector<float>> leaves;
  for (int s = 0; s < numerics::kSegments; ++s) leaves.push_back(test_rows::float_data(count, c.kind, 40 + s));
  for (int rank = 0; rank < tp; ++rank) {
    const Range own = segments_of(tp, rank);
    std::vector<float>& mine = in.partials.emplace_back();
    for (const numerics::TreeNode node :
         shipped_nodes(c.arm, in.segments, static_cast<int>(own.begin), static_cast<int>(own.end))) {
      std::vector<numerics::TreeNode> below;
      std::vector<const float*> from;
      for (int s = node.index << node.level; s < (node.index + 1) << node.level; ++s)
        if (!in.segments.empty(s, s + 1)) below.push_back({0, s}), from.push_back(leaves[s].data());
      std::vector<float> value(count);
      TreeMerge(below, node).apply(from.data(), count, value.data());
      mine.insert(mine.end(), value.begin(), value.end());
    }
  }
  if (c.biased) in.bias = test_rows::bf16_data(c.shape.outputs, Kind::kSpread, 3);
  in.x = test_rows::bf16_data(count, Kind::kSpread, 4);
  in.weight = test_rows::bf16_data(c.shape.outputs, Kind::kOrdinary, 5);
  return in;
}

struct Outputs {
  std::vector<Bf16> y, x, normed;
};

Outputs run_rank(const Device& device, TreeAllReduce& reduce, const Case& c, const Inputs& in, int rank) {
  const int64_t count = c.shape.rows * c.shape.outputs;
  const DeviceArray<float> partials(device, in.partials[rank]);
  const DeviceArray<Bf16> bias(device, in.bias), x(device, in.x), weight(device, in.weight), y(device, count),
      scratch(device, count), normed(device, count);
  const RowReduction problem{.rows = c.shape.rows,
                             .outputs = c.shape.outputs,
                             .segments = in.segments,
                             .partials = partials.data(),
                             .bias = c.biased ? bias.data() : nullptr,
                             .y = y.data()};
  reduce.run(problem);
  RowReduction scratched = problem;
  scratched.y = scratch.data();
  reduce.run(scratched, {.x = x.data(), .weight = weight.data(), .epsilon = 1e-6f, .normed = normed.data()});
  return {y.to_host(device), x.to_host(device), normed.to_host(device)};
}

// The same on the CPU, over the threads' transport.
Outputs on_host(const Case& c, const Inputs& in, int tp) {
  auto transports = start_threads(tp);
  std::vector<int> members;
  for (int r = 0; r < tp; ++r) members.push_back(r);
  Outputs first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < tp; ++rank)
    threads.emplace_back([&, rank] {
      const Device device({.control_arm = c.arm});
      TreeAllReduce reduce(device, Group(*transports[rank], members));
      Outputs out = run_rank(device, reduce, c, in, rank);
      if (rank == 0) first = std::move(out);
    });
  for (std::thread& t : threads) t.join();
  return first;
}

// `options` are the windows'.
void with_ranks(int tp, int gpus, const TransportOptions& options, ControlArm arm, const PeerSizes& sizes,
                const std::function<void(const Device&, Transport&, PeerMemory&)>& body) {
  std::vector<int> members;
  for (int r = 0; r < tp; ++r) members.push_back(r);
  with_gpu_ranks(tp, gpus, {.profile = Profile::kTc, .control_arm = arm}, [&](const Device& device, Transport& transport) {
    auto peer = PeerMemory::open(transport, device, members, sizes, options);
    if (!peer.ok()) throw std::runtime_error(std::string(peer.status().message()));
    body(device, transport, **peer);
  });
}

constexpr PeerSizes kSmall{.values = 256 << 10, .results = 128 << 10};  // so that larger problems come in several parts

const Shape kShapes[] = {
    {1, 4096, 4096, 64},   // a decode step
    {7, 520, 512, 64},     // width of no whole sweep
    {64, 1024, 512, 64},   //
    {3, 63, 64, 8},        // nothing is aligned
    {65, 130, 48, 16},     // most segments are empty, so are whole ranks
    {100, 2048, 512, 64},  // several parts
    {1, 9216, 512, 64},    // too wide for one launch
};

class PeerAllReduce : public RanksOnGpus {};
INSTANTIATE_TEST_SUITE_P(RanksOnGpus, PeerAllReduce,
                         testing::Values(std::pair(2, 1), std::pair(3, 1), std::pair(4, 1), std::pair(8, 1), std::pair(2, 2),
                                         std::pair(4, 4), std::pair(8, 8)),
                         ranks_on_gpus);

TEST_P(PeerAllReduce, GivesTheHostsBits) {
  const auto [tp, gpus] = GetParam();
  std::vector<Case> cases;
  for (const Shape& shape : kShapes) {
    for (const Kind kind : {Kind::kSpread, Kind::kNonFinite, Kind::kSubnormal})
      cases.push_back({shape, kind, kind == Kind::kSpread});
    cases.push_back({shape, Kind::kCancelling, false});
  }
  std::vector<Inputs> inputs;
  std::vector<Outputs> wanted;
  for (const Case& c : cases) {
    inputs.push_back(inputs_of(c, tp));
    wanted.push_back(on_host(c, inputs.back(), tp));
  }
  with_ranks(tp, gpus, {}, ControlArm::kNone, kSmall, [&](const Device& device, Transport& transport, PeerMemory& peer) {
    std::vector<int> members;
    for (int r = 0; r < tp; ++r) members.push_back(r);
    for (const auto algorithm : {ReduceAlgorithm::kGather, ReduceAlgorithm::kScatter, ReduceAlgorithm::kAuto}) {
      TreeAllReduce reduce(device, Group(transport, members), algorithm, &peer);
      for (size_t i = 0; i < cases.size(); ++i) {
        const Outputs got = run_rank(device, reduce, cases[i], inputs[i], transport.rank());
        const auto same = [&](const std::vector<Bf16>& a, const std::vector<Bf16>& b, const char* what) {
          size_t different = 0, first = 0;
          for (size_t e = a.size(); e-- > 0;)
            if (a[e].bits != b[e].bits) ++different, first = e;
          EXPECT_EQ(different, 0u) << what << " of rank " << transport.rank() << " of " << tp << ", algorithm "
                                   << static_cast<int>(algorithm) << ", " << cases[i].shape.rows << " x "
                                   << cases[i].shape.outputs << ", k " << cases[i].shape.k << ", kind "
                                   << static_cast<int>(cases[i].kind) << ": first at " << first << ": " << std::hex
                                   << a[first].bits << " instead of " << b[first].bits;
        };
        same(got.y, wanted[i].y, "y");
        same(got.x, wanted[i].x, "x");
        same(got.normed, wanted[i].normed, "norm");
      }
    }
  });
}

// The twin that must fail: each rank's sum from left to right, then the ranks' in their order.
TEST_P(PeerAllReduce, RankOrder_DiffersFromTheTree) {
  const auto [tp, gpus] = GetParam();
  const Case tree{{7, 520, 512, 64}, Kind::kCancelling, false},
      fold{tree.shape, tree.kind, false, ControlArm::kRankOrderAllReduce};
  const Inputs inputs = inputs_of(fold, tp);
  const std::vector<Bf16> of_tree = on_host(tree, inputs_of(tree, tp), tp).y, wanted = on_host(fold, inputs, tp).y;
  with_ranks(tp, gpus, {}, fold.arm, kSmall, [&](const Device& device, Transport& transport, PeerMemory& peer) {
    std::vector<int> members;
    for (int r = 0; r < tp; ++r) members.push_back(r);
    TreeAllReduce reduce(device, Group(transport, members), ReduceAlgorithm::kAuto, &peer);
    EXPECT_EQ(reduce.targets({.rows = 7, .outputs = 520, .segments = inputs.segments}).count, 0);
    const std::vector<Bf16> got = run_rank(device, reduce, fold, inputs, transport.rank()).y;
    EXPECT_TRUE(test_rows::same_bits(got, wanted));
    EXPECT_FALSE(test_rows::same_bits(got, of_tree));
  });
}

// Recorded once, run many times without the host between: the number of the operation is the device's own.
TEST_P(PeerAllReduce, RecordedWork_GivesTheSameBits) {
  const auto [tp, gpus] = GetParam();
  if (gpus < tp) GTEST_SKIP() << "ranks that share a GPU meet on the host before each operation";
  const Case c{{5, 4096, 4096, 64}, Kind::kSpread, true};
  const Inputs inputs = inputs_of(c, tp);
  Case later = c;
  later.kind = Kind::kCancelling;
  const Inputs other = inputs_of(later, tp);
  const std::vector<Bf16> first = on_host(c, inputs, tp).y, second = on_host(later, other, tp).y;
  with_ranks(tp, gpus, {}, ControlArm::kNone, kSmall, [&](const Device& device, Transport& transport, PeerMemory& peer) {
    std::vector<int> members;
    for (int r = 0; r < tp; ++r) members.push_back(r);
    const int rank = transport.rank();
    const DeviceArray<float> partials(device, inputs.partials[rank]);
    const DeviceArray<Bf16> bias(device, inputs.bias), y(device, c.shape.rows * c.shape.outputs);
    TreeAllReduce gather(device, Group(transport, members), ReduceAlgorithm::kGather, &peer);
    TreeAllReduce scatter(device, Group(transport, members), ReduceAlgorithm::kScatter, &peer);
    const RowReduction problem{.rows = c.shape.rows,
                               .outputs = c.shape.outputs,
                               .segments = inputs.segments,
                               .partials = partials.data(),
                               .bias = bias.data(),
                               .y = y.data()};
    const auto work = [&] {
      for (int i = 0; i < 3; ++i) gather.run(problem), scatter.run(problem);
    };
    work();
    const RecordedWork recorded = device.record(work);
    for (int i = 0; i < 20; ++i) device.run(recorded);
    EXPECT_TRUE(test_rows::same_bits(y.to_host(device), first));
    device.upload(partials.data(), other.partials[rank].data(), other.partials[rank].size() * sizeof(float));
    device.run(recorded);
    EXPECT_TRUE(test_rows::same_bits(y.to_host(device), second));
  });
}

constexpr int64_t kOutputsThatLeave = 1024;
struct LeavingRows {
  std::vector<int64_t> rows;  // of steps, in turn
  PeerSizes sizes;
  ReduceAlgorithm algorithm;
  bool dealt;
  int steps;
};
// A linear that writes where ranks add, against the same linear's values in its rank's own memory: many steps, in which the ranks
// are late by turns, queued one by one and recorded. Few rows are sent to all, many dealt to those who merge them.
void compare_leaving(int tp, int gpus, const LeavingRows& c) {
  constexpr int64_t kOutputs = kOutputsThatLeave, kInputs = 2048;
  const int64_t most = *std::max_element(c.rows.begin(), c.rows.end());
  const RowSegments segments = RowSegments::cut(kInputs, 64);
  with_ranks(tp, gpus, {}, ControlArm::kNone, c.sizes, [&](const Device& device, Transport& transport, PeerMemory& peer) {
    std::vector<int> members;
    for (int r = 0; r < tp; ++r) members.push_back(r);
    const int rank = transport.rank();
    const Range own = segments_of(tp, rank);
    const int first = static_cast<int>(own.begin), last = static_cast<int>(own.end);
    const int64_t width = segments.begin[last] - segments.begin[first];
    const auto seed = static_cast<uint64_t>(rank);
    PackedWeights weights(device, kOutputs, width);
    weights.pack_rows(0, test_rows::bf16_data(kOutputs * width, Kind::kSpread, 100 + seed).data(), kOutputs, width);
    std::vector<DeviceArray<Bf16>> inputs;
    for (uint64_t v = 0; v < 3; ++v)
      inputs.emplace_back(device, test_rows::bf16_data(most * width, Kind::kSpread, 200 + 10 * v + seed));
    const std::vector<Bf16> begin = test_rows::bf16_data(most * kOutputs, Kind::kOrdinary, 300);
    const DeviceArray<Bf16> bias(device, test_rows::bf16_data(kOutputs, Kind::kSpread, 301)),
        weight(device, test_rows::bf16_data(kOutputs, Kind::kOrdinary, 302)), y(device, most * kOutputs);
    const DeviceArray<float> partials(device, numerics::kSegments * most * kOutputs), idle(device, partials.size());
    struct Stream {
      DeviceArray<Bf16> x, normed;
    };
    const Stream sent{{device, begin}, {device, most * kOutputs}}, kept{{device, begin}, {device, most * kOutputs}};
    TreeAllReduce reduce(device, Group(transport, members), c.algorithm, &peer);
    const auto step = [&](int i, bool sends, const Stream& s) {
      const int64_t rows = c.rows[static_cast<size_t>(i) % c.rows.size()];
      RowReduction sum{.rows = rows,
                       .outputs = kOutputs,
                       .segments = segments,
                       .partials = partials.data(),
                       .bias = bias.data(),
                       .y = y.data()};
      RowLinear linear{.rows = rows,
                       .x = inputs[static_cast<size_t>(i) % inputs.size()].data(),
                       .x_stride = width,
                       .weights = &weights,
                       .segments = segments,
                       .first = first,
                       .last = last,
                       .nodes = shipped_nodes(ControlArm::kNone, segments, first, last),
                       .partials = idle.data()};
      // How much shared memory a kernel may have is said for all that launch it on a GPU, right before a launch:
      // uneven ranks that share one would take each other's away.
      static std::mutex launching;
      std::unique_lock turn(launching, std::defer_lock);
      if (gpus < tp) turn.lock();
      for (int late = 0; i % 3 == rank % 3 && late < i % 7; ++late) linear_row(device, linear);
      linear.partials = partials.data();
      if (sends && c.dealt) {
        linear.owners = reduce.owners(sum);
        ASSERT_EQ(linear.owners.count, tp) << rows << " rows";
        sum.values = RowValues::kDealt;
      } else if (sends) {
        linear.targets = reduce.targets(sum);
        ASSERT_EQ(linear.targets.count, tp) << rows << " rows";
        sum.values = RowValues::kSent;
      }
      linear_row(device, linear);
      if (gpus < tp) turn.unlock();
      reduce.run(sum, {.x = s.x.data(), .weight = weight.data(), .epsilon = 1e-6f, .normed = s.normed.data()});
    };
    const auto same = [&](const char* when) {
      EXPECT_TRUE(test_rows::same_bits(sent.x.to_host(device), kept.x.to_host(device))) << when << ", rank " << rank;
      EXPECT_TRUE(test_rows::same_bits(sent.normed.to_host(device), kept.normed.to_host(device))) << when << ", rank " << rank;
      EXPECT_FALSE(test_rows::same_bits(sent.x.to_host(device), begin));
    };
    const int steps = gpus < tp ? 15 : c.steps;  // on a shared GPU the host is between any two
    for (int i = 0; i < steps; ++i) step(i, true, sent);
    for (int i = 0; i < steps; ++i) step(i, false, kept);
    same("one by one");
    if (!peer.recordable()) return;
    const auto work = [&](bool sends, const Stream& s) {
      return device.record([&] {
        for (int i = 0; i < 15; ++i) step(i, sends || i % 5 == 4, s);
      });
    };
    const RecordedWork sending = work(true, sent), keeping = work(false, kept);
    for (int i = 0; i < 40; ++i) device.run(sending);
    for (int i = 0; i < 40; ++i) device.run(keeping);
    same("recorded");
  });
}

TEST_P(PeerAllReduce, LinearsThatSend_GiveTheSameBits) {
  const auto [tp, gpus] = GetParam();
  compare_leaving(tp, gpus,
                  {.rows = {1, 64, 7, 16, 33},
                   .sizes = {.arrivals = 64 * kOutputsThatLeave * 4 * numerics::kSegments},
                   .algorithm = ReduceAlgorithm::kAuto,
                   .dealt = false,
                   .steps = 200});
}

// Whole and begun blocks of rows, owners without any.
TEST_P(PeerAllReduce, LinearsThatDeal_GiveTheSameBits) {
  const auto [tp, gpus] = GetParam();
  if (tp & (tp - 1)) GTEST_SKIP() << "shares of several nodes are not dealt";
  compare_leaving(tp, gpus,
                  {.rows = {1030, 65, 128, 700, 512},
                   .sizes = {.values = 8 << 20, .results = 4 << 20},
                   .algorithm = ReduceAlgorithm::kScatter,
                   .dealt = true,
                   .steps = 60});
}

// Rank 1 goes away before the operation that rank 0 begins. On a shared GPU it still meets the others on the host.
TEST_P(PeerAllReduce, AbsentPeer_IsNamedWithinTheDeadline) {
  const auto [tp, gpus] = GetParam();
  const Case c{{2, 512, 512, 64}, Kind::kSpread, false};
  const Inputs inputs = inputs_of(c, tp);
  const TransportOptions options{.timeout = 700ms};
  for (const auto algorithm : {ReduceAlgorithm::kGather, ReduceAlgorithm::kScatter})
    with_ranks(tp, gpus, options, ControlArm::kNone, kSmall, [&](const Device& device, Transport& transport, PeerMemory& peer) {
      std::vector<int> members;
      for (int r = 0; r < tp; ++r) members.push_back(r);
      Group meeting(transport, members, kMaxTag - 1);
      const int rank = transport.rank();
      const DeviceArray<float> partials(device, inputs.partials[rank]);
      const DeviceArray<Bf16> y(device, c.shape.rows * c.shape.outputs);
      TreeAllReduce reduce(device, Group(transport, members), algorithm, &peer);
      const RowReduction problem{.rows = c.shape.rows,
                                 .outputs = c.shape.outputs,
                                 .segments = inputs.segments,
                                 .partials = partials.data(),
                                 .y = y.data()};
      reduce.run(problem);
      device.synchronize();
      if (rank == 1) {
        if (!peer.recordable()) meeting.barrier();
      } else {
        const auto begin = std::chrono::steady_clock::now();
        try {
          reduce.run(problem);
          device.synchronize();
          ADD_FAILURE() << "rank " << rank << " ended without rank 1";
        } catch (const PeerFailure& failure) {
          EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
          EXPECT_GE(failure.facts().waited_seconds, 0.7);
          EXPECT_EQ(failure.facts().cause, PeerFailure::Cause::kTimeout);
          EXPECT_EQ(failure.facts().rank, rank);
          EXPECT_EQ(failure.facts().peer, 1);
          EXPECT_EQ(failure.facts().collective, 3u);  // the first meeting, the one that went well, this one
          EXPECT_EQ(failure.facts().phase.find("tree all-reduce ("), 0u) << failure.facts().phase;
        }
      }
      Group(transport, members, 7).barrier();  // nobody's window goes while others may still write there
    });
}

// The same where linears deal: the values that count are in the windows, whoever put them there.
TEST_P(PeerAllReduce, AbsentDealer_IsNamedWithinTheDeadline) {
  const auto [tp, gpus] = GetParam();
  if (tp != 2) GTEST_SKIP() << "of more ranks one may wait for another that waits for the absent one";
  constexpr int64_t kRows = 256, kOutputs = 512;
  const PeerSizes sizes{.values = 1 << 20, .results = 1 << 20};
  with_ranks(tp, gpus, {.timeout = 700ms}, ControlArm::kNone, sizes,
             [&](const Device& device, Transport& transport, PeerMemory& peer) {
               const int rank = transport.rank();
               const DeviceArray<float> partials(device, kRows * kOutputs);
               const DeviceArray<Bf16> x(device, std::vector<Bf16>(kRows * kOutputs)),
                   weight(device, std::vector<Bf16>(kOutputs)), normed(device, kRows * kOutputs);
               TreeAllReduce reduce(device, Group(transport, {0, 1}), ReduceAlgorithm::kScatter, &peer);
               const RowReduction problem{.rows = kRows,
                                          .outputs = kOutputs,
                                          .segments = RowSegments::cut(512, 64),
                                          .partials = partials.data(),
                                          .values = RowValues::kDealt};
               ASSERT_EQ(reduce.owners(problem).count, 2);
               const auto run = [&] {
                 reduce.run(problem, {.x = x.data(), .weight = weight.data(), .epsilon = 1e-6f, .normed = normed.data()});
                 device.synchronize();
               };
               run();
               if (rank == 1) {
                 if (!peer.recordable()) Group(transport, {0, 1}, kMaxTag - 1).barrier();
               } else {
                 try {
                   run();
                   ADD_FAILURE() << "rank 0 ended without rank 1";
                 } catch (const PeerFailure& failure) {
                   EXPECT_EQ(failure.facts().cause, PeerFailure::Cause::kTimeout);
                   EXPECT_GE(failure.facts().waited_seconds, 0.7);
                   EXPECT_EQ(failure.facts().peer, 1);
                   EXPECT_EQ(failure.facts().collective, 3u);
                   EXPECT_EQ(failure.facts().phase.find("tree all-reduce ("), 0u) << failure.facts().phase;
                 }
               }
               Group(transport, {0, 1}, 7).barrier();
             });
}

TEST_P(PeerAllReduce, Interrupt_EndsTheDevicesWait) {
  const auto [tp, gpus] = GetParam();
  if (gpus < tp) GTEST_SKIP() << "ranks that share a GPU wait on the host first";
  const Case c{{2, 512, 512, 64}, Kind::kSpread, false};
  const Inputs inputs = inputs_of(c, tp);
  auto transports = start_threads(tp);
  std::vector<int> members;
  for (int r = 0; r < tp; ++r) members.push_back(r);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < tp; ++rank)
    threads.emplace_back([&, rank] {
      auto device = Device::open({.backend = Backend::kCuda, .cuda_device = rank % gpus});
      ASSERT_TRUE(device.ok());
      auto peer = PeerMemory::open(*transports[rank], **device, members, kSmall);
      ASSERT_TRUE(peer.ok()) << std::string(peer.status().message());
      if (rank == 1) {
        std::this_thread::sleep_for(200ms);
        transports[rank]->abort(1);
        std::this_thread::sleep_for(500ms);  // the others may still write into this window
        return;
      }
      const DeviceArray<float> partials(**device, inputs.partials[rank]);
      const DeviceArray<Bf16> y(**device, c.shape.rows * c.shape.outputs);
      TreeAllReduce reduce(**device, Group(*transports[rank], members), ReduceAlgorithm::kAuto, peer->get());
      const auto begin = std::chrono::steady_clock::now();
      try {
        reduce.run({.rows = c.shape.rows,
                    .outputs = c.shape.outputs,
                    .segments = inputs.segments,
                    .partials = partials.data(),
                    .y = y.data()});
        (*device)->synchronize();
        ADD_FAILURE() << "rank " << rank << " ended without rank 1";
      } catch (const PeerFailure& failure) {
        EXPECT_EQ(failure.facts().cause, PeerFailure::Cause::kInterrupted);
      }
      peer->reset();  // frees what the wait's kernel may be using: it must have ended
      EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace invar::parallel
