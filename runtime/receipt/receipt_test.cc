#include "runtime/receipt/receipt.h"

#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/receipt/response_chain.h"

namespace invar {
namespace {

v1::SamplingParams sampling() {
  v1::SamplingParams s;
  s.set_n(2);
  s.set_temperature(0.7f);
  s.set_top_k(0);
  s.set_top_p(0.9f);
  s.set_min_p(0);
  s.set_repetition_penalty(1.1f);
  s.set_presence_penalty(0);
  s.set_frequency_penalty(0);
  s.set_seed(0xffffffffffffffffull);
  s.set_max_tokens(4);
  return s;
}

const std::vector<int32_t> kPrompt = {5, 6, 7};
const std::vector<int32_t> kOutput = {10, 20, 30, 40};
const std::vector<uint64_t> kHashes = {0xffffffffffffff01ull, 2, 3, 4};

void rehash(v1::Receipt* r) {
  ResponseChain chain(r->numerics_id(), r->model_digest(),
                      std::vector<int32_t>(r->prompt_token_ids().begin(), r->prompt_token_ids().end()), r->sampling_params(),
                      r->choice());
  for (int i = 0; i < r->output_token_ids_size(); ++i) chain.append(r->output_token_ids(i), r->logits_hashes(i));
  r->set_response_digest(chain.head());
}

v1::Receipt honest() {
  v1::Receipt r = make_receipt("numerics", "model", kPrompt, sampling(), 1, kOutput, kHashes, "");
  rehash(&r);
  return r;
}

Recomputed recomputed() { return {"numerics", "model", kOutput, kHashes}; }

TEST(Receipt, AnHonestOneIsEqual) {
  EXPECT_TRUE(check_receipt(honest()).ok()) << check_receipt(honest());
  const ReceiptVerdict v = compare_receipt(honest(), recomputed());
  EXPECT_TRUE(v.equal()) << v.message;
  EXPECT_EQ(v.position, -1);
}

TEST(Receipt, JsonRoundTripKeepsEveryBit) {
  v1::Receipt r = honest();
  r.mutable_sampling_params()->set_temperature(0.1f + 0.2f);
  const absl::StatusOr<v1::Receipt> back = receipt_from_json(receipt_to_json(r));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->SerializeAsString(), r.SerializeAsString());
  EXPECT_NE(receipt_to_json(r).find("\"logits_hashes\""), std::string::npos);  // the proto's names
}

TEST(Receipt, JsonOfSomethingElseIsRefused) {
  for (const char* text : {"", "{", "[]", "{\"no_such_field\": 1}", "{\"version\": \"x\"}"})
    EXPECT_EQ(receipt_from_json(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
}

TEST(Receipt, ForgedTokenIsFoundAtItsPosition) {
  for (int i = 0; i < 4; ++i) {
    v1::Receipt r = honest();
    r.set_output_token_ids(i, 999);
    EXPECT_FALSE(check_receipt(r).ok()) << "the digest no longer fits";
    rehash(&r);  // a careful forger
    EXPECT_TRUE(check_receipt(r).ok());
    // Recomputing is teacher-forced with the forged token: the logits before it are the same, those after it are not.
    std::vector<int32_t> draws = kOutput;
    std::vector<uint64_t> hashes = kHashes;
    for (int j = i + 1; j < 4; ++j) draws[j] += 1, hashes[j] += 1;
    const ReceiptVerdict v = compare_receipt(r, {"numerics", "model", draws, hashes});
    EXPECT_EQ(v.difference, ReceiptDifference::kToken) << v.message;
    EXPECT_EQ(v.position, i);
    EXPECT_NE(v.message.find("999"), std::string::npos) << v.message;
  }
}

TEST(Receipt, ForgedHashIsFoundAtItsPosition) {
  for (int i = 0; i < 4; ++i) {
    v1::Receipt r = honest();
    r.set_logits_hashes(i, r.logits_hashes(i) ^ (1ull << 63));
    rehash(&r);
    const ReceiptVerdict v = compare_receipt(r, recomputed());
    EXPECT_EQ(v.difference, ReceiptDifference::kLogitsHash) << v.message;
    EXPECT_EQ(v.position, i);
  }
}

TEST(Receipt, ForgedDigestIsFound) {
  v1::Receipt r = honest();
  r.set_response_digest(std::string(64, '0'));
  EXPECT_NE(std::string(check_receipt(r).message()).find("response_digest"), std::string::npos);
  const ReceiptVerdict v = compare_receipt(r, recomputed());
  EXPECT_EQ(v.difference, ReceiptDifference::kChain) << v.message;
  EXPECT_EQ(v.position, 4);
}

TEST(Receipt, OtherModelOrNumericsIsNamedWithThePosition) {
  std::vector<uint64_t> hashes = kHashes;
  hashes[2] += 1;
  ReceiptVerdict v = compare_receipt(honest(), {"numerics", "another model", kOutput, hashes});
  EXPECT_EQ(v.difference, ReceiptDifference::kModelDigest);
  EXPECT_EQ(v.position, 2);
  v = compare_receipt(honest(), {"other numerics", "model", kOutput, hashes});
  EXPECT_EQ(v.difference, ReceiptDifference::kNumericsId);
  EXPECT_EQ(v.position, 2);
  // A model that claims the digest of another is found by its logits.
  v = compare_receipt(honest(), {"numerics", "model", kOutput, hashes});
  EXPECT_EQ(v.difference, ReceiptDifference::kLogitsHash);
  EXPECT_EQ(v.position, 2);
}

TEST(Receipt, MissingPositionsAreADifference) {
  const std::span<const int32_t> draws(kOutput);
  const std::span<const uint64_t> hashes(kHashes);
  const ReceiptVerdict v = compare_receipt(honest(), {"numerics", "model", draws.first(3), hashes.first(3)});
  EXPECT_EQ(v.difference, ReceiptDifference::kLength) << v.message;
  EXPECT_EQ(v.position, 3);
}

TEST(Receipt, EveryFieldIsChecked) {
  const std::vector<std::pair<const char*, std::function<void(v1::Receipt&)>>> breaks = {
      {"version", [](auto& r) { r.set_version(2); }},
      {"numerics_id", [](auto& r) { r.clear_numerics_id(); }},
      {"model_digest", [](auto& r) { r.clear_model_digest(); }},
      {"prompt_token_ids", [](auto& r) { r.clear_prompt_token_ids(); }},
      {"prompt_token_ids[1]", [](auto& r) { r.set_prompt_token_ids(1, -4); }},
      {"output_token_ids", [](auto& r) { r.clear_output_token_ids(); }},
      {"output_token_ids[3]", [](auto& r) { r.set_output_token_ids(3, -1); }},
      {"logits_hashes", [](auto& r) { r.mutable_logits_hashes()->RemoveLast(); }},
      {"choice", [](auto& r) { r.set_choice(2); }},
      {"temperature", [](auto& r) { r.mutable_sampling_params()->clear_temperature(); }},
      {"seed", [](auto& r) { r.mutable_sampling_params()->clear_seed(); }},
      {"min_p", [](auto& r) { r.mutable_sampling_params()->set_min_p(0.0f / 0.0f); }},
  };
  for (const auto& [field, apply] : breaks) {
    v1::Receipt r = honest();
    apply(r);
    const absl::Status s = check_receipt(r);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_NE(std::string(s.message()).find(field), std::string::npos) << s;
  }
}

}  // namespace
}  // namespace invar
