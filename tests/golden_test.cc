// Golden digests: what the contract gives for the demo models, recorded once and checked on every machine. Made anew by
// tests/golden/regenerate when the contract's version moves, never by hand.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/receipt/numerics_id.h"
#include "support/arrangement.h"

namespace invar::tests {
namespace {

const std::filesystem::path kFile = std::filesystem::path(INVAR_SOURCE_DIR) / "tests" / "golden" / "digests.json";

// Head size, grouped queries and experts of real models, on random weights: what a GPU's fast schedules take.
constexpr const char* kHeads = R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 512,
  "intermediate_size": 1024, "moe_intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true,
  "num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 2048,
  "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": false,
  "hidden_act": "silu", "torch_dtype": "bfloat16"})";

// Inputs of several leaves of the tc profile, the last one short, and biases: what the models above are too narrow for.
constexpr const char* kWide = R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 4224,
  "intermediate_size": 768, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128,
  "vocab_size": 512, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
  "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": "bfloat16"})";

const Model& model_of(const std::string& name) {
  static const std::unique_ptr<Model> heads = Model::dummy(kHeads), wide = Model::dummy(kWide);
  return name == "heads-128" ? *heads : name == "wide-4224" ? *wide : Model::get(name);
}

nlohmann::json compute() {
  nlohmann::json all;
  for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
    const std::string id = numerics_id(profile);
    for (const char* name : {"demo-dense", "demo-moe", "heads-128", "wide-4224"}) {
      const Model& model = model_of(name);
      const Outcome run =
          ask(model, {.name = "golden", .profile = profile}, mixed_requests(model.loaded().config.vocab_size, 150, 5));
      auto& entry = all[id][name];
      entry["model_digest"] = model.digest();
      for (const auto& [request, answer] : run.answers) entry["responses"][request] = answer.digest;
    }
  }
  return all;
}

TEST(Golden, DigestsAreThoseRecorded) {
  const nlohmann::json now = compute();
  std::ifstream in(kFile);
  ASSERT_TRUE(in) << kFile << " is missing; make it with tests/golden/regenerate BUILD_FOLDER";
  const nlohmann::json recorded = nlohmann::json::parse(in);
  EXPECT_EQ(now, recorded) << nlohmann::json::diff(recorded, now).dump(1)
                           << "\nIf the contract was changed on purpose, raise kContractVersion and run tests/golden/regenerate.";
}

TEST(Golden, AnotherRequestHasAnotherDigest) {
  const Model& model = Model::get("demo-dense");
  const auto requests = mixed_requests(model.loaded().config.vocab_size, 150, 6);
  const Outcome run = ask(model, {.name = "golden"}, requests);
  const nlohmann::json recorded = nlohmann::json::parse(std::ifstream(kFile));
  const std::string id = numerics_id(Profile::kPortable);
  ASSERT_TRUE(recorded.contains(id)) << kFile << " has nothing of " << id << ": see the test above";
  for (const auto& [request, answer] : run.answers)
    EXPECT_NE(recorded.at(id).at("demo-dense").at("responses").at(request), answer.digest) << request;
}

}  // namespace

// With --write-golden the program records instead of testing, on the device of --device.
int write_golden() {
  std::ofstream out(kFile);
  out << compute().dump(1) << "\n";
  return out ? 0 : 1;
}

}  // namespace invar::tests

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!invar::tests::take_device_flag(&argc, argv)) return 2;
  if (argc == 2 && std::string(argv[1]) == "--write-golden") return invar::tests::write_golden();
  return RUN_ALL_TESTS();
}
