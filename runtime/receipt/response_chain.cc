#include "runtime/receipt/response_chain.h"

#include <map>

#include "kernels/numerics.h"

namespace invar {
namespace {

// -0 and +0 mean the same and must not make two requests of one.
uint32_t plain_bits(float x) { return x == 0 ? 0 : numerics::float_bits(x); }

// What else can change a draw. Nothing is added where nothing is asked for, so other requests' digests are what they always were.
void add_rules(const v1::SamplingParams& s, receipt::Sha256& sha) {
  const auto texts = [&](std::string_view name, const google::protobuf::RepeatedPtrField<std::string>& list) {
    if (list.empty()) return;
    sha.text(name).le32(static_cast<uint32_t>(list.size()));
    for (const std::string& text : list) sha.text(text);
  };
  const auto ids = [](const google::protobuf::RepeatedField<int32_t>& list) {
    return std::span<const int32_t>(list.data(), static_cast<size_t>(list.size()));
  };
  if (s.has_guided_json()) sha.text("guided_json").text(s.guided_json());
  if (s.guided_json_object()) sha.text("guided_json_object");
  if (s.has_guided_regex()) sha.text("guided_regex").text(s.guided_regex());
  texts("guided_choice", s.guided_choice());
  texts("bad_words", s.bad_words());
  if (!s.logit_bias().empty()) {
    const std::map<int32_t, float> sorted(s.logit_bias().begin(), s.logit_bias().end());
    sha.text("logit_bias").le32(static_cast<uint32_t>(sorted.size()));
    for (const auto& [id, bias] : sorted) sha.le32(static_cast<uint32_t>(id)).le32(plain_bits(bias));
  }
  if (!s.allowed_token_ids().empty()) sha.text("allowed_token_ids").ids(ids(s.allowed_token_ids()));
  if (s.min_tokens() > 0 || s.has_guided_json() || s.guided_json_object() || s.has_guided_regex() || s.guided_choice_size() > 0)
    sha.text("ends").le32(s.min_tokens()).le32(s.ignore_eos() ? 1 : 0);
  if (s.min_tokens() > 0) sha.ids(ids(s.stop_token_ids()));
}

}  // namespace

ResponseChain::ResponseChain(std::string_view numerics_id, std::string_view model_digest, std::span<const int32_t> prompt,
                             const v1::SamplingParams& effective, uint32_t choice) {
  const bool greedy = effective.temperature() == 0;
  receipt::Sha256 sha;
  sha.text("invar.receipt.v1").text(numerics_id).text(model_digest).ids(prompt);
  sha.le32(plain_bits(effective.temperature()));
  sha.le32(greedy || effective.top_k() <= 0 ? 0 : static_cast<uint32_t>(effective.top_k()));
  sha.le32(numerics::float_bits(greedy ? 1.0f : effective.top_p()));
  sha.le32(greedy ? 0 : plain_bits(effective.min_p()));
  sha.le32(plain_bits(effective.repetition_penalty()));
  sha.le32(plain_bits(effective.presence_penalty()));
  sha.le32(plain_bits(effective.frequency_penalty()));
  sha.le64(greedy ? 0 : effective.seed());
  sha.le32(choice);
  add_rules(effective, sha);
  state_ = sha.finish();
}

void ResponseChain::append(int32_t token, uint64_t logits_hash) {
  state_ = receipt::Sha256().digest(state_).le32(static_cast<uint32_t>(token)).le64(logits_hash).finish();
}

}  // namespace invar
