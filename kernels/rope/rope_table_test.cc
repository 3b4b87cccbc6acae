#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/rope/rope.h"

namespace invar {
namespace {

using ::testing::HasSubstr;

const RopeScaling kLlama31 = {
    .type = "llama3", .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position = 8192};
const RopeScaling kQwenYarn = {.type = "yarn", .factor = 4, .original_max_position = 32768};
const RopeScaling kGptOss = {.type = "yarn", .factor = 32, .original_max_position = 4096, .truncate = false};
const RopeScaling kDeepSeek = {.type = "yarn", .factor = 40, .original_max_position = 4096, .mscale = 0.707, .mscale_all_dim = 1};
const RopeScaling kLinear = {.type = "linear", .factor = 2.5};

// The formulas once more, in long double and with libm.
long double expected_frequency(const RopeScaling& s, long double theta, int64_t dim, int64_t i) {
  using std::numbers::pi_v;
  const long double two_pi = 2 * pi_v<long double>;
  const long double plain = std::pow(theta, -2.0L * i / dim);
  if (s.type == "linear") return plain / s.factor;
  if (s.type == "llama3") {
    const long double turns = s.original_max_position * plain / two_pi;  // in the original context
    if (turns < s.low_freq_factor) return plain / s.factor;
    if (turns > s.high_freq_factor) return plain;
    const long double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    return plain * (smooth + (1 - smooth) / s.factor);
  }
  if (s.type == "yarn") {
    const auto corner = [&](long double turns) {
      return dim * std::log(s.original_max_position / (turns * two_pi)) / (2 * std::log(theta));
    };
    long double low = corner(s.beta_fast), high = corner(s.beta_slow);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0L), high = std::min<long double>(high, dim - 1);
    const long double ramp = std::min(std::max((i - low) / (high - low), 0.0L), 1.0L);
    return plain * ((1 - ramp) + ramp / s.factor);
  }
  return plain;
}

TEST(RopeTable, Frequencies_FollowTheFormulas) {
  struct Model {
    RopeScaling scaling;
    double theta;
    int64_t dim;
  };
  for (const Model& m :
       {Model{{}, 10000, 64}, Model{{}, 1e6, 128}, Model{{}, 5e6, 80}, Model{kLinear, 10000, 128}, Model{kLlama31, 5e5, 128},
        Model{kLlama31, 5e5, 64}, Model{kQwenYarn, 1e6, 128}, Model{kGptOss, 150000, 64}, Model{kDeepSeek, 10000, 64}}) {
    const auto got = rope_frequencies(m.scaling, m.theta, m.dim);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(static_cast<int64_t>(got->inverse.size()), m.dim / 2);
    for (int64_t i = 0; i < m.dim / 2; ++i) {
      const long double want = expected_frequency(m.scaling, m.theta, m.dim, i);
      // Half an ulp of fp32 (at most 2^-24) and nothing else.
      EXPECT_LE(std::abs(got->inverse[i] - want), want * 0x1.00002p-24L)
          << m.scaling.type << ", pair " << i << " of " << m.dim / 2;
    }
  }
}

TEST(RopeTable, Scaling_ChangesTheDimensionsItShould) {
  const auto plain = rope_frequencies({}, 5e5, 128), llama = rope_frequencies(kLlama31, 5e5, 128);
  EXPECT_EQ(plain->inverse[0], llama->inverse[0]);
  EXPECT_EQ(plain->inverse[63] / 8, llama->inverse[63]);
  int blended = 0;
  for (int i = 0; i < 64; ++i) blended += llama->inverse[i] != plain->inverse[i] && llama->inverse[i] != plain->inverse[i] / 8;
  EXPECT_GT(blended, 3);
  EXPECT_LT(blended, 12);
}

TEST(RopeTable, AttentionFactor_FollowsTheFormulas) {
  EXPECT_EQ(rope_frequencies({}, 1e4, 64)->attention_factor, 1);
  EXPECT_EQ(rope_frequencies(kLlama31, 5e5, 128)->attention_factor, 1);
  EXPECT_NEAR(rope_frequencies(kQwenYarn, 1e6, 128)->attention_factor, 0.1 * std::log(4.0) + 1, 1e-15);
  EXPECT_NEAR(rope_frequencies(kDeepSeek, 1e4, 64)->attention_factor,
              (0.1 * 0.707 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1), 1e-15);
  RopeScaling given = kQwenYarn;
  given.attention_factor = 1.25;
  EXPECT_EQ(rope_frequencies(given, 1e6, 128)->attention_factor, 1.25);
  RopeScaling shrinking = kQwenYarn;
  shrinking.factor = 0.5;
  EXPECT_EQ(rope_frequencies(shrinking, 1e6, 128)->attention_factor, 1);
}

TEST(RopeTable, Values_AreTheCosinesOfTheRoundedAngles) {
  for (const RopeScaling& scaling : {RopeScaling{}, kQwenYarn}) {
    const auto table = RopeTable::make(scaling, 10000, 64, 5000);
    ASSERT_TRUE(table.ok());
    const auto frequencies = rope_frequencies(scaling, 10000, 64);
    for (int64_t position = 0; position < 5000; position += position < 10 ? 1 : 37)
      for (int64_t i = 0; i < 32; ++i) {
        const float angle = static_cast<float>(position) * frequencies->inverse[i];
        const long double factor = frequencies->attention_factor;
        const long double c = std::cos(static_cast<long double>(angle)) * factor,
                          s = std::sin(static_cast<long double>(angle)) * factor;
        EXPECT_LE(std::abs(table->cosine(position)[i] - c), std::abs(c) * 0x1.0001p-24L);
        EXPECT_LE(std::abs(table->sine(position)[i] - s), std::abs(s) * 0x1.0001p-24L);
      }
    EXPECT_EQ(table->sine(0)[5], 0.0f);
    EXPECT_EQ(table->cosine(0)[5], static_cast<float>(frequencies->attention_factor));
  }
}

uint64_t fingerprint(const RopeScaling& scaling, double theta, int64_t dim, int64_t positions) {
  const auto table = RopeTable::make(scaling, theta, dim, positions);
  if (!table.ok()) return 0;
  uint64_t hash = 0;
  for (int64_t i = 0; i < positions * dim; ++i) hash = numerics::mix64(hash ^ numerics::float_bits(table->cosine(0)[i]));
  return hash;
}

// Recorded once. A machine, compiler or C library on which one of these differs would give other answers than its peers.
TEST(RopeTable, Bits_AreTheRecordedOnes) {
  EXPECT_EQ(fingerprint({}, 10000, 64, 4096), 0xafbdb87b8fcc3fccu);
  EXPECT_EQ(fingerprint({}, 1e6, 128, 2048), 0x811eef0ba713a5f3u);
  EXPECT_EQ(fingerprint(kLinear, 10000, 96, 1000), 0x309f9bb0a7a4c929u);
  EXPECT_EQ(fingerprint(kLlama31, 5e5, 128, 8192), 0xf06dcb9156da281au);
  EXPECT_EQ(fingerprint(kQwenYarn, 1e6, 128, 2048), 0xcc72317cf9cf8584u);
  EXPECT_EQ(fingerprint(kGptOss, 150000, 64, 4096), 0x1e8ae77044852ff7u);
  EXPECT_EQ(fingerprint(kDeepSeek, 10000, 64, 4096), 0xbde90873b041f609u);
  // Control: a neighbour's table has another fingerprint.
  EXPECT_NE(fingerprint({}, 10001, 64, 4096), fingerprint({}, 10000, 64, 4096));
}

TEST(RopeTable, BadInput_IsRefusedByName) {
  const auto message = [](const RopeScaling& s, double theta = 1e4, int64_t dim = 64, int64_t positions = 8) {
    const auto table = RopeTable::make(s, theta, dim, positions);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(table.status().message());
  };
  const auto with = [](RopeScaling s, auto change) {
    change(s);
    return s;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  EXPECT_THAT(message({.type = "dynamic"}), HasSubstr("rope_type 'dynamic'"));
  EXPECT_THAT(message({.type = ""}), HasSubstr("rope_type ''"));
  EXPECT_THAT(message({}, 1e4, 63), HasSubstr("rotary_dim must be a positive even number, got 63"));
  EXPECT_THAT(message({}, 1e4, 0), HasSubstr("rotary_dim"));
  EXPECT_THAT(message({}, 1e4, -2), HasSubstr("got -2"));
  EXPECT_THAT(message({}, 0), HasSubstr("rope_theta must be above 1 and at most 1e30, got 0"));
  EXPECT_THAT(message({}, -1e4), HasSubstr("got -10000"));
  EXPECT_THAT(message({}, nan), HasSubstr("rope_theta"));
  EXPECT_THAT(message({}, inf), HasSubstr("rope_theta"));
  EXPECT_THAT(message({}, 1e4, 64, 0), HasSubstr("positions must be between 1 and 16777216, got 0"));
  EXPECT_THAT(message({}, 1e4, 64, RopeTable::kMaxPositions + 1), HasSubstr("positions"));
  for (const double factor : {0.0, -2.0, nan, inf}) {
    EXPECT_THAT(message(with(kLinear, [&](RopeScaling& s) { s.factor = factor; })), HasSubstr("rope: factor must be"));
    EXPECT_THAT(message(with(kLlama31, [&](RopeScaling& s) { s.factor = factor; })), HasSubstr("rope: factor must be"));
    EXPECT_THAT(message(with(kQwenYarn, [&](RopeScaling& s) { s.factor = factor; })), HasSubstr("rope: factor must be"));
  }
  EXPECT_THAT(message(with(kLinear, [](RopeScaling& s) { s.factor = 1e-8; })), HasSubstr("factor must be large enough"));
  EXPECT_THAT(message(with(kLlama31, [](RopeScaling& s) { s.original_max_position = 0; })),
              HasSubstr("original_max_position_embeddings must be between 1 and 1e12, got 0"));
  EXPECT_THAT(message(with(kLlama31, [](RopeScaling& s) { s.low_freq_factor = 0; })), HasSubstr("low_freq_factor"));
  EXPECT_THAT(message(with(kLlama31, [](RopeScaling& s) { s.high_freq_factor = 1; })),
              HasSubstr("high_freq_factor must be above low_freq_factor (1)"));
  EXPECT_THAT(message(with(kQwenYarn, [&](RopeScaling& s) { s.original_max_position = nan; })),
              HasSubstr("original_max_position"));
  EXPECT_THAT(message(with(kQwenYarn, [](RopeScaling& s) { s.beta_slow = 0; })), HasSubstr("beta_slow"));
  EXPECT_THAT(message(with(kQwenYarn, [](RopeScaling& s) { s.beta_fast = 0.5; })),
              HasSubstr("beta_fast must be at least beta_slow (1)"));
  EXPECT_THAT(message(with(kQwenYarn, [](RopeScaling& s) { s.mscale = -1; })), HasSubstr("mscale must be"));
  EXPECT_THAT(message(with(kQwenYarn, [](RopeScaling& s) { s.mscale_all_dim = -1; })), HasSubstr("mscale_all_dim"));
  EXPECT_THAT(message(with(kQwenYarn, [](RopeScaling& s) { s.attention_factor = -1; })), HasSubstr("attention_factor"));
}

}  // namespace
}  // namespace invar
