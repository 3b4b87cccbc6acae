// The determinism matrix: the same requests under every arrangement give the same bits.
#include <gtest/gtest.h>

#include "support/arrangement.h"

namespace invar::tests {
namespace {

using parallel::Layout;

std::string label(std::string text) {
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

std::vector<Arrangement> layouts(bool moe) {
  std::vector<Layout> list;
  for (int tp = 2; tp <= 8; ++tp) list.push_back({.tp = tp});
  list.insert(list.end(),
              {{.pp = 2}, {.pp = 3}, {.pp = 4}, {.tp = 2, .pp = 2}, {.tp = 3, .pp = 2}, {.dp = 2}, {.tp = 2, .dp = 2}});
  if (moe)
    list.insert(list.end(), {{.ep = 2},
                             {.ep = 3},
                             {.ep = 4},
                             {.ep = 5},
                             {.ep = 8},
                             {.tp = 2, .ep = 2},
                             {.tp = 3, .ep = 2},
                             {.pp = 2, .ep = 2},
                             {.tp = 2, .pp = 2, .ep = 2}});
  std::vector<Arrangement> all;
  for (const Layout& l : list) {
    Arrangement a{.name = parallel::to_string(l), .layout = l};
    all.push_back(a);
  }
  return all;
}

std::vector<Arrangement> schedules() {
  std::vector<Arrangement> all;
  const auto add = [&](Arrangement a) { all.push_back(std::move(a)); };
  for (const int64_t chunk : {1, 16, 17, 511})
    add({.name = "chunks of " + std::to_string(chunk), .long_prefill_token_threshold = chunk});
  add({.name = "small steps", .max_num_seqs = 2, .max_num_batched_tokens = 19});
  for (const int64_t page : {32, 64, 128})
    add({.name = "pages of " + std::to_string(page), .page_size = page, .pages = 8192 / page});
  add({.name = "one by one", .one_by_one = true});
  for (const uint64_t order : {1, 2, 3}) add({.name = "order " + std::to_string(order), .order = order});
  add({.name = "company 24", .company = 24, .order = 4});
  add({.name = "company 40 with cancels", .company = 40, .cancelled = 20, .order = 5});
  add({.name = "cold without cache", .prefix_caching = false});
  add({.name = "partial cache", .warm = Arrangement::Warm::kPartial});
  add({.name = "hot cache", .warm = Arrangement::Warm::kHot});
  add({.name = "hot cache chunks of 17", .long_prefill_token_threshold = 17, .warm = Arrangement::Warm::kHot});
  add({.name = "preemption", .pages = 40, .company = 30, .order = 6});
  add({.name = "preemption tp3", .layout = {.tp = 3}, .pages = 40, .company = 30, .order = 6});
  add({.name = "one plan in flight", .plans_in_flight = 1});
  add({.name = "four plans in flight", .plans_in_flight = 4, .company = 10});
  add({.name = "three threads", .threads = 3});
  add({.name = "avx2", .isa = Isa::kAvx2});
  add({.name = "delays tp3 pp2", .layout = {.tp = 3, .pp = 2}, .company = 6, .order = 7, .delay_seed = 11});
  add({.name = "delays tp2 dp2", .layout = {.tp = 2, .dp = 2}, .company = 6, .order = 8, .delay_seed = 12});
  return all;
}

struct Case {
  std::string model;
  Profile profile;
  Arrangement arrangement;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " " << c.arrangement; }

class Determinism : public testing::TestWithParam<Case> {};

const Answers& baseline(const std::string& model, Profile profile, int64_t longest) {
  static std::map<std::pair<std::string, Profile>, Answers> known;
  auto& slot = known[{model, profile}];
  if (slot.empty()) {
    const Model& m = Model::get(model);
    slot = ask(m, {.name = "baseline", .profile = profile}, mixed_requests(m.loaded().config.vocab_size, longest)).answers;
  }
  return slot;
}

TEST_P(Determinism, SameBits) {
  Case c = GetParam();
  std::string model = c.model;
  if (model == "stories260K") {
    if (!has_shared_material()) GTEST_SKIP() << "stories260K is not beside this checkout (../shared/models)";
    model = std::filesystem::canonical(shared_material() / "models" / "stories260K" / "hf").string();
  }
  const int64_t longest = c.profile == Profile::kTc ? 130 : 600;
  const int64_t length = model == c.model ? longest : std::min<int64_t>(longest, 400);  // stories260K has 512 positions
  const Model& m = Model::get(model);
  c.arrangement.profile = c.profile;
  const Outcome run = ask(m, c.arrangement, mixed_requests(m.loaded().config.vocab_size, length));
  const Answers& expected = baseline(model, c.profile, length);
  ASSERT_EQ(run.answers.size(), expected.size());
  for (const auto& [name, answer] : expected) {
    ASSERT_FALSE(answer.digest.empty());
    EXPECT_EQ(run.answers.at(name), answer) << name << " under " << c.arrangement.name;
  }
  if (c.arrangement.name.rfind("preemption", 0) == 0) {
    EXPECT_GT(run.stats.preemptions, 0u) << "the arrangement did not preempt";
  }
  if (c.arrangement.warm == Arrangement::Warm::kHot) {
    EXPECT_GT(run.stats.cached_tokens, 0u) << "the cache was not hit";
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"demo-moe", "demo-dense", "stories260K"}) {
    const bool moe = std::string(model) == "demo-moe";
    for (const Arrangement& a : layouts(moe)) {
      if (std::string(model) == "stories260K" && a.layout.tp * a.layout.pp * a.layout.dp > 4 && a.layout.tp < 5) continue;
      all.push_back({model, Profile::kPortable, a});
    }
    for (const Arrangement& a : schedules()) all.push_back({model, Profile::kPortable, a});
  }
  // The tensor-core rule on the layouts and schedules that cut K, keys and batches differently.
  for (const Arrangement& a : layouts(true))
    if (a.layout.dp == 1) all.push_back({"demo-moe", Profile::kTc, a});
  for (const Arrangement& a : schedules())
    if (a.company == 0 || a.pages < 100) all.push_back({"demo-dense", Profile::kTc, a});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Matrix, Determinism, testing::ValuesIn(cases()), [](const auto& info) {
  return label(info.param.model + " " + std::string(name(info.param.profile)) + " " + info.param.arrangement.name);
});

}  // namespace
}  // namespace invar::tests
