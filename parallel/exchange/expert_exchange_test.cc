#include "parallel/exchange/expert_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include "parallel/grid/grid.h"

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;

// One step: each home's tokens with their experts. A token's row says who it is, so that any mix-up shows.
struct Step {
  int64_t width, top_k, experts;
  std::vector<std::vector<int32_t>> ids;  // by home: [n][top_k]
  int64_t n(int home) const { return static_cast<int64_t>(ids[home].size()) / top_k; }
};

std::vector<Bf16> row_of_token(int64_t width, int home, int64_t r) {
  std::vector<Bf16> row(width);
  for (int64_t k = 0; k < width; ++k) row[k].bits = static_cast<uint16_t>(home * 5003 + r * 71 + k * 7);
  return row;
}
// What expert e makes of a row: any function of both.
uint16_t expert_of(int64_t e, uint16_t x) { return static_cast<uint16_t>(x * 31 + e * 257 + 1); }

// For each home [n][top_k][width]; a dropped row is empty.
using Outcome = std::vector<std::vector<std::vector<uint16_t>>>;

Outcome reference(const Step& step) {
  Outcome out(step.ids.size());
  for (size_t home = 0; home < step.ids.size(); ++home)
    for (size_t i = 0; i < step.ids[home].size(); ++i) {
      auto& row = out[home].emplace_back();
      for (Bf16 x : row_of_token(step.width, static_cast<int>(home), i / step.top_k))
        row.push_back(expert_of(step.ids[home][i], x.bits));
    }
  return out;
}

Outcome run(const Step& step, const std::vector<int>& owner, ControlArm arm = ControlArm::kNone, int threads = 1, int steps = 1) {
  const int ep = static_cast<int>(step.ids.size());
  auto transports = start_threads(ep);
  Outcome out(ep);
  std::vector<int> members;
  for (int r = 0; r < ep; ++r) members.push_back(r);
  std::vector<std::thread> ranks;
  for (int home = 0; home < ep; ++home) {
    transports[home] = delayed(std::move(transports[home]), {.seed = 3, .most = 100us});
    ranks.emplace_back([&, home] {
      const Device device({.threads = threads, .control_arm = arm});
      ExpertExchange exchange(device, Group(*transports[home], members), owner);
      std::vector<Bf16> x;
      for (int64_t r = 0; r < step.n(home); ++r) {
        const auto row = row_of_token(step.width, home, r);
        x.insert(x.end(), row.begin(), row.end());
      }
      for (int again = 0; again < steps; ++again) {
        const DispatchedRows got = exchange.dispatch(x.data(), step.n(home), step.width, step.ids[home].data(), step.top_k);
        ASSERT_EQ(got.offsets.size(), exchange.local_experts().size() + 1);
        std::vector<Bf16> results(got.rows() * step.width);
        for (size_t e = 0; e < exchange.local_experts().size(); ++e) {
          ASSERT_EQ(owner[exchange.local_experts()[e]], home);
          int64_t last = -1;  // (source, row) ascends within an expert
          for (int64_t r = got.offsets[e]; r < got.offsets[e + 1]; ++r) {
            for (int64_t k = 0; k < step.width; ++k)
              results[r * step.width + k].bits = expert_of(exchange.local_experts()[e], got.x[r * step.width + k].bits);
            int64_t found = -1;
            int64_t at = 0;
            for (int source = 0; source < ep; ++source)
              for (int64_t token = 0; token < step.n(source); ++token, ++at)
                if (at > last && found < 0 && row_of_token(1, source, token)[0].bits == got.x[r * step.width].bits) found = at;
            ASSERT_GE(found, 0) << "rows of expert " << exchange.local_experts()[e] << " are out of order";
            last = found;
          }
        }
        const ReturnedRows back = exchange.combine_return(results.data());
        ASSERT_EQ(back.row_of_on_host.size(), step.ids[home].size());
        out[home].clear();
        std::set<int64_t> used;
        for (const int64_t r : back.row_of_on_host) {
          auto& row = out[home].emplace_back();
          if (r < 0) continue;
          EXPECT_TRUE(used.insert(r).second);
          for (int64_t k = 0; k < step.width; ++k) row.push_back(back.expert_rows[r * step.width + k].bits);
        }
      }
    });
  }
  for (std::thread& t : ranks) t.join();
  return out;
}

Step random_step(int ep, int64_t experts, int64_t top_k, int64_t width, uint64_t seed) {
  std::mt19937_64 random(seed);
  Step step{width, top_k, experts, {}};
  for (int home = 0; home < ep; ++home) {
    auto& ids = step.ids.emplace_back();
    const int64_t n = home == 1 ? 0 : static_cast<int64_t>(random() % 40);  // a home without tokens still takes part
    for (int64_t r = 0; r < n; ++r) {
      std::vector<int32_t> all(experts);
      for (int64_t e = 0; e < experts; ++e) all[e] = static_cast<int32_t>(e);
      std::shuffle(all.begin(), all.end(), random);
      std::sort(all.begin(), all.begin() + top_k);
      ids.insert(ids.end(), all.begin(), all.begin() + top_k);
    }
  }
  return step;
}

class ExpertExchangeOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ExpertExchangeOf, testing::Range(1, 9));

TEST_P(ExpertExchangeOf, EvenAndUnevenShards) {
  const int ep = GetParam();
  for (const int64_t experts : {8, 9, 13, 64}) {
    const Step step = random_step(ep, experts, 3, 48, experts);
    EXPECT_EQ(run(step, expert_owners(experts, ep), ControlArm::kNone, 1, 3), reference(step)) << experts << " experts";
  }
}

TEST_P(ExpertExchangeOf, AnyPlacementEvenWithRanksThatHoldNothing) {
  const int ep = GetParam();
  std::mt19937_64 random(ep);
  for (int trial = 0; trial < 5; ++trial) {
    const Step step = random_step(ep, 10, 2, 16, trial);
    std::vector<int> owner(10);
    for (int& o : owner) o = trial == 0 ? ep - 1 : static_cast<int>(random() % ep);
    EXPECT_EQ(run(step, owner), reference(step)) << "trial " << trial;
  }
}

TEST_P(ExpertExchangeOf, AllTokensToOneExpertAndTheOthersEmpty) {
  const int ep = GetParam();
  Step step{.width = 24, .top_k = 1, .experts = 8, .ids = {}};
  for (int home = 0; home < ep; ++home) step.ids.emplace_back(50, 5);
  EXPECT_EQ(run(step, expert_owners(8, ep)), reference(step));
}

TEST_P(ExpertExchangeOf, NobodyHasAToken) {
  Step step{.width = 24, .top_k = 2, .experts = 8, .ids = std::vector<std::vector<int32_t>>(GetParam())};
  EXPECT_EQ(run(step, expert_owners(8, GetParam())), reference(step));
}

TEST_P(ExpertExchangeOf, StretchesOfManyChunksAndWorkerThreads) {
  const int ep = GetParam();
  const int64_t width = 9000;  // 14 rows a chunk
  Step step = random_step(ep, 8, 2, width, 77);
  EXPECT_EQ(run(step, expert_owners(8, ep), ControlArm::kNone, 2, 2), reference(step));
}

TEST_P(ExpertExchangeOf, RowsLongerThanAChunk) {
  const int ep = GetParam();
  Step step{.width = kExchangeChunkBytes / 2 + 3, .top_k = 1, .experts = 8, .ids = {}};
  for (int home = 0; home < ep; ++home) step.ids.push_back({static_cast<int32_t>(home), 7, 0});
  EXPECT_EQ(run(step, expert_owners(8, ep)), reference(step));
}

// The twin that must fail: with a capacity a token's answer depends on who came before it.
TEST_P(ExpertExchangeOf, CapacityDropsWhatComesLast) {
  const int ep = GetParam();
  Step step{.width = 4, .top_k = 2, .experts = 8, .ids = {}};
  for (int home = 0; home < ep; ++home) {
    auto& ids = step.ids.emplace_back();
    for (int32_t r = 0; r < 16; ++r) ids.insert(ids.end(), {3, r % 2 ? 5 : 6});
  }
  const Outcome whole = reference(step);
  const Outcome bounded = run(step, expert_owners(8, ep), ControlArm::kExpertCapacity);
  EXPECT_NE(bounded, whole);
  for (int home = 0; home < ep; ++home)
    for (size_t i = 0; i < bounded[home].size(); ++i) {
      // Capacity ceil(16 * 2 / 8) = 4: of expert 3 the first 4 rows stay, of 5 and 6 the first 4 of 8 each.
      const bool kept = i % 2 == 0 ? i / 2 < 4 : i / 2 < 8;
      EXPECT_EQ(bounded[home][i], kept ? whole[home][i] : std::vector<uint16_t>{}) << home << " " << i;
    }
}

TEST(ExpertExchange, RefusesIdsAndOwnersThatDoNotExist) {
  auto transports = start_threads(1);
  const Device device(DeviceOptions{});
  EXPECT_THROW(ExpertExchange(device, Group(*transports[0], {0}), {0, 1}), std::logic_error);
  ExpertExchange exchange(device, Group(*transports[0], {0}), {0, 0});
  const std::vector<Bf16> x(4);
  for (const int32_t bad : {-1, 2}) EXPECT_THROW(exchange.dispatch(x.data(), 1, 4, &bad, 1), std::logic_error);
}

TEST(ExpertExchange, AbsentRankIsNamed) {
  auto transports = start_threads(2, {.timeout = 60ms});
  const Device device(DeviceOptions{});
  ExpertExchange exchange(device, Group(*transports[0], {0, 1}), {0, 1});
  const std::vector<Bf16> x(4);
  const int32_t id = 1;
  try {
    exchange.dispatch(x.data(), 1, 4, &id, 1);
    FAIL();
  } catch (const PeerFailure& failure) {
    EXPECT_EQ(failure.facts().phase, "expert counts");
    EXPECT_EQ(failure.facts().peer, 1);
  }
}

}  // namespace
}  // namespace invar::parallel
