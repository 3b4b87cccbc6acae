// What preflight finds wrong, and what it measures, with ranks as threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "launch/preflight_facts.h"
#include "launch/preflight_links.h"

namespace invar::launch {
namespace {

using ::testing::HasSubstr;

std::vector<RankFacts> good(int ranks) {
  std::vector<RankFacts> all;
  for (int r = 0; r < ranks; ++r) {
    RankFacts f;
    f.rank = r;
    f.host = r % 2 == 0 ? "a" : "b";
    f.device = "cpu avx2, 1 threads";
    f.numerics_id = "N1";
    f.build_id = "B1";
    f.model = "M1";
    f.memlock_kib = -1;
    f.nofile = 4096;
    f.interfaces = {r % 2 == 0 ? "eth0 10.0.0.1" : "eth0 10.0.0.2"};
    all.push_back(f);
  }
  return all;
}

constexpr parallel::Layout kFour{.tp = 4, .pp = 1, .ep = 1, .dp = 1};

TEST(Compare, EqualRanksAreFine) { EXPECT_TRUE(compare(good(4), kFour).empty()); }

TEST(Compare, WhoDiffersIsNamed) {
  struct Case {
    const char* says;
    bool fatal;
    std::function<void(std::vector<RankFacts>&)> spoil;
  };
  const Case cases[] = {
      {"rank 2 on host a: model files M2, the others have M1", true, [](auto& f) { f[2].model = "M2"; }},
      {"rank 3 on host b: config.json is not there", true, [](auto& f) { f[3].model = "error: config.json is not there"; }},
      {"rank 1 on host b: build B2", true, [](auto& f) { f[1].build_id = "B2"; }},
      {"rank 0 on host a: numerics id N2", true, [](auto& f) { f[0].numerics_id = "N2"; }},
      {"rank 1 on host b: no GPU", true, [](auto& f) { f[1].device = "error: no GPU"; }},
      {"rank 0 on host a: --coordinator x:1: Connection refused", true,
       [](auto& f) { f[0].coordinator = "error: --coordinator x:1: Connection refused"; }},
      {"wants 4 ranks, 3 were started", true, [](auto& f) { f.pop_back(); }},
      {"hosts a and b both have docker0 172.17.0.1", false,
       [](auto& f) {
         for (RankFacts& r : f) r.interfaces.push_back("docker0 172.17.0.1");
       }},
      {"rank 1 on host b: ulimit -n is 256", false, [](auto& f) { f[1].nofile = 256; }},
      {"rank 1 on host b: its clock is -3.5 s off", false, [](auto& f) { f[1].clock_offset = -3.5; }},
  };
  for (const Case& c : cases) {
    std::vector<RankFacts> facts = good(4);
    c.spoil(facts);
    const std::vector<Finding> found = compare(facts, kFour);
    ASSERT_EQ(found.size(), 1u) << c.says;
    EXPECT_THAT(found[0].text, HasSubstr(c.says));
    EXPECT_EQ(found[0].fatal, c.fatal) << c.says;
  }
}

TEST(Facts, TravelAsText) {
  RankFacts f = good(1)[0];
  f.clock_offset = 0.25;
  f.memory_gib = 3.5;
  f.coordinator = "reached";
  const RankFacts back = nlohmann::json::parse(nlohmann::json(f).dump()).get<RankFacts>();
  EXPECT_EQ(nlohmann::json(back), nlohmann::json(f));
}

// Another size, another header, another tokenizer: another fingerprint. The bytes of the weights are a matter of --full.
TEST(Facts, TheFingerprintSeesWhatTheDigestWould) {
  const std::filesystem::path demo = std::filesystem::path(INVAR_SOURCE_DIR) / "configs/models/demo-dense";
  const std::filesystem::path copy = std::filesystem::temp_directory_path() / ("invar_preflight_" + std::to_string(getpid()));
  std::filesystem::create_directories(copy);
  for (const char* file : {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"})
    std::filesystem::copy_file(demo / file, copy / file, std::filesystem::copy_options::overwrite_existing);
  ModelFlags original, copied;
  original.model = demo.string();
  copied.model = copy.string();
  const std::string fingerprint = model_fingerprint(original, false);
  EXPECT_EQ(fingerprint.size(), 16u) << fingerprint;
  EXPECT_EQ(model_fingerprint(copied, false), fingerprint);
  const auto spoil = [&](const std::string& file, std::streamoff at) {
    std::fstream out(copy / file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(at, at < 0 ? std::ios::end : std::ios::beg);
    out.put(' ');
  };
  spoil("model.safetensors", -1);
  EXPECT_EQ(model_fingerprint(copied, false), fingerprint) << "this is what --full is for";
  EXPECT_NE(model_fingerprint(copied, true), model_fingerprint(original, true));
  std::ofstream(copy / "tokenizer.json", std::ios::app) << "\n";
  EXPECT_NE(model_fingerprint(copied, false), fingerprint);
  std::filesystem::resize_file(copy / "model.safetensors", 100000);
  EXPECT_THAT(model_fingerprint(copied, false), HasSubstr("error: "));
  std::filesystem::remove(copy / "config.json");
  EXPECT_THAT(model_fingerprint(copied, false), HasSubstr("error: "));
  std::filesystem::remove_all(copy);
  EXPECT_THAT(model_fingerprint(copied, false), HasSubstr(copy.string()));
}

// Collective over threads; what each rank threw.
std::vector<std::string> run(int ranks, const std::function<void(parallel::Transport&)>& work,
                             std::chrono::milliseconds timeout) {
  auto transports = parallel::start_threads(ranks, {.timeout = timeout});
  std::vector<std::string> thrown(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      try {
        work(*transports[static_cast<size_t>(r)]);
      } catch (const std::exception& e) {
        thrown[static_cast<size_t>(r)] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return thrown;
}

TEST(Links, EveryPairIsMeasured) {
  for (const int ranks : {1, 2, 3, 4, 5}) {
    LinkReport report;
    const auto thrown = run(
        ranks,
        [&](parallel::Transport& t) {
          LinkReport mine = measure_links(t);
          if (t.rank() == 0) report = std::move(mine);
        },
        std::chrono::seconds(20));
    for (const std::string& t : thrown) EXPECT_EQ(t, "");
    ASSERT_EQ(report.ranks, ranks);
    for (int a = 0; a < ranks; ++a) {
      EXPECT_LT(std::abs(report.clock_offsets[static_cast<size_t>(a)]), 0.5) << "one machine has one clock";
      for (int b = a + 1; b < ranks; ++b) {
        EXPECT_GT(report.pair(a, b).latency_us, 0) << a << " " << b << " of " << ranks;
        EXPECT_GT(report.pair(a, b).gigabytes_s, 0) << a << " " << b << " of " << ranks;
      }
    }
    const std::string text = to_text(report, std::vector<std::string>(static_cast<size_t>(ranks), "h"));
    EXPECT_THAT(text, HasSubstr(ranks == 1 ? "nothing to exchange" : "longest latency"));
  }
}

TEST(Links, ARankThatLeavesIsNamedWithThePhase) {
  const auto thrown = run(
      3,
      [](parallel::Transport& t) {
        if (t.rank() == 2) throw std::runtime_error("gone");
        measure_links(t);
      },
      std::chrono::milliseconds(300));
  EXPECT_EQ(thrown[2], "gone");
  EXPECT_THAT(thrown[0] + thrown[1], HasSubstr("rank 2"));
  EXPECT_THAT(thrown[0] + thrown[1], HasSubstr("before a round of pairs"));
}

}  // namespace
}  // namespace invar::launch
