#include "parallel/transport/group.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <numeric>
#include <thread>

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;

// Runs f on the members of a group that is every second rank of a larger world, in descending order, over delayed transports.
void on_group(int size, const std::function<void(Group&)>& f) {
  auto transports = start_threads(2 * size);
  std::vector<int> members;
  for (int i = size - 1; i >= 0; --i) members.push_back(2 * i + 1);
  std::vector<std::thread> threads;
  for (int rank : members) {
    transports[rank] = delayed(std::move(transports[rank]), {.seed = 11, .most = 200us});
    threads.emplace_back([&, rank] {
      Group group(*transports[rank], members, 4);
      ASSERT_EQ(group.member(group.index()), rank);
      f(group);
    });
  }
  for (std::thread& t : threads) t.join();
}

std::vector<int> numbers(int count, int first) {
  std::vector<int> v(count);
  std::iota(v.begin(), v.end(), first);
  return v;
}

class GroupOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, GroupOf, testing::Values(1, 2, 3, 4, 5, 8));

TEST_P(GroupOf, AllGather) {
  on_group(GetParam(), [](Group& g) {
    const auto mine = numbers(5, g.index() * 5);
    std::vector<int> all(5 * g.size());
    g.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
    EXPECT_EQ(all, numbers(5 * g.size(), 0));
  });
}

TEST_P(GroupOf, OneObjectionIsEverybodys) {
  on_group(GetParam(), [](Group& g) {
    EXPECT_TRUE(g.agree(absl::OkStatus()).ok());
    const int objects = g.size() / 2;  // and all behind it
    const absl::Status all = g.agree(g.index() < objects ? absl::OkStatus() : absl::InternalError(std::string(600, 'x')));
    EXPECT_EQ(all.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(std::string(all.message()), std::string(511, 'x') + " (rank " + std::to_string(g.member(objects)) + ")");
    EXPECT_FALSE(g.agree(absl::InternalError("")).ok());
  });
}

TEST_P(GroupOf, AllGatherInPlaceOfUnequalPieces) {
  on_group(GetParam(), [](Group& g) {
    // Member i has i numbers; the first has none.
    std::vector<int> all(g.size() * (g.size() - 1) / 2, -1);
    std::vector<std::span<std::byte>> pieces;
    for (int i = 0, at = 0; i < g.size(); at += i, ++i) pieces.push_back(std::as_writable_bytes(std::span(all).subspan(at, i)));
    const int begin = g.index() * (g.index() - 1) / 2;
    for (int i = 0; i < g.index(); ++i) all[begin + i] = begin + i;
    g.all_gather_v(pieces[g.index()], pieces);
    EXPECT_EQ(all, numbers(static_cast<int>(all.size()), 0));
  });
}

TEST_P(GroupOf, AllToAll) {
  on_group(GetParam(), [](Group& g) {
    // From i to j: i + 2 j numbers (none from the first to itself).
    std::vector<std::vector<int>> out(g.size()), in(g.size());
    std::vector<std::span<const std::byte>> to;
    std::vector<std::span<std::byte>> from;
    for (int j = 0; j < g.size(); ++j) {
      out[j] = numbers(g.index() + 2 * j, 1000 * g.index() + j);
      in[j].resize(j + 2 * g.index());
      to.push_back(std::as_bytes(std::span(out[j])));
      from.push_back(std::as_writable_bytes(std::span(in[j])));
    }
    g.all_to_all_v(to, from);
    for (int j = 0; j < g.size(); ++j) EXPECT_EQ(in[j], numbers(j + 2 * g.index(), 1000 * j + g.index()));
  });
}

TEST_P(GroupOf, BroadcastAndGatherFromEveryRoot) {
  on_group(GetParam(), [](Group& g) {
    for (int root = 0; root < g.size(); ++root) {
      std::vector<int> data = numbers(6000, g.index() == root ? root : -7);
      g.broadcast(std::as_writable_bytes(std::span(data)), root);
      EXPECT_EQ(data, numbers(6000, root));

      const auto mine = numbers(3, g.index() * 3);
      std::vector<int> all(g.index() == root ? 3 * g.size() : 0);
      g.gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), root);
      if (g.index() == root) {
        EXPECT_EQ(all, numbers(3 * g.size(), 0));
      }
    }
    EXPECT_EQ(g.collectives(), 2u * g.size());
  });
}

TEST_P(GroupOf, BarrierHoldsUntilTheLastHasCome) {
  std::atomic<int> come{0};
  on_group(GetParam(), [&](Group& g) {
    for (int round = 1; round <= 5; ++round) {
      ++come;
      g.barrier();
      EXPECT_GE(come.load(), round * g.size());
      g.barrier();
    }
  });
}

TEST(Group, FailureSaysWhichCollective) {
  auto transports = start_threads(3, {.timeout = 100ms});
  Group alone(*transports[1], {1});
  Group group(*transports[1], {0, 1});
  alone.barrier();
  std::byte none{};
  const Send send{1, {&none, 1}};
  transports[0]->exchange({&send, 1}, {}, {"barrier"});  // rank 0 comes to the first barrier only
  group.barrier();
  try {
    group.barrier("end of step");
    FAIL();
  } catch (const PeerFailure& failure) {
    EXPECT_EQ(failure.facts().phase, "end of step");
    EXPECT_EQ(failure.facts().collective, 2u);
    EXPECT_EQ(failure.facts().peer, 0);
  }
}

TEST(Group, MustContainItsRank) {
  auto transports = start_threads(3);
  EXPECT_THROW(Group(*transports[1], {0, 2}), std::logic_error);
}

}  // namespace
}  // namespace invar::parallel
