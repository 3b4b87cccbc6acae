// Against Hugging Face transformers and llama2.c: logits within a tolerance, tokens for as long as the margin exceeds it.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/arrangement.h"

namespace invar::tests {
namespace {

// A bf16 run of these models differs from the fp32 reference by rounding alone; measured largest difference of a logit: see the
// printed line of each test. The tolerance is for differences between two logits.
constexpr double kTolerance = 0.35;

struct Reference {
  std::vector<int32_t> prompt, greedy;
  std::vector<int32_t> top_ids;
  std::vector<double> top_logits;
};

struct Followed {
  std::vector<int32_t> tokens;
  std::vector<std::vector<std::pair<int32_t, double>>> top;  // per token, likeliest first
};

// Teacher-forces the reference continuation, so that one near-tie does not end the comparison.
std::vector<Followed> follow(const Model& model, const std::vector<Reference>& references) {
  std::vector<v1::GenerateRequest> requests;
  for (size_t i = 0; i < references.size(); ++i) {
    v1::GenerateRequest& r = requests.emplace_back();
    r.set_request_id(std::to_string(i));
    for (const int32_t t : references[i].prompt) r.mutable_prompt_token_ids()->add_ids(t);
    for (const int32_t t : references[i].greedy) r.mutable_forced_token_ids()->add_ids(t);
    r.mutable_sampling_params()->set_temperature(0);
    r.mutable_sampling_params()->set_logprobs(5);
  }
  std::vector<Followed> out(references.size());
  RankOptions rank;
  rank.pages = 1024;
  rank.device.threads = 2;
  std::vector<std::unique_ptr<Executor>> replicas;
  replicas.push_back(*LocalExecutor::start(model.loaded(), model.digest(), {rank}, {}));
  auto engine = *Engine::start({}, model.loaded().config, model.tokenizer(), std::move(replicas));
  std::mutex mutex;
  std::condition_variable changed;
  size_t done = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto id = engine->submit(requests[i], [&, i](const absl::Status& status, const v1::GenerateResponse* response) {
      const std::lock_guard lock(mutex);
      if (status.ok())
        for (const v1::ChoiceDelta& d : response->choices()) {
          out[i].tokens.insert(out[i].tokens.end(), d.draws().begin(), d.draws().end());
          for (const auto& l : d.logprobs()) {
            auto& top = out[i].top.emplace_back();
            for (const auto& t : l.top()) top.emplace_back(t.token_id(), t.logprob());
          }
        }
      if (!status.ok() || response->finished()) {
        ++done;
        changed.notify_all();
      }
    });
    EXPECT_TRUE(id.ok()) << id.status();
    if (!id.ok()) ++done;
  }
  std::unique_lock lock(mutex);
  changed.wait_for(lock, std::chrono::minutes(2), [&] { return done == requests.size(); });
  return out;
}

void check(const std::string& model_path, const std::vector<Reference>& references, double tolerance) {
  const Model& model = Model::get(model_path);
  const auto answers = follow(model, references);
  double worst = 0;
  int compared = 0, equal = 0, near_ties = 0;
  for (size_t i = 0; i < references.size(); ++i) {
    const Reference& r = references[i];
    const Followed& f = answers[i];
    ASSERT_EQ(f.tokens.size(), r.greedy.size()) << "prompt " << i;
    if (!r.top_ids.empty())
      for (size_t j = 1; j < r.top_ids.size(); ++j) {
        const auto find = [&](int32_t id) {
          for (const auto& [token, logprob] : f.top[0])
            if (token == id) return logprob;
          return std::nan("");
        };
        const double ours = find(r.top_ids[j]) - find(r.top_ids[0]);
        const double theirs = r.top_logits[j] - r.top_logits[0];
        if (std::isnan(ours)) {  // pushed out of our five by a near-tie for the fifth place
          EXPECT_LT(std::abs(r.top_logits[j] - r.top_logits.back()), tolerance) << "prompt " << i << " token " << r.top_ids[j];
          continue;
        }
        worst = std::max(worst, std::abs(ours - theirs));
        EXPECT_NEAR(ours, theirs, tolerance) << "prompt " << i << " token " << r.top_ids[j];
      }
    for (size_t p = 0; p < r.greedy.size(); ++p) {
      ++compared;
      const double margin = f.top[p][0].second - f.top[p][1].second;
      if (f.tokens[p] == r.greedy[p])
        ++equal;
      else {
        ++near_ties;
        EXPECT_LT(margin, tolerance) << "prompt " << i << " position " << p << ": " << f.tokens[p] << " instead of "
                                     << r.greedy[p];
      }
    }
  }
  std::printf("%s: largest difference of two logits %.4f, %d of %d tokens equal, %d near-ties\n", model_path.c_str(), worst,
              equal, compared, near_ties);
  EXPECT_GT(equal, compared * 9 / 10);
}

std::vector<Reference> read_reference(const std::filesystem::path& file, const char* prompt, const char* greedy) {
  std::vector<Reference> out;
  for (const auto& row : nlohmann::json::parse(std::ifstream(file))) {
    Reference r;
    r.prompt = row.at(prompt).get<std::vector<int32_t>>();
    r.greedy = row.at(greedy).get<std::vector<int32_t>>();
    if (row.contains("top5_ids")) {
      r.top_ids = row["top5_ids"].get<std::vector<int32_t>>();
      r.top_logits = row["top5_logits"].get<std::vector<double>>();
    }
    out.push_back(std::move(r));
  }
  return out;
}

TEST(Reference, DemoDense) {
  const auto folder = std::filesystem::path(INVAR_SOURCE_DIR) / "configs/models/demo-dense";
  check("demo-dense", read_reference(folder / "reference.json", "prompt_ids", "greedy_fp32"), kTolerance);
}

TEST(Reference, DemoMoe) {
  const auto folder = std::filesystem::path(INVAR_SOURCE_DIR) / "configs/models/demo-moe";
  check("demo-moe", read_reference(folder / "reference.json", "prompt_ids", "greedy_fp32"), kTolerance);
}

TEST(Reference, Stories260K) {
  if (!has_shared_material()) GTEST_SKIP() << "stories260K is not beside this checkout (../shared/models)";
  const auto folder = std::filesystem::canonical(shared_material() / "models" / "stories260K");
  check((folder / "hf").string(), read_reference(folder / "greedy.json", "prompt_ids", "greedy_ids"), kTolerance);
}

}  // namespace
}  // namespace invar::tests
