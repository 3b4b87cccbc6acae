#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/model_config/weight_names.h"
#include "runtime/weights/model_digest.h"
#include "runtime/weights/weight_source.h"

namespace invar {
namespace {

using testing::HasSubstr;

constexpr const char* kConfig =
    R"({"architectures":["Qwen3MoeForCausalLM"],"vocab_size":97,"hidden_size":48,"intermediate_size":80,
  "moe_intermediate_size":40,"num_experts":5,"num_experts_per_tok":2,"num_hidden_layers":3,"num_attention_heads":6,
  "num_key_value_heads":3,"head_dim":16,"max_position_embeddings":64,"rms_norm_eps":1e-5,"mlp_only_layers":[1],
  "attention_bias":true})";

std::vector<Bf16> whole(const WeightSource& weights, std::string_view name) {
  const std::vector<int64_t> shape = weights.shape(name);
  const int64_t cols = shape.size() == 2 ? shape[1] : 1;
  std::vector<Bf16> out(shape.at(0) * cols);
  EXPECT_TRUE(weights.read_rows(name, 0, shape[0], 0, cols, out.data(), cols).ok());
  return out;
}

bool equal(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Bf16)) == 0;
}

TEST(DummyWeights, HasTheModelsTensors) {
  const ModelConfig config = *parse_model_config(kConfig, "");
  const auto weights = make_dummy_weights(config, 1);
  int64_t bytes = 0;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    EXPECT_EQ(weights->shape(tensor.name), tensor.shape);
    bytes += 2 * static_cast<int64_t>(whole(*weights, tensor.name).size());
  }
  EXPECT_EQ(weights->total_bytes(), bytes);
  Bf16 out;
  EXPECT_THAT(std::string(weights->read_rows("nothing", 0, 1, 0, 1, &out, 1).message()), HasSubstr("no such tensor"));
  EXPECT_THAT(std::string(weights->read_rows("model.norm.weight", 47, 2, 0, 1, &out, 1).message()), HasSubstr("2 rows from 47"));
}

TEST(DummyWeights, AnElementDoesNotDependOnTheSlice) {
  const ModelConfig config = *parse_model_config(kConfig, "");
  const auto weights = make_dummy_weights(config, 42);
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    const std::vector<Bf16> all = whole(*weights, tensor.name);
    const int64_t rows = tensor.shape[0], cols = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
    std::vector<Bf16> pieced(all.size());
    // Uneven tiles, as ranks with shards of different sizes would ask for.
    for (int64_t row0 = 0; row0 < rows; row0 += 7) {
      for (int64_t col0 = 0; col0 < cols; col0 += 11) {
        ASSERT_TRUE(weights
                        ->read_rows(tensor.name, row0, std::min<int64_t>(7, rows - row0), col0,
                                    std::min<int64_t>(11, cols - col0), &pieced[row0 * cols + col0], cols)
                        .ok());
      }
    }
    ASSERT_TRUE(equal(all, pieced)) << tensor.name;
  }
}

TEST(DummyWeights, SeedAndNameDecide) {
  const ModelConfig config = *parse_model_config(kConfig, "");
  const auto a = make_dummy_weights(config, 1), again = make_dummy_weights(config, 1), b = make_dummy_weights(config, 2);
  const std::string q0 = "model.layers.0.self_attn.q_proj.weight", q1 = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_TRUE(equal(whole(*a, q0), whole(*again, q0)));
  EXPECT_FALSE(equal(whole(*a, q0), whole(*b, q0)));
  EXPECT_FALSE(equal(whole(*a, q0), whole(*a, q1)));
  // A tensor does not change when the model around it does.
  ModelConfig taller = config;
  taller.num_layers = 4;
  taller.sliding_layers.push_back(false);
  taller.moe_layer.push_back(true);
  EXPECT_TRUE(equal(whole(*a, q0), whole(*make_dummy_weights(taller, 1), q0)));

  const ModelDocuments documents = {.config_json = kConfig};
  EXPECT_EQ(*model_digest(documents, *a), *model_digest(documents, *again));
  EXPECT_NE(*model_digest(documents, *a), *model_digest(documents, *b));
}

TEST(DummyWeights, ValuesAreFiniteAndOfASensibleScale) {
  const ModelConfig config = *parse_model_config(kConfig, "");
  const auto weights = make_dummy_weights(config, 3);
  const auto moments = [&](std::string_view name) {
    double sum = 0, squares = 0, largest = 0;
    const std::vector<Bf16> values = whole(*weights, name);
    for (const Bf16 v : values) {
      const double x = numerics::widen(v);
      sum += x;
      squares += x * x;
      largest = std::max(largest, std::fabs(x));
    }
    const double n = static_cast<double>(values.size()), mean = sum / n;
    return std::array<double, 3>{mean, std::sqrt(squares / n - mean * mean), largest};
  };
  const auto [embed_mean, embed_deviation, embed_largest] = moments("model.embed_tokens.weight");  // 4656 elements, 48 inputs
  EXPECT_NEAR(embed_mean, 0, 0.01);
  EXPECT_NEAR(embed_deviation, 1 / std::sqrt(48.0), 0.006);
  EXPECT_LT(embed_largest, 3.6 / std::sqrt(48.0));
  EXPECT_NEAR(moments("model.layers.0.mlp.experts.4.down_proj.weight")[1], 1 / std::sqrt(40.0), 0.01);
  const auto [norm_mean, norm_deviation, norm_largest] = moments("model.layers.2.input_layernorm.weight");
  EXPECT_NEAR(norm_mean, 1, 0.03);
  EXPECT_NEAR(norm_deviation, 0.05, 0.02);
  EXPECT_LT(norm_largest, 1.2);
  EXPECT_NEAR(moments("model.layers.0.self_attn.q_proj.bias")[1], 0.02, 0.005);
}

TEST(DummyWeights, BitsArePinned) {
  // Every machine must make the same model; these bits are part of what `--load-format dummy` means.
  const ModelConfig config = *parse_model_config(kConfig, "");
  const auto weights = make_dummy_weights(config, 0);
  const auto hash = [&](std::string_view name) {
    uint64_t sum = 0, i = 0;
    for (const Bf16 v : whole(*weights, name)) sum += numerics::hash_element(i++, v.bits);
    return sum;
  };
  EXPECT_EQ(hash("model.embed_tokens.weight"), 11846296642244307685u);
  EXPECT_EQ(hash("model.layers.1.mlp.down_proj.weight"), 15330624079905547964u);
  EXPECT_EQ(hash("model.norm.weight"), 947205739081511629u);
}

}  // namespace
}  // namespace invar
