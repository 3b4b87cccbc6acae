#include "rpc/worker_link/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "rpc/worker_link/hello.h"

namespace invar::rpc {
namespace {

using ::testing::HasSubstr;

constexpr parallel::Layout kLayout{.tp = 2, .pp = 2, .ep = 1, .dp = 2};

v1::Hello good_hello() {
  ReplicaFacts facts;
  facts.pages_per_home = 64;
  facts.max_positions = 1024;
  facts.vocab_size = 512;
  facts.layout = "tp2 pp2 ep1";
  std::vector<RankReport> reports;
  for (int r = 4; r < 8; ++r) reports.push_back({r, r < 6 ? "h0" : "h1", 100 + r, "cpu", "N1", "D1", "B1", 1000, 2000});
  return make_hello(1, kLayout, facts, reports);
}

Expected expected() { return {kLayout, "B1", "N1", "D1"}; }

TEST(Admission, TakesAGoodHello) {
  EXPECT_TRUE(check_hello(good_hello(), expected()).ok()) << check_hello(good_hello(), expected());
  EXPECT_TRUE(check_hello(good_hello(), {kLayout, "", "", ""}).ok());
}

struct Refusal {
  const char* name;
  std::function<void(v1::Hello&)> spoil;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Refusal& refusal, std::ostream* os) { *os << refusal.name; }

class Refuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refuses, ByName) {
  v1::Hello hello = good_hello();
  GetParam().spoil(hello);
  const absl::Status status = check_hello(hello, expected());
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    Admission, Refuses,
    ::testing::Values(
        Refusal{"numerics_id", [](v1::Hello& h) { h.mutable_ranks(3)->set_numerics_id("N2"); }, kPrecondition,
                "rank 7 on host h1: numerics id N2, expected N1"},
        Refusal{"numerics_id_twice",
                [](v1::Hello& h) {
                  h.mutable_ranks(2)->set_numerics_id("N2");
                  h.mutable_ranks(3)->set_numerics_id("N3");
                },
                kPrecondition, "rank 6 on host h1: numerics id N2, expected N1 (and 1 more ranks)"},
        Refusal{"model_digest", [](v1::Hello& h) { h.mutable_ranks(0)->set_model_digest("D2"); }, kPrecondition,
                "rank 4 on host h0: model digest D2, expected D1"},
        Refusal{"build", [](v1::Hello& h) { h.mutable_ranks(1)->set_build_id("B2"); }, kPrecondition,
                "rank 5 on host h0: build B2, expected B1"},
        Refusal{"build_with_control_bytes", [](v1::Hello& h) { h.mutable_ranks(1)->set_build_id("\x1b[2J"); }, kPrecondition,
                "build \\x1b[2J, expected B1"},
        Refusal{"layout", [](v1::Hello& h) { h.mutable_layout()->set_tensor_parallel(4); }, kPrecondition,
                "replica 1 (rank 4 on host h0): layout tp4 pp2 ep1 dp2, expected tp2 pp2 ep1 dp2"},
        Refusal{"replica_index", [](v1::Hello& h) { h.set_replica(2); }, kPrecondition,
                "replica index out of range, expected 0 .. 1"},
        Refusal{"no_ranks", [](v1::Hello& h) { h.clear_ranks(); }, kInvalid, "no ranks named"},
        Refusal{"too_few_ranks", [](v1::Hello& h) { h.mutable_ranks()->RemoveLast(); }, kInvalid, "3 ranks named, layout"},
        Refusal{"rank_twice", [](v1::Hello& h) { h.mutable_ranks(3)->set_rank(4); }, kInvalid, "rank 4 is named twice"},
        Refusal{"long_host", [](v1::Hello& h) { h.mutable_ranks(2)->set_host(std::string(257, 'h')); }, kInvalid,
                "257 bytes, limit 256"},
        Refusal{"homes", [](v1::Hello& h) { h.mutable_capacity()->set_homes(2); }, kInvalid, "homes 2, expected 1"},
        Refusal{"no_pages", [](v1::Hello& h) { h.mutable_capacity()->set_pages_per_home(0); }, kInvalid, "pages_per_home 0"},
        Refusal{"too_many_pages", [](v1::Hello& h) { h.mutable_capacity()->set_pages_per_home(~0ull); }, kInvalid,
                "pages_per_home"},
        Refusal{"page_size", [](v1::Hello& h) { h.mutable_capacity()->set_page_size(0); }, kInvalid, "page_size 0"},
        Refusal{"max_positions", [](v1::Hello& h) { h.mutable_capacity()->set_max_positions(0); }, kInvalid, "max_positions 0"},
        Refusal{"vocab_size", [](v1::Hello& h) { h.mutable_capacity()->set_vocab_size(0); }, kInvalid, "vocab_size 0"}),
    [](const auto& info) { return info.param.name; });

TEST(Admission, RanksThatDifferAmongThemselvesAreRefusedWhereAnyValueWouldDo) {
  v1::Hello hello = good_hello();
  hello.mutable_ranks(3)->set_numerics_id("N2");
  const absl::Status status = check_hello(hello, {kLayout, "", "", ""});
  EXPECT_EQ(status.code(), kPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 7 on host h1: numerics id N2, expected N1"));
}

TEST(Admission, FactsSurviveTheWire) {
  ReplicaFacts facts;
  facts.homes = 3;
  facts.pages_per_home = 77;
  facts.page_size = 32;
  facts.max_positions = 4096;
  facts.vocab_size = 49152;
  facts.layout = "tp1 pp1 ep3";
  const RankReport report{7, "h", 9, "cpu", "N", "D", "B", 11, 13};
  const v1::Hello hello = make_hello(2, {.tp = 1, .pp = 1, .ep = 3, .dp = 4}, facts, {report, report, report});
  EXPECT_EQ(layout_name(hello.layout()), "tp1 pp1 ep3 dp4");
  const ReplicaFacts back = to_facts(hello);
  EXPECT_EQ(back.homes, 3);
  EXPECT_EQ(back.pages_per_home, 77);
  EXPECT_EQ(back.page_size, 32);
  EXPECT_EQ(back.max_positions, 4096);
  EXPECT_EQ(back.vocab_size, 49152);
  EXPECT_EQ(back.layout, "tp1 pp1 ep3");
  EXPECT_EQ(back.numerics_id, "N");
  EXPECT_EQ(back.model_digest, "D");
  EXPECT_EQ(back.ranks, 3);
  const v1::ReplicaInfo info = to_info(hello, "ipv4:1.2.3.4:5");
  EXPECT_EQ(info.replica(), 2u);
  EXPECT_EQ(info.ranks(2).rank(), 7u);
  EXPECT_EQ(info.ranks(2).pid(), 9u);
  EXPECT_EQ(info.ranks(2).weight_bytes(), 11u);
  EXPECT_EQ(info.ranks(2).kv_bytes(), 13u);
}

}  // namespace
}  // namespace invar::rpc
