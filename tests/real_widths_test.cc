// Layers as wide as those of real models, few of them, with random weights, and prompts of a thousand tokens: which schedules a
// GPU takes depends on widths and rows, and small models never meet most of them. Whatever the tests' device is, its bits are
// those of one rank on the CPU that takes the prompts in small steps.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"
#include "support/arrangement.h"

namespace invar::tests {
namespace {

// From the models' config.json on Hugging Face, but the vocabulary, whose halves end within 16 bytes.
struct Widths {
  const char* name;
  const char* family;  // of config.json's architecture, before ForCausalLM
  int hidden, intermediate;
  struct {
    int query, kv, size;
  } heads;
  int layers = 1, vocab = 1028;
  const char* more = "";  // keys
  std::vector<parallel::Layout> layouts;
  bool big = false;  // gigabytes of weights: minutes on a few cores
};
void PrintTo(const Widths& w, std::ostream* out) { *out << w.name; }

constexpr const char* kTied = R"(, "tie_word_embeddings": true)";
constexpr const char* k16Experts =
    R"(, "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 768, "norm_topk_prob": true)";
constexpr const char* k128Experts =
    R"(, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": true)";
constexpr const char* k8Experts = R"(, "num_local_experts": 8, "num_experts_per_tok": 2)";

const Widths kWidths[] = {
    {"smollm2_135m", "Llama", 576, 1536, {9, 3, 64}, 2, 1028, "", {{.tp = 2}, {.tp = 5}, {.tp = 8}, {.pp = 2}}},
    {"qwen2_5_0_5b", "Qwen2", 896, 4864, {14, 2, 64}, 1, 1028, "", {{.tp = 2}, {.tp = 7}}},
    {"qwen3_0_6b", "Qwen3", 1024, 3072, {16, 8, 128}, 2, 151936, kTied, {{.tp = 2}, {.tp = 3}, {.tp = 8}, {.tp = 2, .pp = 2}}},
    {"odd_heads_and_words", "Qwen3", 1160, 2952, {10, 5, 96}, 1, 50257, "", {{.tp = 2}, {.tp = 5}}},
    {"qwen2_5_1_5b", "Qwen2", 1536, 8960, {12, 2, 128}, 1, 1028, "", {{.tp = 2}, {.tp = 6}}},
    {"llama_3_2_1b", "Llama", 2048, 8192, {32, 8, 64}, 1, 1028, "", {{.tp = 2}, {.tp = 4}, {.tp = 8}}},
    {"qwen3_4b", "Qwen3", 2560, 9728, {32, 8, 128}, 1, 1028, "", {{.tp = 2}, {.tp = 4}}},
    {"qwen3_8b", "Qwen3", 4096, 12288, {32, 8, 128}, 1, 1028, "", {{.tp = 2}, {.tp = 4}, {.tp = 8}}, true},
    {"llama_3_1_70b", "Llama", 8192, 28672, {64, 8, 128}, 1, 1028, "", {{.tp = 2}, {.tp = 4}, {.tp = 8}}, true},
    {"qwen3_moe_16_experts", "Qwen3Moe", 2048, 6144, {32, 4, 128}, 1, 1028, k16Experts, {{.ep = 3}, {.tp = 2, .ep = 2}}},
    {"qwen3_30b_a3b", "Qwen3Moe", 2048, 6144, {32, 4, 128}, 1, 1028, k128Experts, {{.tp = 2}, {.ep = 2}, {.ep = 5}}, true},
    {"mixtral_quarter", "Mixtral", 1024, 3584, {8, 2, 128}, 2, 1028, k8Experts, {{.tp = 2}, {.tp = 3}, {.ep = 4}}},
    {"mixtral_8x7b", "Mixtral", 4096, 14336, {32, 8, 128}, 1, 1028, k8Experts, {{.tp = 2}, {.ep = 2}}, true},
};

std::string config_of(const Widths& w) {
  std::string type = absl::AsciiStrToLower(w.family);
  if (type == "qwen3moe") type = "qwen3_moe";
  return absl::Substitute(
      R"({"architectures": ["$0ForCausalLM"], "model_type": "$1", "hidden_size": $2, "intermediate_size": $3,
          "num_hidden_layers": $4, "num_attention_heads": $5, "num_key_value_heads": $6, "head_dim": $7, "vocab_size": $8, $9})",
      w.family, type, w.hidden, w.intermediate, w.layers, w.heads.query, w.heads.kv, w.heads.size, w.vocab,
      absl::StrCat(R"("hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0)",
                   w.more));
}

class RealWidths : public testing::TestWithParam<Widths> {};

// One rank on the CPU, whatever device the tests have.
Arrangement reference_of(Profile profile) {
  return {.name = "reference",
          .on = Backend::kCpu,
          .profile = profile,
          .threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
}

TEST_P(RealWidths, TheCpusBitsOnEveryDevice) {
  const Widths& widths = GetParam();
  if (widths.big && backend() == Backend::kCpu) GTEST_SKIP() << "gigabytes of weights: with --device=cuda";
  const auto model = Model::dummy(config_of(widths));
  auto requests = mixed_requests(widths.vocab, 1100);
  requests.push_back(requests.front());  // and more rows of logits than a decode step has
  requests.back().set_request_id("many-logits");
  for (int i = 0; i < 150; ++i) requests.back().mutable_prompt_token_ids()->add_ids((i * i * 7 + 11) % 1000 + 3);
  requests.back().mutable_sampling_params()->set_prompt_logprobs(1);
  for (const Profile profile : {Profile::kTc, Profile::kPortable}) {
    const Arrangement one{.name = "one rank", .profile = profile, .threads = 2};
    Arrangement reference = reference_of(profile);
    reference.max_num_batched_tokens = 48;
    const Answers expected = ask(*model, reference, requests).answers;
    std::vector<Arrangement> all = {one};
    for (const int64_t tokens : {100, 513}) {
      all.push_back(one);
      all.back().name = absl::StrCat("steps of ", tokens);
      all.back().max_num_batched_tokens = tokens;
    }
    for (const parallel::Layout& layout : widths.layouts) {
      if (backend() == Backend::kCpu && all.size() == 4) break;  // schedules hardly depend on widths there
      all.push_back(one);
      all.back().name = parallel::to_string(layout);
      all.back().layout = layout;
    }
    for (const Arrangement& a : all) EXPECT_EQ(ask(*model, a, requests).answers, expected) << name(profile) << ", " << a.name;
    Arrangement control = reference;
    control.arm = ControlArm::kSwappedGroups;
    EXPECT_NE(ask(*model, control, requests).answers.at("greedy-long/0").logits_hashes,
              expected.at("greedy-long/0").logits_hashes);
  }
}

// Steps of more sequences than a decode step's own kernels take: those of many rows, a row a sequence.
TEST(RealWidthsOfManySequences, TheCpusBitsOnEveryDevice) {
  const Widths& widths = kWidths[0];
  const auto model = Model::dummy(config_of(widths));
  std::vector<v1::GenerateRequest> requests;
  for (uint64_t seed = 1; seed <= 24; ++seed)
    for (v1::GenerateRequest& request : mixed_requests(widths.vocab, 20 + static_cast<int64_t>(seed), seed)) {
      request.set_request_id(absl::StrCat(request.request_id(), "-", seed));
      requests.push_back(std::move(request));
    }
  for (const Profile profile : {Profile::kTc, Profile::kPortable}) {
    Arrangement few = reference_of(profile);
    few.pages = 2048;
    few.max_num_seqs = 4;
    const Answers expected = ask(*model, few, requests).answers;
    Arrangement many{.name = "many", .profile = profile, .threads = 2, .pages = 2048, .max_num_seqs = 256};
    for (const int tp : {1, 2, 3}) {
      many.layout.tp = tp;
      EXPECT_EQ(ask(*model, many, requests).answers, expected) << name(profile) << ", tp " << tp;
    }
    many.layout.tp = 1;
    many.arm = ControlArm::kSwappedGroups;
    EXPECT_NE(ask(*model, many, requests).answers.at("greedy-long-1/0").logits_hashes,
              expected.at("greedy-long-1/0").logits_hashes);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RealWidths, testing::ValuesIn(kWidths),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace invar::tests
