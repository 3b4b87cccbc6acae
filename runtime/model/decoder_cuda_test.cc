// A whole step on one GPU, and on tensor-parallel GPU ranks over peer memory, against one CPU rank: the same bits of every logit,
// queued kernel by kernel and recorded.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/device/cuda_test.h"
#include "parallel/transport/gpu_ranks.h"
#include "runtime/model/decoder.h"
#include "runtime/weights/dummy_weights.h"

namespace invar {
namespace {

constexpr int64_t kPage = 16, kPages = 8, kSequences = 3;  // pages of a sequence

// Sums long enough that their order shows: with a few hundred terms of dummy weights most are exact.
ModelConfig config_of(bool experts) {
  const std::string text = absl::StrCat(
      R"({"architectures": [")", experts ? "Qwen3MoeForCausalLM" : "Qwen3ForCausalLM", R"("], "model_type": ")",
      experts ? "qwen3_moe" : "qwen3",
      R"(", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 3,
      "head_dim": 64, "vocab_size": 1003, "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 512,
      "attention_bias": false, "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2)",
      experts ? R"(, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024, "norm_topk_prob": true,
                 "decoder_sparse_step": 1, "mlp_only_layers": []})"
              : "}");
  auto config = parse_model_config(text, "");
  if (!config.ok()) throw std::runtime_error(std::string(config.status().message()));
  return *std::move(config);
}

struct Step {
  int64_t first, count;  // positions of each sequence
  bool all;              // logits of every row, else of each sequence's last
};

// Prompts, then steps of one token: the second and later ones of that size may be recorded.
const std::vector<Step>& steps() {
  static const std::vector<Step> s = {{0, 37, true},  {37, 1, false}, {38, 1, false},
                                      {39, 1, false}, {40, 1, false}, {41, 1, false}};
  return s;
}

// Logits of all steps, from the rank that samples.
std::vector<uint32_t> run_rank(const Device& device, parallel::Transport& transport, const ModelConfig& config,
                               const Decoder::Options& options) {
  auto loaded = Decoder::load(device, transport, config, options, *make_dummy_weights(config, 5), {});
  if (!loaded.ok()) throw std::runtime_error(std::string(loaded.status().message()));
  std::vector<std::vector<int32_t>> tables;
  for (int64_t s = 0; s < kSequences; ++s)
    for (int64_t p = 0; p < kPages; ++p)
      (p ? tables.back() : tables.emplace_back()).push_back(static_cast<int32_t>(p * kSequences + s));
  std::vector<uint32_t> bits;
  for (const Step& step : steps()) {
    StepRows rows;
    for (int64_t s = 0; s < kSequences; ++s) {
      rows.page_tables.push_back(tables[s]);
      for (int64_t p = step.first; p < step.first + step.count; ++p) {
        rows.tokens.push_back(static_cast<int32_t>(numerics::mix64(static_cast<uint64_t>(p * 31 + s)) % 1003));
        rows.positions.push_back(static_cast<int32_t>(p));
        rows.sequences.push_back(static_cast<int32_t>(s));
        rows.slots.push_back(tables[s][p / kPage] * kPage + p % kPage);
        if (step.all) rows.logits.push_back(rows.size() - 1);
      }
      if (!step.all) rows.logits.push_back(rows.size() - 1);
    }
    (*loaded)->forward(rows, nullptr, [&](int64_t, int64_t count, const float* logits) {
      std::vector<float> values(static_cast<size_t>(count * config.vocab_size));
      device.download(values.data(), logits, values.size() * sizeof(float));
      for (const float v : values) bits.push_back(numerics::float_bits(v));
    });
  }
  device.synchronize();
  return bits;
}

std::vector<uint32_t> on_cpu(const ModelConfig& config, Profile profile) {
  const auto transports = parallel::start_threads(1);
  return run_rank(Device({.profile = profile, .threads = 2}), *transports[0], config,
                  {.kv = {kPages * kSequences, kPage}, .max_positions = 200});
}

std::vector<uint32_t> on_gpus(const ModelConfig& config, Profile profile, int tp, int gpus, ControlArm arm = ControlArm::kNone,
                              int64_t window_rows = 32) {
  const parallel::Layout layout{.tp = tp};
  std::vector<uint32_t> sampled;
  parallel::with_gpu_ranks(
      tp, gpus, {.profile = profile, .control_arm = arm}, [&](const Device& device, parallel::Transport& transport) {
        const auto at = parallel::coordinates_of(layout, transport.rank());
        auto peer =
            parallel::PeerMemory::open(transport, device, parallel::tp_members(layout, at), peer_sizes(config, window_rows));
        if (!peer.ok()) throw std::runtime_error(std::string(peer.status().message()));
        auto bits =
            run_rank(device, transport, config,
                     {.layout = layout, .at = at, .kv = {kPages * kSequences, kPage}, .max_positions = 200, .peer = peer->get()});
        if (transport.rank() == 0)
          sampled = std::move(bits);
        else if (!bits.empty())
          throw std::runtime_error("logits on a rank that does not sample");
      });
  return sampled;
}

// Its prompt's rows are added to the residual stream by the linears themselves, its single tokens' by the norm that follows.
class DecoderOnOneGpu : public CudaTest {};
TEST_F(DecoderOnOneGpu, GivesTheBitsOfOneCpu) {
  for (const bool experts : {false, true})
    for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
      const ModelConfig config = config_of(experts);
      const auto device = open(profile);
      const auto transports = parallel::start_threads(1);
      const Decoder::Options options{.kv = {kPages * kSequences, kPage}, .max_positions = 200};
      EXPECT_TRUE(run_rank(*device, *transports[0], config, options) == on_cpu(config, profile))
          << (experts ? "experts" : "dense") << ", " << name(profile);
    }
}

class DecoderOverPeers : public parallel::RanksOnGpus {};
INSTANTIATE_TEST_SUITE_P(RanksOnGpus, DecoderOverPeers,
                         testing::Values(std::pair(2, 1), std::pair(3, 1), std::pair(2, 2), std::pair(3, 3), std::pair(4, 4)),
                         parallel::ranks_on_gpus);

// A prompt of 111 rows goes in several parts through a window for 32; where there is room, down deals its values.
TEST_P(DecoderOverPeers, GivesTheBitsOfOneCpu) {
  const auto [tp, gpus] = GetParam();
  for (const bool experts : {false, true})
    for (const Profile profile : {Profile::kPortable, Profile::kTc}) {
      const ModelConfig config = config_of(experts);
      const std::vector<uint32_t> want = on_cpu(config, profile);
      for (const int64_t window_rows : {32, 128}) {
        const std::vector<uint32_t> got = on_gpus(config, profile, tp, gpus, ControlArm::kNone, window_rows);
        ASSERT_EQ(got.size(), want.size());
        size_t different = 0, first = 0;
        for (size_t i = want.size(); i-- > 0;)
          if (got[i] != want[i]) ++different, first = i;
        EXPECT_EQ(different, 0u) << (experts ? "experts" : "dense") << ", " << name(profile) << ", window of " << window_rows
                                 << " rows: first at row " << first / 1003 << ", column " << first % 1003 << ": " << std::hex
                                 << got[first] << " instead of " << want[first];
      }
    }
}

// The twin that must fail.
TEST_P(DecoderOverPeers, RankOrder_Differs) {
  const auto [tp, gpus] = GetParam();
  for (const bool experts : {false, true}) {
    const ModelConfig config = config_of(experts);
    const auto fold = on_gpus(config, Profile::kPortable, tp, gpus, ControlArm::kRankOrderAllReduce);
    const auto tree = on_gpus(config, Profile::kPortable, tp, gpus);
    ASSERT_EQ(fold.size(), tree.size());
    EXPECT_FALSE(fold == tree) << (experts ? "experts" : "dense");
  }
}

}  // namespace
}  // namespace invar
