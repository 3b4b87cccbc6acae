// Traces of honest runs on different layouts are equal; a broken contract is named down to the element.
#include <gtest/gtest.h>
#include <unistd.h>

#include "runtime/trace/diff.h"
#include "support/arrangement.h"

namespace invar::tests {
namespace {

class Trace : public testing::Test {
 protected:
  Trace() : folder_(std::filesystem::temp_directory_path() / ("invar-trace-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~Trace() override { std::filesystem::remove_all(folder_); }

  std::string record(const std::string& name, Arrangement a) {
    const Model& model = Model::get("demo-moe");
    a.trace = (folder_ / name).string();
    a.prefix_caching = false;  // a cached position is not computed, hence not in the trace
    std::vector<v1::GenerateRequest> requests = mixed_requests(model.loaded().config.vocab_size, 30);
    requests.resize(3);
    ask(model, a, requests);
    return a.trace;
  }
  std::filesystem::path folder_;
};

TEST_F(Trace, EqualOnEveryLayout) {
  const std::string one = record("one", {});
  for (const parallel::Layout& layout : {parallel::Layout{.tp = 3}, {.pp = 2}, {.ep = 3}, {.tp = 2, .pp = 2, .ep = 2}}) {
    const auto c =
        compare_traces(one, record(parallel::to_string(layout), {.layout = layout, .long_prefill_token_threshold = 11}));
    ASSERT_TRUE(c.ok()) << c.status();
    EXPECT_FALSE(c->first.has_value()) << describe(*c);
    EXPECT_GT(c->tokens, 60u);
    EXPECT_GT(c->operators, 60u * 4 * 14);
    EXPECT_EQ(c->only_in_a + c->only_in_b, 0u);
  }
}

TEST_F(Trace, NamesTheFirstOperatorAndElement) {
  const auto c = compare_traces(record("honest", {}), record("swapped", {.arm = ControlArm::kSwappedGroups}));
  ASSERT_TRUE(c.ok()) << c.status();
  ASSERT_TRUE(c->first.has_value());
  // Embedding and first norm add nothing in groups; the first linear can differ, and the router's, which stays fp32, must.
  EXPECT_EQ(c->first->layer, 0) << describe(*c);
  EXPECT_GE(c->first->kind, v1::QUERY) << describe(*c);
  EXPECT_LE(c->first->kind, v1::ROUTER_LOGITS) << describe(*c);
  ASSERT_TRUE(c->first->element.has_value());
  EXPECT_NE(c->first->element->bits_a, c->first->element->bits_b);
}

TEST_F(Trace, RankOrderSumFirstShowsInARowParallelLinear) {
  const auto c = compare_traces(record("tree", {.layout = {.tp = 4}}),
                                record("ranks", {.layout = {.tp = 4}, .arm = ControlArm::kRankOrderAllReduce}));
  ASSERT_TRUE(c.ok()) << c.status();
  ASSERT_TRUE(c->first.has_value());
  EXPECT_TRUE(c->first->kind == v1::ATTENTION_OUTPUT || c->first->kind == v1::EXPERT_OUTPUT) << describe(*c);
}

TEST_F(Trace, MissingTraceSaysSo) {
  EXPECT_EQ(compare_traces((folder_ / "nothing").string(), (folder_ / "nothing").string()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace invar::tests
