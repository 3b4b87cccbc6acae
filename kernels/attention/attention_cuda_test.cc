// The GPU's attention against the scalar order, bit for bit.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/cuda/attention.h"
#include "kernels/attention/test_world.h"
#include "kernels/device/cuda/context.h"
#include "kernels/device/cuda_test.h"

namespace invar {
namespace {

using namespace attention_testing;  // NOLINT: this is its test

// Decode and prefill rows of several sequences in one step, around the borders of blocks and splits.
const std::vector<int64_t> kLengths = {1, 63, 64, 65, 130, 511, 512, 513, 1100};

std::vector<Token> mixed_rows() {
  std::vector<Token> rows;
  for (const int32_t s : {0, 1, 2, 3, 5, 6, 7}) rows.push_back({s, static_cast<int32_t>(kLengths[s] - 1)});
  for (int32_t i = 55; i < 130; ++i) rows.push_back({4, i});
  for (int32_t i = 508; i < 516; ++i) rows.push_back({8, i});
  rows.push_back({8, 1099});
  return rows;
}

class AttentionCuda : public CudaTest, public testing::WithParamInterface<Profile> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    cuda_ = open(GetParam());
  }
  const Device& cuda() const { return *cuda_; }
  const Device& host() const { return host_; }

  // The CPU's result: of the scalar reference, or of a vector schedule, which has its bits and is faster.
  Outputs expected(World& world, const std::vector<Token>& rows, bool scalar = false) const {
    world.allocate(host_, 3);
    world.write(host_, world.all_tokens());
    Outputs out;
    if (scalar)
      world.run(rows, reference(GetParam()), out);
    else
      world.run(rows, schedule(host_), out);
    return out;
  }
  Outputs on_gpu(World& world, const std::vector<Token>& rows) const {
    world.allocate(cuda(), 4);
    world.write(cuda(), world.all_tokens());
    Outputs out;
    world.run(rows, schedule(cuda()), out);
    return out;
  }
  void expect_equal(World& world, const std::vector<Token>& rows, const std::string& what, bool scalar = false) const {
    const Outputs want = expected(world, rows, scalar), got = on_gpu(world, rows);
    EXPECT_EQ(difference(want, got, world.shape().head_dim), "") << what;
  }

 private:
  std::unique_ptr<Device> cuda_;
  const Device host_{DeviceOptions{.profile = GetParam(), .threads = 16}};
};
INSTANTIATE_TEST_SUITE_P(Profiles, AttentionCuda, testing::Values(Profile::kPortable, Profile::kTc),
                         [](const auto& info) { return std::string(name(info.param)); });

std::string describe(const Shape& s, Values values) {
  return "heads " + std::to_string(s.query_heads) + "/" + std::to_string(s.kv_heads) + " head_dim " + std::to_string(s.head_dim) +
         " page " + std::to_string(s.page_size) + " window " + std::to_string(s.window) + " values " +
         std::to_string(static_cast<int>(values));
}

const Shape kShapes[] = {
    {.query_heads = 4, .kv_heads = 4, .head_dim = 8, .page_size = 16},
    {.query_heads = 6, .kv_heads = 2, .head_dim = 32, .page_size = 32},
    {.query_heads = 4, .kv_heads = 2, .head_dim = 80, .page_size = 48},
    {.query_heads = 3, .kv_heads = 1, .head_dim = 256, .page_size = 16},
    {.query_heads = 2, .kv_heads = 1, .head_dim = 40, .page_size = 16, .window = 1},
    {.query_heads = 20, .kv_heads = 1, .head_dim = 96, .page_size = 64, .window = 300},
    {.query_heads = 7, .kv_heads = 1, .head_dim = 64, .page_size = 64},
    {.query_heads = 16, .kv_heads = 16, .head_dim = 64, .page_size = 16},
    {.query_heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 32, .window = 17},
    {.query_heads = 2, .kv_heads = 2, .head_dim = 128, .page_size = 128},
    {.query_heads = 8, .kv_heads = 2, .head_dim = 128, .page_size = 16},
    {.query_heads = 8, .kv_heads = 1, .head_dim = 128, .page_size = 64, .window = 600},
    {.query_heads = 20, .kv_heads = 1, .head_dim = 128, .page_size = 48},
    {.query_heads = 10, .kv_heads = 2, .head_dim = 128, .page_size = 32, .window = 100},
};

TEST_P(AttentionCuda, EveryShapeGivesTheReferenceBits) {
  uint32_t seed = 0;
  for (const Shape& shape : kShapes) {
    for (const Values values : {Values::kNormal, kAllValues[seed % std::size(kAllValues)]}) {
      World world(shape, kLengths, values, ++seed);
      expect_equal(world, mixed_rows(), describe(shape, values));
    }
  }
}

TEST_P(AttentionCuda, HostileValuesAgainstTheScalarReference) {
  const std::vector<Token> rows = {{0, 3},   {0, 69},  {1, 0},   {1, 1},   {1, 2},   {1, 599}, {1, 511},
                                   {1, 512}, {1, 575}, {1, 576}, {2, 699}, {3, 128}, {4, 511}, {5, 512}};
  for (const Values values : kAllValues) {
    for (const Shape& shape : {Shape{.query_heads = 5, .kv_heads = 1, .head_dim = 24, .page_size = 16},
                               Shape{.query_heads = 4, .kv_heads = 1, .head_dim = 64, .page_size = 16},
                               Shape{.query_heads = 4, .kv_heads = 1, .head_dim = 128, .page_size = 32}}) {
      World world(shape, {70, 600, 700, 129, 512, 513}, values, 9);
      expect_equal(world, rows, describe(shape, values), true);
    }
  }
}

// The last bits of a denominator show where an output lies beside the border of two bf16: in one of some tens of thousands. Sharp
// rows, because a sum of weights of nearly one size is exact.
TEST_P(AttentionCuda, TheLastBitsOfDenominators) {
  for (const int64_t head_dim : {32, 64, 128}) {
    World world({.query_heads = 48, .kv_heads = 4, .head_dim = head_dim, .page_size = 16}, std::vector<int64_t>(24, 150));
    std::vector<Token> prefill, decode;
    for (int32_t s = 0; s < 24; ++s) {
      for (Bf16& q : world.q(s)) q = bf(widen(q) * 4.0f);
      decode.push_back({s, 149 - s * 3});
    }
    for (int32_t i = 60; i < 150; ++i) prefill.push_back({0, i});
    expect_equal(world, prefill, "prefill, head_dim " + std::to_string(head_dim));
    expect_equal(world, decode, "decode, head_dim " + std::to_string(head_dim));
  }
}

// And the control: what the other profile makes of the same scores.
TEST_P(AttentionCuda, SmallWeightsInTheDenominator) {
  const Device other({.profile = GetParam() == Profile::kTc ? Profile::kPortable : Profile::kTc, .threads = 16});
  for (const int64_t head_dim : {32, 64, 128}) {
    World world({.query_heads = 32, .kv_heads = 32, .head_dim = head_dim, .page_size = 16}, {512});
    world.small_weights(0);
    std::vector<Token> rows;
    for (int32_t i = 480; i < 512; ++i) rows.push_back({0, i});
    expect_equal(world, {{0, 511}}, "decode, head_dim " + std::to_string(head_dim));
    expect_equal(world, rows, "prefill, head_dim " + std::to_string(head_dim));
    if (head_dim < 128) continue;  // too few outputs for one to lie beside a border
    const Outputs got = on_gpu(world, rows);
    world.allocate(other, 3);
    world.write(other, world.all_tokens());
    Outputs different;
    world.run(rows, schedule(other), different);
    EXPECT_NE(difference(different, got, head_dim), "") << "head_dim " << head_dim;
  }
}

// Every position of a prompt at once: each row's last key somewhere else in its block.
TEST_P(AttentionCuda, WholePrompts) {
  for (const Shape& shape : {Shape{.query_heads = 3, .kv_heads = 1, .head_dim = 48, .page_size = 16},
                             Shape{.query_heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 16},
                             Shape{.query_heads = 8, .kv_heads = 2, .head_dim = 128, .page_size = 16},
                             Shape{.query_heads = 5, .kv_heads = 1, .head_dim = 128, .page_size = 64, .window = 200}}) {
    for (const Values values : {Values::kNormal, Values::kWide}) {
      World world(shape, {1200, 77}, values, 5);
      if (values == Values::kNormal) world.cancel();
      expect_equal(world, world.all_tokens(), describe(shape, values));
    }
  }
}

// Prefill in chunks, each written and then attended, in any order of rows and whatever else is in the step.
TEST_P(AttentionCuda, ChunksOrderAndCompanyDoNotMatter) {
  for (const int64_t head_dim : {16, 64, 128}) {
    constexpr int64_t kLength = 1100;
    Outputs want;
    uint32_t seed = 0;
    for (const int64_t chunk : {kLength, int64_t{511}, int64_t{17}, int64_t{16}, int64_t{1}}) {
      World world(
          {.query_heads = 4, .kv_heads = 1, .head_dim = head_dim, .page_size = std::vector<int64_t>{16, 32, 64, 128, 16}[seed]},
          {kLength, 700});
      world.allocate(cuda(), seed);
      std::mt19937 rng(seed);
      Outputs got;
      for (int64_t first = 0; first < kLength; first += chunk) {
        std::vector<Token> rows;
        for (int64_t i = first; i < std::min(kLength, first + chunk); ++i) rows.push_back({0, static_cast<int32_t>(i)});
        if (first < 700 && seed % 2 == 1) rows.push_back({1, static_cast<int32_t>(first)});
        world.write(cuda(), rows);
        std::shuffle(rows.begin(), rows.end(), rng);
        world.run(rows, schedule(cuda()), got);
      }
      std::erase_if(got, [](const auto& entry) { return entry.first.sequence == 1; });
      if (want.empty())
        want = got;
      else
        EXPECT_EQ(difference(want, got, head_dim), "") << "head_dim " << head_dim << " chunk " << chunk;
      ++seed;
    }
  }
}

// How the work was cut, and for which heads, changes nothing.
TEST_P(AttentionCuda, PlansDoNotMatter) {
  World world({.query_heads = 12, .kv_heads = 3, .head_dim = 128, .page_size = 16}, {900, 40, 1500});
  world.kv_head_of() = {2, 0, 2, 2, 0, 2, 2, 2, 2, 2, 2, 0};  // uneven, and one KV head that nobody reads
  std::vector<Token> rows = {{0, 899}, {1, 39}};
  for (int32_t i = 1000; i < 1200; ++i) rows.push_back({2, i});
  const Outputs want = expected(world, rows);
  world.allocate(cuda(), 8);
  world.write(cuda(), world.all_tokens());
  for (const AttentionHeads heads : {AttentionHeads{1, 1}, AttentionHeads{8, 4}, AttentionHeads{1, 9}, AttentionHeads{1000, 9}}) {
    world.planned_heads() = heads;
    Outputs got;
    world.run(rows, schedule(cuda()), got);
    EXPECT_EQ(difference(want, got, 128), "") << "kv " << heads.kv << " group " << heads.group;
  }
}

TEST_P(AttentionCuda, TableEntriesOutsideTheWindowAreNotRead) {
  for (const int64_t head_dim : {16, 128}) {
    const Shape shape{.query_heads = 2, .kv_heads = 1, .head_dim = head_dim, .page_size = 16, .window = 40};
    World world(shape, {1100});
    for (const bool prefill : {false, true}) {
      std::vector<Token> rows = {{0, 1099}};
      for (int32_t i = 1090; prefill && i < 1099; ++i) rows.push_back({0, i});
      const Outputs want = expected(world, rows);
      world.allocate(cuda(), 2);
      world.write(cuda(), world.all_tokens());
      Outputs got;
      const auto blinded = [&](const Attention& p) {
        std::vector<int32_t> table(p.step->page_table(0).begin(), p.step->page_table(0).end());
        std::fill(table.begin(), table.begin() + (1090 - 40) / 16, -1000000);
        std::fill(table.begin(), table.begin() + 3, 1000000000);
        const std::span<const int32_t> tables[] = {table};
        AttentionStep step;
        step.reset(cuda(), p.step->host_positions(), p.step->host_sequences(), tables, shape.page_size);
        Attention q = p;
        q.step = &step;
        attention(cuda(), q);
        cuda().synchronize();
      };
      world.run(rows, blinded, got);
      EXPECT_EQ(difference(want, got, head_dim), "") << "head_dim " << head_dim;
    }
  }
}

// Scores that are NaN or overflow make the row NaN; its neighbours in the tile do not notice.
TEST_P(AttentionCuda, NonFiniteRowsStayAlone) {
  for (const int64_t head_dim : {32, 64, 128}) {
    const Shape shape{.query_heads = 2, .kv_heads = 1, .head_dim = head_dim, .page_size = 16};
    World world(shape, {600});
    const int64_t width = 2 * head_dim;
    for (int64_t i = 0; i < 600 * 2; ++i) world.q(0)[i * head_dim + 1] = Bf16{0};
    world.k(0)[3 * head_dim + 1] = Bf16{0xff00};  // nobody but 574 looks at it
    world.q(0)[570 * width + 5] = Bf16{0x7fff};
    for (int64_t d = 0; d < head_dim; ++d) {
      world.q(0)[572 * width + d] = Bf16{0x7f00};                                      // scores overflow, either way
      world.q(0)[574 * width + d] = Bf16{static_cast<uint16_t>(d == 1 ? 0x7f00 : 0)};  // one score of -inf, nothing more
    }
    std::vector<Token> rows;
    for (int32_t i = 560; i < 600; ++i) rows.push_back({0, i});
    for (const auto& some : {rows, std::vector<Token>{{0, 570}}, std::vector<Token>{{0, 572}}, std::vector<Token>{{0, 574}}}) {
      const Outputs want = expected(world, some, true), got = on_gpu(world, some);
      EXPECT_EQ(difference(want, got, head_dim), "") << "head_dim " << head_dim << " rows " << some.size();
    }
    const Outputs got = on_gpu(world, rows);
    EXPECT_EQ(got.at({0, 570})[0].bits, 0x7fff);
    EXPECT_NE(got.at({0, 571})[0].bits, 0x7fff);
  }
}

// Values that are NaN or infinite belong to the rows that see their key and to nobody else: not to earlier rows of the block, not
// to rows whose window has left it, not to company. (Unwritten slots hold such values in every test here.)
TEST_P(AttentionCuda, NonFiniteValuesReachOnlyThoseWhoSeeThem) {
  for (const Shape& shape : {Shape{.query_heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16},
                             Shape{.query_heads = 20, .kv_heads = 1, .head_dim = 96, .page_size = 64, .window = 40},
                             Shape{.query_heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 64},
                             Shape{.query_heads = 32, .kv_heads = 16, .head_dim = 64, .page_size = 16},
                             Shape{.query_heads = 8, .kv_heads = 2, .head_dim = 128, .page_size = 16},
                             Shape{.query_heads = 5, .kv_heads = 1, .head_dim = 128, .page_size = 32, .window = 100}}) {
    World world(shape, {700, 130, 600});
    for (const int32_t position : {70, 75, 511, 512, 690}) world.spoil({0, position});
    world.spoil({1, 129});
    world.spoil({2, 300}, true);
    std::vector<Token> prompts;
    for (int32_t i = 3; i < 700; ++i) prompts.push_back({0, i});
    for (int32_t i = 0; i < 130; ++i) prompts.push_back({1, i});
    for (int32_t i = 250; i < 420; ++i) prompts.push_back({2, i});
    expect_equal(world, prompts, "prompts, " + describe(shape, Values::kNormal));
    for (const auto& [a, b, c] : {std::array{69, 128, 299}, std::array{70, 129, 300}, std::array{510, 0, 380}}) {
      const std::vector<Token> rows = {{0, a}, {1, b}, {2, c}};
      expect_equal(world, rows, "decode at " + std::to_string(a) + ", " + describe(shape, Values::kNormal), true);
    }
    const Outputs got = on_gpu(world, prompts);
    EXPECT_TRUE(all_finite(got.at({0, 69})));
    EXPECT_FALSE(all_finite(got.at({0, 70})));
    EXPECT_FALSE(all_finite(got.at({0, 109})));
    EXPECT_EQ(all_finite(got.at({0, 175})), shape.window > 0);
    EXPECT_FALSE(all_finite(got.at({0, 530})));
    EXPECT_TRUE(all_finite(got.at({1, 128})));
    EXPECT_EQ(got.at({2, 300})[0].bits, 0x7fff);
    EXPECT_EQ(got.at({2, 419})[0].bits == 0x7fff, shape.window == 0);
  }
}

// The same where a block of the grid has more items than the machine has blocks, many times over.
TEST_P(AttentionCuda, NonFiniteValuesInThousandsOfTiles) {
  World world({.query_heads = 128, .kv_heads = 128, .head_dim = 64, .page_size = 16}, std::vector<int64_t>(45, 8));
  std::vector<Token> rows;
  for (int32_t s = 0; s < 45; ++s) {
    if (s % 5) world.spoil({s, 6});
    for (int32_t i = 4; i < 7; ++i) rows.push_back({s, i});
  }
  expect_equal(world, rows, "thousands of tiles");
  const Outputs got = on_gpu(world, rows);
  EXPECT_TRUE(all_finite(got.at({44, 5})));
  EXPECT_FALSE(all_finite(got.at({44, 6})));
  EXPECT_TRUE(all_finite(got.at({40, 6})));
}

// Only visible keys whose scores are all -inf, in a split before one with finite scores: no schedule may take them for masked.
TEST_P(AttentionCuda, AnAllMinusInfinitySplitIsNotAnEmptyOne) {
  const Shape shape{.query_heads = 1, .kv_heads = 1, .head_dim = 128, .page_size = 16};
  World world(shape, {700});
  std::fill(world.q(0).begin(), world.q(0).end(), Bf16{0});
  for (int64_t i = 0; i < 700; ++i) world.q(0)[i * 128] = Bf16{0x7f00};
  for (int64_t j = 0; j < 700; ++j) world.k(0)[j * 128] = j < 512 ? Bf16{0xff00} : Bf16{0};
  std::vector<Token> rows = {{0, 699}};
  expect_equal(world, rows, "decode", true);
  for (int32_t i = 500; i < 699; ++i) rows.push_back({0, i});
  expect_equal(world, rows, "prefill", true);
}

// Long contexts: the kernels for ordinary shapes against the one for any, which the tests above compare with the reference.
TEST_P(AttentionCuda, LongContexts) {
  for (const Shape& shape : {Shape{.query_heads = 8, .kv_heads = 2, .head_dim = 128, .page_size = 16},
                             Shape{.query_heads = 6, .kv_heads = 2, .head_dim = 64, .page_size = 64},
                             Shape{.query_heads = 8, .kv_heads = 1, .head_dim = 128, .page_size = 32, .window = 4000}}) {
    World world(shape, {9000, 6100, 4097, 5000});
    world.cancel();
    world.allocate(cuda(), 1);
    world.write(cuda(), world.all_tokens());
    std::vector<Token> rows = {{0, 8999}, {1, 6099}, {2, 4096}};
    for (int32_t i = 4000; i < 5000; ++i) rows.push_back({3, i});
    Outputs want, got;
    world.run(
        rows, [this](const Attention& p) { cuda::attention_generic(cuda(), p); }, want);
    world.run(rows, schedule(cuda()), got);
    EXPECT_EQ(difference(want, got, shape.head_dim), "") << describe(shape, Values::kNormal);
  }
}

// A graph of a decode step replayed with other contents: pages, positions and lengths are read from memory that stays.
TEST_P(AttentionCuda, AGraphIsReplayedWithOtherContents) {
  for (const int64_t head_dim : {32, 128}) {
    World world({.query_heads = 4, .kv_heads = 1, .head_dim = head_dim, .page_size = 16}, {30, 700, 1300, 2100});
    const std::vector<Token> rows = {{0, 29}, {1, 650}, {2, 1299}, {3, 2099}};
    const Outputs want = expected(world, rows);
    world.allocate(cuda(), 2);
    world.write(cuda(), world.all_tokens());
    Outputs got;
    world.run(
        rows,
        [&](const Attention& p) {
          std::vector<std::span<const int32_t>> tables;
          for (int64_t s = 0; s < p.step->sequence_count(); ++s) tables.push_back(p.step->page_table(s));
          AttentionStep step;
          step.reserve(cuda(), 4, 1000, 20);
          step.reset(cuda(), std::vector<int32_t>{600, 4, 5, 6}, std::vector<int32_t>{3, 1, 2, 0}, tables, p.step->page_size());
          Attention q = p;
          q.step = &step;
          attention(cuda(), q);  // memory grows here, not under capture
          const uint64_t generation = step.generation();
          ASSERT_TRUE(step.has_merges());
          cudaGraph_t graph;
          cudaGraphExec_t executable;
          cuda::check(cudaStreamBeginCapture(cuda().cuda().stream, cudaStreamCaptureModeThreadLocal));
          attention(cuda(), q);
          cuda::check(cudaStreamEndCapture(cuda().cuda().stream, &graph));
          cuda::check(cudaGraphInstantiate(&executable, graph, 0));
          step.reset(cuda(), p.step->host_positions(), p.step->host_sequences(), tables, p.step->page_size());
          ASSERT_EQ(step.generation(), generation);
          ASSERT_TRUE(step.has_merges());
          cuda::check(cudaGraphLaunch(executable, cuda().cuda().stream));
          cuda().synchronize();
          cudaGraphExecDestroy(executable);
          cudaGraphDestroy(graph);
        },
        got);
    EXPECT_EQ(difference(want, got, head_dim), "") << "head_dim " << head_dim;
  }
}

// A recorded step holds the address of the states: who recorded one without splits must hear that the next one has some.
TEST_P(AttentionCuda, MoreStatesMoveTheGeneration) {
  World world({.query_heads = 4, .kv_heads = 1, .head_dim = 128, .page_size = 64}, {6000});
  world.allocate(cuda(), 2);
  world.write(cuda(), world.all_tokens());
  Outputs unused;
  world.run(
      {{0, 5999}},
      [&](const Attention& p) {
        const std::span<const int32_t> tables[] = {p.step->page_table(0)};
        AttentionStep step;
        Attention q = p;
        q.step = &step;
        uint64_t generation = 0;
        for (const int32_t position : {100, 5100, 5999, 300, 5900}) {
          step.reset(cuda(), std::vector<int32_t>{position}, std::vector<int32_t>{0}, tables, p.step->page_size());
          const bool more = position == 5100 || position == 5999 || generation == 0;
          EXPECT_EQ(step.generation() != generation, more) << position;
          attention(cuda(), q);
          generation = step.generation();
        }
        cuda().synchronize();
      },
      unused);
}

// More decode rows than the machine takes at once: blocks go from item to item, long and short ones.
TEST_P(AttentionCuda, ManyDecodeRows) {
  for (const Shape& shape : {Shape{.query_heads = 8, .kv_heads = 8, .head_dim = 64, .page_size = 16},
                             Shape{.query_heads = 8, .kv_heads = 8, .head_dim = 128, .page_size = 32},
                             Shape{.query_heads = 36, .kv_heads = 4, .head_dim = 128, .page_size = 16, .window = 500}}) {
    std::vector<int64_t> lengths;
    std::vector<Token> rows;
    for (int32_t s = 0; s < 50; ++s) {
      lengths.push_back(1 + s * 7919 % 700);
      rows.push_back({s, static_cast<int32_t>(lengths.back() - 1)});
    }
    World world(shape, lengths);
    world.cancel();
    world.allocate(cuda(), 1);
    world.write(cuda(), world.all_tokens());
    Outputs want, got;
    world.run(
        rows, [this](const Attention& p) { cuda::attention_generic(cuda(), p); }, want);
    world.run(rows, schedule(cuda()), got);
    EXPECT_EQ(difference(want, got, shape.head_dim), "") << describe(shape, Values::kNormal);
  }
}

// What every comparison above could notice.
TEST_P(AttentionCuda, ControlsDiffer) {
  const Shape shape{.query_heads = 4, .kv_heads = 1, .head_dim = 128, .page_size = 16};
  World world(shape, {1100});
  world.cancel();
  const std::vector<Token> rows = world.all_tokens();
  const Outputs got = on_gpu(world, rows);
  // The other profile's chains.
  const Device other({.profile = GetParam() == Profile::kTc ? Profile::kPortable : Profile::kTc, .threads = 16});
  world.allocate(other, 3);
  world.write(other, world.all_tokens());
  Outputs other_profile;
  world.run(rows, schedule(other), other_profile);
  EXPECT_NE(difference(other_profile, got, 128), "");
  // Two keys of one block that change places: the same sums in another order.
  World moved(shape, {1100});
  moved.cancel();
  for (int64_t d = 0; d < 128; ++d) {
    std::swap(moved.k(0)[64 * 128 + d], moved.k(0)[97 * 128 + d]);
    std::swap(moved.v(0)[64 * 128 + d], moved.v(0)[97 * 128 + d]);
  }
  std::vector<Token> some;
  for (int32_t i = 98; i < 400; i += 2) some.push_back({0, i + 1});  // 32 n keys: everything cancels
  Outputs same_rows;
  for (const Token& t : some) same_rows[t] = got.at(t);
  EXPECT_EQ(difference(on_gpu(world, some), same_rows, 128), "");
  EXPECT_NE(difference(on_gpu(moved, some), same_rows, 128), "");
}

TEST_P(AttentionCuda, PagesReadBackWhatWasWritten) {
  for (const int64_t head_dim : {8, 24, 64, 128}) {
    constexpr int64_t kPageSize = 48, kSlots = 3 * kPageSize;
    KvPages pages(cuda(), 3, kPageSize, 2, head_dim);
    const int64_t width = 2 * head_dim;
    std::vector<int64_t> slots = {5, 143, -1, 47, 48};
    std::vector<Bf16> k, v;
    for (const int64_t slot : slots)
      for (int64_t i = 0; i < width; ++i) {
        k.push_back(Bf16{static_cast<uint16_t>(slot * width + i + 1)});
        v.push_back(Bf16{static_cast<uint16_t>(~(slot * width + i))});
      }
    const DeviceArray<Bf16> keys(cuda(), k), values(cuda(), v);
    const DeviceArray<int64_t> where(cuda(), slots);
    pages.write(cuda(), static_cast<int64_t>(slots.size()), keys.data(), values.data(), width, where.data());
    for (const int64_t slot : {0, 4, 5, 46, 47, 48, 49, 142, 143}) {
      const bool written = std::find(slots.begin(), slots.end(), slot) != slots.end();
      for (int64_t i = 0; i < width; ++i) {
        ASSERT_EQ(pages.key(slot, i / head_dim, i % head_dim).bits, written ? static_cast<uint16_t>(slot * width + i + 1) : 0);
        ASSERT_EQ(pages.value(slot, i / head_dim, i % head_dim).bits, written ? static_cast<uint16_t>(~(slot * width + i)) : 0);
      }
    }
    ASSERT_LT(143, kSlots);
  }
}

}  // namespace
}  // namespace invar
