#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/attention/attention_order.h"
#include "kernels/attention/test_world.h"

namespace invar {
namespace {

using namespace attention_testing;  // NOLINT: this is its test

std::vector<Isa> isas() {
  std::vector<Isa> list = {Isa::kScalar, Isa::kAvx2};
  if (detect_isa() == Isa::kAvx512) list.push_back(Isa::kAvx512);
  return list;
}

Device device_of(Profile profile, Isa isa, int threads = 1) {
  return Device({.profile = profile, .threads = threads, .isa = isa});
}

std::string profile_name(const testing::TestParamInfo<Profile>& info) { return std::string(name(info.param)); }

class AttentionTest : public testing::TestWithParam<Profile> {};
INSTANTIATE_TEST_SUITE_P(Profiles, AttentionTest, testing::Values(Profile::kPortable, Profile::kTc), profile_name);

// Lengths around the block and split borders; queries of several sequences in one call, decode and prefill rows together.
const std::vector<int64_t> kLengths = {1, 63, 64, 65, 130, 511, 512, 513, 1100};

std::vector<Token> mixed_rows() {
  std::vector<Token> rows;
  for (size_t s = 0; s < kLengths.size(); ++s)  // decode rows
    rows.push_back({static_cast<int32_t>(s), static_cast<int32_t>(kLengths[s] - 1)});
  for (int32_t i = 60; i < 70; ++i) rows.push_back({4, i});    // a prefill chunk across a block border
  for (int32_t i = 508; i < 516; ++i) rows.push_back({8, i});  // ... and across a split border
  return rows;
}

TEST_P(AttentionTest, EveryScheduleGivesTheReferenceBits) {
  const Shape shapes[] = {
      {.query_heads = 4, .kv_heads = 4, .head_dim = 8, .page_size = 16},
      {.query_heads = 6, .kv_heads = 2, .head_dim = 32, .page_size = 32},
      {.query_heads = 7, .kv_heads = 1, .head_dim = 64, .page_size = 64},
      {.query_heads = 4, .kv_heads = 2, .head_dim = 80, .page_size = 16},
      {.query_heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 128},
      {.query_heads = 2, .kv_heads = 1, .head_dim = 40, .page_size = 16, .window = 1},
      {.query_heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 32, .window = 17},
      {.query_heads = 8, .kv_heads = 2, .head_dim = 16, .page_size = 16, .window = 600},
  };
  uint32_t seed = 0;
  for (const Shape& shape : shapes) {
    const Values values = kAllValues[seed % std::size(kAllValues)];
    World world(shape, kLengths, values, ++seed);
    const Device scalar = device_of(GetParam(), Isa::kScalar);
    world.allocate(scalar, seed);
    world.write(scalar, world.all_tokens());
    Outputs want;
    world.run(mixed_rows(), reference(GetParam()), want);
    for (const Isa isa : isas()) {
      const Device device = device_of(GetParam(), isa);
      Outputs got;
      world.run(mixed_rows(), schedule(device), got);
      EXPECT_EQ(difference(want, got, shape.head_dim), "") << name(isa) << " head_dim " << shape.head_dim;
    }
  }
}

TEST_P(AttentionTest, HostileValues) {
  for (const Values values : kAllValues) {
    World world({.query_heads = 5, .kv_heads = 1, .head_dim = 24, .page_size = 16}, {70, 600}, values, 9);
    const Device scalar = device_of(GetParam(), Isa::kScalar);
    world.allocate(scalar, 3);
    world.write(scalar, world.all_tokens());
    const std::vector<Token> rows = {{0, 3}, {0, 69}, {1, 0}, {1, 1}, {1, 2}, {1, 599}, {1, 511}, {1, 512}, {1, 575}, {1, 576}};
    Outputs want;
    world.run(rows, reference(GetParam()), want);
    for (const Isa isa : isas()) {
      const Device device = device_of(GetParam(), isa);
      Outputs got;
      world.run(rows, schedule(device), got);
      EXPECT_EQ(difference(want, got, 24), "") << name(isa) << " values " << static_cast<int>(values);
    }
  }
}

// Prefill in chunks, each written and then attended, must give what one token at a time gives; page size, page order, thread
// count, what the batch holds besides, and garbage (NaN too) in slots not yet written change nothing.
TEST_P(AttentionTest, ChunksPagesThreadsAndGarbageDoNotMatter) {
  const bool portable = GetParam() == Profile::kPortable;
  const int64_t length = portable ? 1100 : 600;
  for (const Isa isa : isas()) {
    if (isa == Isa::kScalar) continue;
    Outputs want;
    uint32_t seed = 0;
    for (const int64_t chunk : {int64_t{1}, int64_t{16}, int64_t{17}, int64_t{511}, length}) {
      const int64_t page_size = std::vector<int64_t>{16, 32, 64, 128, 16}[seed];
      World world({.query_heads = 2, .kv_heads = 1, .head_dim = 16, .page_size = page_size}, {length, 40});
      const Device device = device_of(GetParam(), isa, 1 + static_cast<int>(seed % 3));
      world.allocate(device, seed);
      Outputs got;
      for (int64_t first = 0; first < length; first += chunk) {
        std::vector<Token> rows;
        for (int64_t i = first; i < std::min(length, first + chunk); ++i) rows.push_back({0, static_cast<int32_t>(i)});
        if (first < 40 && chunk == 1) rows.push_back({1, static_cast<int32_t>(first)});  // company in the batch
        world.write(device, rows);
        std::reverse(rows.begin(), rows.end());
        world.run(rows, schedule(device), got);
      }
      std::erase_if(got, [](const auto& entry) { return entry.first.sequence == 1; });
      if (want.empty())
        want = got;
      else
        EXPECT_EQ(difference(want, got, 16), "") << name(isa) << " chunk " << chunk;
      ++seed;
    }
  }
}

// Values that are NaN or infinite belong to the rows that see their key and to nobody else.
TEST_P(AttentionTest, NonFiniteValuesReachOnlyThoseWhoSeeThem) {
  for (const int64_t window : {0, 40}) {
    World world({.query_heads = 5, .kv_heads = 1, .head_dim = 24, .page_size = 16, .window = window}, {140, 90});
    for (const int32_t position : {70, 75}) world.spoil({0, position});
    world.spoil({1, 60}, true);
    const Device scalar = device_of(GetParam(), Isa::kScalar);
    world.allocate(scalar, 1);
    world.write(scalar, world.all_tokens());
    Outputs want;
    world.run(world.all_tokens(), reference(GetParam()), want);
    EXPECT_TRUE(all_finite(want.at({0, 69})));
    EXPECT_FALSE(all_finite(want.at({0, 70})));
    EXPECT_EQ(all_finite(want.at({0, 139})), window > 0);
    EXPECT_EQ(want.at({1, 60})[0].bits, 0x7fff);
    for (const Isa isa : isas()) {
      const Device device = device_of(GetParam(), isa);
      world.allocate(device, 2);
      world.write(device, world.all_tokens());
      Outputs got;
      world.run(world.all_tokens(), schedule(device), got);
      EXPECT_EQ(difference(want, got, 24), "") << name(isa) << " window " << window;
    }
  }
}

TEST_P(AttentionTest, SplitsOverThreadsGiveTheSameBits) {
  World world({.query_heads = 8, .kv_heads = 1, .head_dim = 32, .page_size = 16}, {2100});
  const Device one = device_of(GetParam(), detect_isa(), 1);
  world.allocate(one, 5);
  world.write(one, world.all_tokens());
  const std::vector<Token> rows = {{0, 2099}, {0, 1023}, {0, 1024}, {0, 5}};
  Outputs want;
  world.run(rows, schedule(one), want);
  for (const int threads : {2, 3, 5}) {
    const Device many = device_of(GetParam(), detect_isa(), threads);
    Outputs got;
    world.run(rows, schedule(many), got);
    EXPECT_EQ(difference(want, got, 32), "") << threads << " threads";
  }
}

// A rank may hold any query heads of any KV heads, in any order.
TEST_P(AttentionTest, ArbitraryHeadMap) {
  World world({.query_heads = 5, .kv_heads = 3, .head_dim = 16, .page_size = 16}, {100});
  world.kv_head_of() = {2, 0, 2, 2, 0};
  const Device device = device_of(GetParam(), detect_isa());
  world.allocate(device, 2);
  world.write(device, world.all_tokens());
  Outputs want, got;
  world.run({{0, 99}, {0, 50}}, reference(GetParam()), want);
  world.run({{0, 99}, {0, 50}}, schedule(device), got);
  EXPECT_EQ(difference(want, got, 16), "");
}

// Pages outside a window may have been given away: their table entries must not be looked at.
TEST_P(AttentionTest, TableEntriesOutsideTheWindowAreNotRead) {
  const Shape shape{.query_heads = 2, .kv_heads = 1, .head_dim = 16, .page_size = 16, .window = 40};
  World world(shape, {1100});
  const Device device = device_of(GetParam(), detect_isa());
  world.allocate(device, 2);
  world.write(device, world.all_tokens());
  Outputs want, got;
  world.run({{0, 1099}}, reference(GetParam()), want);
  const auto blinded = [&](const Attention& p) {
    std::vector<int32_t> table(p.step->page_table(0).begin(), p.step->page_table(0).end());
    std::fill(table.begin(), table.begin() + (1100 - 40) / 16, -1000000);
    const std::span<const int32_t> tables[] = {table};
    AttentionStep step;
    step.reset(device, p.step->host_positions(), p.step->host_sequences(), tables, shape.page_size);
    Attention q = p;
    q.step = &step;
    attention(device, q);
  };
  world.run({{0, 1099}}, blinded, got);
  EXPECT_EQ(difference(want, got, 16), "");
}

// A row whose numbers overflowed says so, in every element, and its neighbours in the tile do not notice.
TEST_P(AttentionTest, NonFiniteRowsStayAlone) {
  for (const Isa isa : isas()) {
    World clean({.query_heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16}, {80});
    World world = World({.query_heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16}, {80});
    world.q(0)[70 * 64 + 5] = Bf16{0x7fff};  // position 70, head 0
    world.v(0)[75 * 32 + 3] = Bf16{0x7f80};  // value of position 75, d 3: seen from 75 on
    const Device device = device_of(GetParam(), isa);
    std::vector<Token> rows;
    for (int32_t i = 64; i < 80; ++i) rows.push_back({0, i});
    Outputs want, got;
    for (World* w : {&clean, &world}) {
      w->allocate(device, 2);
      w->write(device, w->all_tokens());
      w->run(rows, schedule(device), w == &clean ? want : got);
    }
    for (const Token& t : rows) {
      for (int64_t i = 0; i < 64; ++i) {
        const bool broken_query = t.position == 70 && i < 32, broken_value = t.position >= 75 && i % 32 == 3;
        if (broken_query)
          EXPECT_EQ(got[t][i].bits, 0x7fff);
        else if (broken_value)
          EXPECT_EQ(got[t][i].bits, 0x7f80);
        else
          EXPECT_EQ(got[t][i].bits, want[t][i].bits) << "position " << t.position << " element " << i << " " << name(isa);
      }
    }
  }
}

TEST_P(AttentionTest, NegativeZeroValuesGiveOneSignOfZero) {
  World world({.query_heads = 1, .kv_heads = 1, .head_dim = 16, .page_size = 16}, {70});
  std::fill(world.v(0).begin(), world.v(0).end(), Bf16{0x8000});
  for (const Isa isa : isas()) {
    const Device device = device_of(GetParam(), isa);
    world.allocate(device, 2);
    world.write(device, world.all_tokens());
    Outputs got;
    world.run({{0, 69}, {0, 0}, {0, 64}}, schedule(device), got);
    for (const auto& [token, row] : got)
      for (const Bf16 y : row) EXPECT_EQ(y.bits, 0) << "position " << token.position;
  }
}

// Flat, ordinary and sharp rows. What bf16 rounds off (of y, and of the weights: both 2^-9 at most) and the weights' own error of
// 6.6e-4 allow 0.005 of |y| + sum p |v|; measured 0.0031 at worst and 0.0019 in the root mean square.
TEST_P(AttentionTest, CloseToSoftmaxInDouble) {
  for (const float gain : {0.1f, 1.0f, 4.0f, 12.0f}) {
    World world({.query_heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 16}, {1100});
    for (Bf16& q : world.q(0)) q = bf(widen(q) * gain);
    const Device device = device_of(GetParam(), detect_isa());
    world.allocate(device, 7);
    world.write(device, world.all_tokens());
    std::vector<Token> rows;
    for (int32_t position = 0; position < 1100; position += 7) rows.push_back({0, position});
    Outputs got;
    world.run(rows, schedule(device), got);
    double error = 0, size = 0;
    for (const auto& [token, row] : got) {
      for (int64_t head = 0; head < 2; ++head) {
        std::vector<double> s, o(64, 0.0), magnitude(64, 0.0);
        for (int32_t j = 0; j <= token.position; ++j) {
          double dot = 0;
          for (int d = 0; d < 64; ++d)
            dot += static_cast<double>(widen(world.query(token, head)[d])) * widen(world.key({0, j}, 0)[d]);
          s.push_back(dot / 8.0);
        }
        const double largest = *std::max_element(s.begin(), s.end());
        double sum = 0;
        for (int32_t j = 0; j <= token.position; ++j) {
          const double p = std::exp(s[j] - largest);
          sum += p;
          for (int d = 0; d < 64; ++d) {
            o[d] += p * widen(world.value({0, j}, 0)[d]);
            magnitude[d] += p * std::fabs(widen(world.value({0, j}, 0)[d]));
          }
        }
        for (int d = 0; d < 64; ++d) {
          const double want = o[d] / sum, e = widen(row[head * 64 + d]) - want;
          ASSERT_LE(std::fabs(e), 0.0035 * (std::fabs(want) + magnitude[d] / sum)) << token.position << " gain " << gain;
          error += e * e;
          size += want * want;
        }
      }
    }
    EXPECT_LT(std::sqrt(error / size), 0.0021) << "gain " << gain;
  }
}

TEST(AttentionOrder, ProfilesDiffer) {
  World world({.query_heads = 4, .kv_heads = 1, .head_dim = 64, .page_size = 16}, {400});
  const Device device = device_of(Profile::kPortable, detect_isa()), tc_device = device_of(Profile::kTc, detect_isa());
  world.allocate(device, 7);
  world.write(device, world.all_tokens());
  Outputs portable, tc;
  world.run(world.all_tokens(), schedule(device), portable);
  world.run(world.all_tokens(), schedule(tc_device), tc);
  EXPECT_NE(difference(portable, tc, 64), "");
}

TEST(KvPages, ReadsBackWhatWasWrittenAndStartsAtZero) {
  const Device device = device_of(Profile::kPortable, detect_isa(), 2);
  for (const int64_t head_dim : {8, 24, 128}) {
    for (const int64_t page_size : {16, 48, 128}) {
      KvPages pages(device, 3, page_size, 2, head_dim);
      EXPECT_GE(pages.bytes(), static_cast<size_t>(3 * page_size * 2 * head_dim * 4));
      const int64_t slots = 3 * page_size, width = 2 * head_dim;
      std::vector<int64_t> some;
      std::vector<Bf16> k, v;
      for (int64_t slot = slots - 1; slot >= 0; slot -= 3) {
        some.push_back(slot);
        for (int64_t i = 0; i < width; ++i) {
          k.push_back(Bf16{static_cast<uint16_t>(slot * width + i + 1)});
          v.push_back(Bf16{static_cast<uint16_t>(~(slot * width + i))});
        }
      }
      pages.write(device, static_cast<int64_t>(some.size()), k.data(), v.data(), width, some.data());
      for (int64_t slot = 0; slot < slots; ++slot)
        for (int64_t i = 0; i < width; ++i) {
          const bool written = (slots - 1 - slot) % 3 == 0;
          ASSERT_EQ(pages.key(slot, i / head_dim, i % head_dim).bits, written ? static_cast<uint16_t>(slot * width + i + 1) : 0);
          ASSERT_EQ(pages.value(slot, i / head_dim, i % head_dim).bits, written ? static_cast<uint16_t>(~(slot * width + i)) : 0);
        }
    }
  }
}

}  // namespace
}  // namespace invar
