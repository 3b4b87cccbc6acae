// The order of attention written once more, from README.md, with plain loops and free choice of what the order leaves no choice
// of: as the contract says it must agree with the reference, in any other way it must not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/test_world.h"

namespace invar {
namespace {

using namespace attention_testing;  // NOLINT: this is its test

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Isa> isas() {
  std::vector<Isa> list = {Isa::kScalar, Isa::kAvx2};
  if (detect_isa() == Isa::kAvx512) list.push_back(Isa::kAvx512);
  return list;
}
Device device_of(Profile profile, Isa isa) { return Device({.profile = profile, .isa = isa}); }

struct Order {
  Profile profile = Profile::kPortable;
  int64_t split = 512;       // keys a split
  int64_t origin = 0;        // key at which blocks and splits are counted from
  bool descending = false;   // the value chain inside a block
  float headroom = 7.0f;     // of a reference that moves
  bool every_block = false;  // a reference goes to each block's largest score, if that is higher
  bool whole = true;         // references are whole numbers
  bool least = true;         // weights below the range of t are +0
  bool most = true;          // weights above it are 2
  bool exact = false;        // weights are 2^x rounded once
  bool rounded_sum = true;   // the denominator adds weights rounded to bf16, as the value chain does (portable)
  bool other_sum = false;    // the denominator of the other profile: tc eight lanes, portable a chain of tensor-core steps
};

// (t - 2) * 128 = n + f, with the exponent n and the fraction f of the weight, by arithmetic instead of bits.
float weight(float t, const Order& order) {
  if (std::isnan(t)) return t;
  if (order.exact) return static_cast<float>(std::exp2((static_cast<double>(t) - 2) * 128 - 127));
  if (t < 2 && order.least) return 0;
  if (t >= 3 && order.most) return 2;
  const double whole = std::floor((static_cast<double>(t) - 2) * 128);
  const auto exponent = static_cast<int>(std::clamp(whole, -300.0, 300.0));
  const auto f = static_cast<float>((static_cast<double>(t) - 2) * 128 - whole);
  const float* k = numerics::kAttentionWeight;
  const float m = 1 + f, g = std::fmaf(std::fmaf(std::fmaf(k[3], m, k[2]), m, k[1]), m, k[0]);
  if (exponent == 0 && order.least) return std::ldexp(f, -126) * g;  // below the least normal number the leading one is gone
  return std::ldexp(m, exponent - 127) * g;
}

struct Written {
  float reference = -kInfinity, sum = 0;
  std::vector<float> o;
};

class Writer {
 public:
  Writer(const World& world, const Order& order)
      : world_(world), order_(order), hd_(world.shape().head_dim), c_(world.scale() * numerics::kLog2e), step_(c_ / 128) {}

  std::vector<Bf16> row(const Token& token) const {
    std::vector<Bf16> y;
    for (int64_t head = 0; head < world_.shape().query_heads; ++head) {
      Written total;
      for (int64_t key = 0; key <= token.position;) {
        const int64_t end = std::min<int64_t>(token.position + 1, next_border(key, order_.split));
        Written part = split(token, head, key, end);
        if (total.o.empty())
          total = part;
        else
          merge(total, part);
        key = end;
      }
      const float r = 1 / total.sum;
      for (const float o : total.o) y.push_back(total.sum < kInfinity ? bf(std::fmaf(o, r, 0.0f)) : Bf16{0x7fff});
    }
    return y;
  }

 private:
  int64_t next_border(int64_t at, int64_t step) const {
    return at < order_.origin ? order_.origin : at + step - (at - order_.origin) % step;
  }
  // Products a_j b_j of keys [key, end), a chain that goes on from acc. tc: sixteen at a time, by their places in the sequence.
  template <class A, class B>
  float chain(bool steps, float acc, int64_t key, int64_t end, const A& a, const B& b) const {
    if (!steps) {
      for (int64_t i = key; i < end; ++i) {
        const int64_t j = order_.descending ? key + end - 1 - i : i;
        acc = std::fmaf(widen(a(j)), widen(b(j)), acc);
      }
      return acc;
    }
    const int64_t first = key / 16, last = (end - 1) / 16;
    for (int64_t i = first; i <= last; ++i) {
      const int64_t group = order_.descending ? first + last - i : i;
      Bf16 x[16] = {}, y[16] = {};
      for (int64_t j = std::max(key, group * 16); j < std::min(end, group * 16 + 16); ++j) x[j % 16] = a(j), y[j % 16] = b(j);
      acc = numerics::tensor_core_step(acc, x, y, 16);
    }
    return acc;
  }
  float score(const Bf16* q, const Bf16* k) const {
    float dot = 0;
    for (int64_t d = 0; d < hd_ && order_.profile == Profile::kPortable; ++d) dot = std::fmaf(widen(q[d]), widen(k[d]), dot);
    for (int64_t d = 0; d < hd_ && order_.profile == Profile::kTc; d += 16)
      dot = numerics::tensor_core_step(dot, q + d, k + d, static_cast<int>(std::min<int64_t>(16, hd_ - d)));
    return dot;
  }
  float offset(float reference) const { return std::fmaf(reference, -1.0f / 128, 2 + 255.0f / 256); }
  static float factor(float from, float to) {
    const float d = from - to;
    return std::isnan(d) ? d : d < -126 ? 0.0f : std::exp2(d);
  }
  Token key_of(const Token& token, int64_t j) const { return {token.sequence, static_cast<int32_t>(j)}; }

  Written split(const Token& token, int64_t head, int64_t key, int64_t split_end) const {
    const int64_t kv = head * world_.shape().kv_heads / world_.shape().query_heads;
    Written w;
    w.o.assign(hd_, 0.0f);
    const bool steps = order_.profile == Profile::kTc, sum_steps = steps != order_.other_sum;
    std::vector<float> l(8, 0.0f);  // of a chain: the first
    while (key < split_end) {
      const int64_t end = std::min(split_end, next_border(key, 64));
      std::vector<float> s;
      float largest = -kInfinity;
      for (int64_t j = key; j < end; ++j) {
        s.push_back(score(world_.query(token, head), world_.key(key_of(token, j), kv)));
        if (s.back() > largest) largest = s.back();
      }
      if (order_.every_block || std::fmaf(largest, step_, offset(w.reference)) >= 3) {
        const float x = largest * c_;
        // RN to whole numbers by adding 1.5 * 2^23, which is what the contract does with numbers beyond 2^22 too.
        const float at = (order_.whole ? (x + 12582912.0f) - 12582912.0f : x) + order_.headroom;
        const float to = at > w.reference ? at : w.reference, alpha = factor(w.reference, to);
        for (float& e : l) e *= alpha;
        for (float& e : w.o) e *= alpha;
        w.reference = to;
      }
      for (int64_t j = key; j < end; ++j) {
        const float p = weight(std::fmaf(s[j - key], step_, offset(w.reference)), order_);
        if (!sum_steps) l[j % 8] += order_.rounded_sum ? widen(bf(p)) : p;
        s[j - key] = widen(bf(p));
      }
      const auto weights = [&](int64_t j) { return bf(s[j - key]); };
      if (sum_steps) l[0] = chain(true, l[0], key, end, weights, [](int64_t) { return bf(1.0f); });
      for (int64_t d = 0; d < hd_; ++d)
        w.o[d] = chain(steps, w.o[d], key, end, weights, [&](int64_t j) { return world_.value(key_of(token, j), kv)[d]; });
      key = end;
    }
    w.sum = sum_steps ? l[0] : ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
    return w;
  }

  void merge(Written& a, const Written& b) const {
    const float r = std::max(a.reference, b.reference);
    const float wa = factor(a.reference, r), wb = factor(b.reference, r);
    a.reference = r;
    a.sum = std::fmaf(b.sum, wb, a.sum * wa);
    for (int64_t d = 0; d < hd_; ++d) a.o[d] = std::fmaf(b.o[d], wb, a.o[d] * wa);
  }

  const World& world_;
  const Order order_;
  const int64_t hd_;
  const float c_, step_;
};

Outputs written_out(const World& world, const std::vector<Token>& rows, const Order& order = {}) {
  const Writer writer(world, order);
  Outputs out;
  for (const Token& t : rows) out[t] = writer.row(t);
  return out;
}

std::vector<Token> every_61st(int32_t sequence, int32_t length) {
  std::vector<Token> rows;
  for (int32_t position = 63; position < length; position += 61) rows.push_back({sequence, position});
  return rows;
}

class AttentionOrderOf : public testing::TestWithParam<Profile> {};
INSTANTIATE_TEST_SUITE_P(Profiles, AttentionOrderOf, testing::Values(Profile::kPortable, Profile::kTc),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST_P(AttentionOrderOf, OtherOrdersGiveOtherBits) {
  const Profile profile = GetParam();
  World world({.query_heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 16}, {1100});
  world.cancel();
  const Device device = device_of(profile, detect_isa());
  world.allocate(device, 7);
  world.write(device, world.all_tokens());
  const std::vector<Token> rows = every_61st(0, 1100);
  Outputs got, by_count;
  world.run(rows, schedule(device), got);
  EXPECT_EQ(difference(written_out(world, rows, {.profile = profile}), got, 64), "");
  // Control arms: a fixed count of splits over the length, borders counted from where a chunk began, keys of a block taken
  // backwards, references that are no whole numbers, weights that are better, a denominator of weights that were not rounded.
  for (const Token& t : rows) by_count.merge(written_out(world, {t}, {.profile = profile, .split = (t.position + 1 + 3) / 4}));
  EXPECT_NE(difference(by_count, got, 64), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .origin = 17}), got, 64), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .descending = true}), got, 64), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .whole = false}), got, 64), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .exact = true}), got, 64), "");
  if (profile == Profile::kPortable) {  // in tc they are operands of a tensor-core step
    EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .rounded_sum = false}), got, 64), "");
  }
  // Whole references: where they lie reaches no bit, as long as no weight leaves its range ...
  EXPECT_EQ(difference(written_out(world, rows, {.profile = profile, .headroom = 0}), got, 64), "");
  EXPECT_EQ(difference(written_out(world, rows, {.profile = profile, .headroom = 40}), got, 64), "");
  EXPECT_EQ(difference(written_out(world, rows, {.profile = profile, .every_block = true}), got, 64), "");
}

// ... and does where one does.
TEST_P(AttentionOrderOf, WeightsOutsideTheirRangeShowWhereTheReferenceLies) {
  const Profile profile = GetParam();
  World world({.query_heads = 1, .kv_heads = 1, .head_dim = 32, .page_size = 16}, {700, 700, 700, 700}, Values::kWanderingScores);
  std::vector<Token> rows;
  for (int32_t s = 0; s < 4; ++s)
    for (const Token& t : every_61st(s, 700)) rows.push_back(t);
  Outputs want = written_out(world, rows, {.profile = profile});
  for (const Isa isa : isas()) {
    const Device device = device_of(profile, isa);
    world.allocate(device, 7);
    world.write(device, world.all_tokens());
    Outputs got;
    world.run(rows, schedule(device), got);
    EXPECT_EQ(difference(want, got, 32), "") << name(isa);
  }
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .headroom = 0}), want, 32), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .every_block = true}), want, 32), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .least = false}), want, 32), "");
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .most = false}), want, 32), "");
  std::erase_if(want, [](const auto& entry) { return !all_finite(entry.second); });
  EXPECT_GT(want.size(), rows.size() / 2);
}

TEST_P(AttentionOrderOf, TheDenominatorIsNotThatOfTheOtherProfile) {
  const Profile profile = GetParam();
  World world({.query_heads = 32, .kv_heads = 32, .head_dim = 128, .page_size = 16}, {512});
  world.small_weights(0);
  const std::vector<Token> rows = {{0, 500}, {0, 511}};
  const Outputs want = written_out(world, rows, {.profile = profile});
  for (const Isa isa : isas()) {
    const Device device = device_of(profile, isa);
    world.allocate(device, 7);
    world.write(device, world.all_tokens());
    Outputs got;
    world.run(rows, schedule(device), got);
    EXPECT_EQ(difference(want, got, 128), "") << name(isa);
  }
  EXPECT_NE(difference(written_out(world, rows, {.profile = profile, .other_sum = true}), want, 128), "");
}

// The last bits of a denominator show where an output lies beside the border of two bf16: in one of some tens of thousands.
TEST(AttentionOrder, TheLastBitsOfATensorCoreDenominator) {
  World world({.query_heads = 64, .kv_heads = 1, .head_dim = 128, .page_size = 16}, {150});
  for (Bf16& q : world.q(0)) q = bf(widen(q) * 4.0f);  // weights of many sizes: sums of others are exact
  std::vector<Token> rows;
  for (int32_t position = 64; position < 150; position += 2) rows.push_back({0, position});
  const Outputs want = written_out(world, rows, {.profile = Profile::kTc});
  for (const Isa isa : isas()) {
    if (isa == Isa::kScalar) continue;
    const Device device = device_of(Profile::kTc, isa);
    world.allocate(device, 7);
    world.write(device, world.all_tokens());
    Outputs got;
    world.run(rows, schedule(device), got);
    EXPECT_EQ(difference(want, got, 128), "") << name(isa);
  }
  EXPECT_NE(difference(written_out(world, rows, {.profile = Profile::kTc, .other_sum = true}), want, 128), "");
}

// Rows of a sequence under the reference and every schedule, in both profiles; the portable reference's are given back. Scores
// and values are such that both profiles give the same.
Outputs agreed(World& world, const std::vector<Token>& rows, const std::string& what) {
  Outputs portable;
  for (const Profile profile : {Profile::kTc, Profile::kPortable}) {
    const Device scalar = device_of(profile, Isa::kScalar);
    world.allocate(scalar, 3);
    world.write(scalar, world.all_tokens());
    portable.clear();
    world.run(rows, reference(profile), portable);
    for (const Isa isa : isas()) {
      const Device device = device_of(profile, isa);
      Outputs got;
      world.run(rows, schedule(device), got);
      EXPECT_EQ(difference(portable, got, world.shape().head_dim), "") << what << " " << name(profile) << " " << name(isa);
    }
  }
  EXPECT_EQ(difference(written_out(world, rows), portable, world.shape().head_dim), "") << what;
  return portable;
}

World with_scores(const std::vector<float>& scores) {
  World world({.query_heads = 1, .kv_heads = 1, .head_dim = 8, .page_size = 16}, {static_cast<int64_t>(scores.size())});
  world.level_queries(0);
  for (size_t j = 0; j < scores.size(); ++j) world.set_score({0, static_cast<int32_t>(j)}, 0, scores[j]);
  return world;
}

TEST(AttentionOrder, ScoresThatAreNoNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    const char* what;
    int32_t first, last;  // keys [first, last) have this score, the others 1
    float score;
    bool number_at_the_end;
  };
  for (const Case& c :
       {Case{"all -inf", 0, 600, -kInfinity, false}, Case{"a first block of -inf", 0, 64, -kInfinity, false},
        Case{"a later block of -inf", 64, 128, -kInfinity, true}, Case{"a second split of -inf", 512, 576, -kInfinity, false},
        Case{"the last keys of a block -inf", 20, 64, -kInfinity, true}, Case{"one +inf", 70, 71, kInfinity, false},
        Case{"all +inf", 0, 600, kInfinity, false}, Case{"one NaN", 130, 131, nan, false},
        Case{"the first a NaN", 0, 1, nan, false}}) {
    std::vector<float> scores(600, 1.0f);
    std::fill(scores.begin() + c.first, scores.begin() + c.last, c.score);
    World world = with_scores(scores);
    const Outputs got = agreed(world, {{0, 0}, {0, 63}, {0, 64}, {0, 100}, {0, 130}, {0, 511}, {0, 512}, {0, 599}}, c.what);
    EXPECT_EQ(all_finite(got.at({0, 599})), c.number_at_the_end) << c.what;
    EXPECT_EQ(all_finite(got.at({0, 0})), c.first > 0) << c.what;
  }
}

// The least float that `above` holds for, if it holds for all greater ones.
template <class Above>
float least_float(float low, float high, const Above& above) {
  while (std::nextafter(low, high) < high) {
    const float middle = low + (high - low) / 2;
    (above(middle) ? high : low) = middle;
  }
  return high;
}

// A block whose largest t is 3 moves the reference, one whose largest is the float below 3 does not; t = 2 and what is below it
// is a weight of +0. Seen in the output of keys with tiny weights and huge values, where all other values are zero.
TEST(AttentionOrder, EdgesOfTheRange) {
  const float c = World({.head_dim = 8}, {}).scale() * numerics::kLog2e, step = c / 128;
  const float offset = numerics::attention_offset(7);  // after a first block of scores 0
  const auto t = [&](float s) { return std::fmaf(s, step, offset); };
  const float three = least_float(1 / c, 20 / c, [&](float s) { return t(s) >= 3; });
  const float below_three = std::nextafter(three, 0.0f);
  ASSERT_EQ(t(three), 3.0f);
  ASSERT_EQ(t(below_three), std::nextafter(3.0f, 0.0f));
  const float two = least_float(-200 / c, -100 / c, [&](float s) { return t(s) >= 2; });
  ASSERT_EQ(t(two), 2.0f);
  ASSERT_LT(t(std::nextafter(two, -1e9f)), 2.0f);
  ASSERT_GT(t(std::nextafter(two, -1e9f)), 1.99f);
  struct Case {
    const char* what;
    float highest, tiny;  // scores of keys 70 and 80
    bool seen;
  };
  for (const Case& k :
       {Case{"below 3", below_three, -115 / c, true}, Case{"at 3", three, -115 / c, false}, Case{"at 2", 0, two, false},
        Case{"below 2", 0, std::nextafter(two, -1e9f), false}, Case{"no normal weight", 0, two + 0.5f / c, true},
        Case{"the least normal weight", 0, two + 1 / c, true}}) {
    std::vector<float> scores(200, 0.0f);
    scores[70] = k.highest;
    scores[80] = k.tiny;
    World world = with_scores(scores);
    std::fill(world.v(0).begin(), world.v(0).end(), Bf16{0});
    std::fill_n(world.v(0).begin() + 80 * 8, 8, bf(0x1p126f));
    for (const auto& [token, row] : agreed(world, {{0, 79}, {0, 80}, {0, 127}, {0, 199}}, k.what))
      for (const Bf16 y : row) EXPECT_EQ(y.bits != 0, k.seen && token.position >= 80) << k.what << " at " << token.position;
  }
}

}  // namespace
}  // namespace invar
