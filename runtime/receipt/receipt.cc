#include "runtime/receipt/receipt.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/escaping.h"
#include "runtime/model_config/message.h"
#include "runtime/receipt/response_chain.h"

namespace invar {
namespace {

std::string recomputed_digest(const v1::Receipt& r) {
  ResponseChain chain(r.numerics_id(), r.model_digest(),
                      {r.prompt_token_ids().data(), static_cast<size_t>(r.prompt_token_ids_size())}, r.sampling_params(),
                      r.choice());
  for (int i = 0; i < r.output_token_ids_size(); ++i) chain.append(r.output_token_ids(i), r.logits_hashes(i));
  return chain.head();
}

absl::Status missing(std::string_view field) {
  return absl::InvalidArgumentError(
      message("receipt: sampling_params.", field, " is missing; effective values must all be there"));
}

absl::Status check_sampling(const v1::SamplingParams& s) {
  if (!s.has_n()) return missing("n");
  if (!s.has_temperature()) return missing("temperature");
  if (!s.has_top_k()) return missing("top_k");
  if (!s.has_top_p()) return missing("top_p");
  if (!s.has_min_p()) return missing("min_p");
  if (!s.has_repetition_penalty()) return missing("repetition_penalty");
  if (!s.has_presence_penalty()) return missing("presence_penalty");
  if (!s.has_frequency_penalty()) return missing("frequency_penalty");
  if (!s.has_seed()) return missing("seed");
  const std::pair<const char*, float> floats[] = {{"temperature", s.temperature()},
                                                  {"top_p", s.top_p()},
                                                  {"min_p", s.min_p()},
                                                  {"repetition_penalty", s.repetition_penalty()},
                                                  {"presence_penalty", s.presence_penalty()},
                                                  {"frequency_penalty", s.frequency_penalty()}};
  for (const auto& [field, value] : floats)
    if (!std::isfinite(value)) return absl::InvalidArgumentError(message("receipt: sampling_params.", field, " = ", value));
  return absl::OkStatus();
}

absl::Status check_ids(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids) {
  for (int i = 0; i < ids.size(); ++i)
    if (ids[i] < 0) return absl::InvalidArgumentError(message("receipt: ", field, "[", i, "] = ", ids[i], " is negative"));
  return absl::OkStatus();
}

std::string hash_text(uint64_t h) { return message("0x", absl::Hex(h, absl::kZeroPad16)); }

// The first position at which recomputing gives something else; kNone if none.
ReceiptVerdict first_difference(const v1::Receipt& r, const Recomputed& c) {
  const int64_t have = std::min<int64_t>(r.output_token_ids_size(), r.logits_hashes_size());
  const int64_t computed = std::min<int64_t>(c.draws.size(), c.logits_hashes.size());
  for (int64_t i = 0; i < std::min(have, computed); ++i) {
    if (r.logits_hashes(i) != c.logits_hashes[i])
      return {ReceiptDifference::kLogitsHash, i,
              message("output position ", i, ": the logits differ (hash ", hash_text(r.logits_hashes(i)), " in the receipt, ",
                      hash_text(c.logits_hashes[i]), " recomputed)")};
    if (r.output_token_ids(i) != c.draws[i])
      return {ReceiptDifference::kToken, i,
              message("output position ", i, ": token ", r.output_token_ids(i), " in the receipt, ", c.draws[i],
                      " is drawn from the same logits")};
  }
  if (r.output_token_ids_size() != r.logits_hashes_size() || have != computed)
    return {ReceiptDifference::kLength, std::min(have, computed),
            message("the receipt holds ", r.output_token_ids_size(), " tokens and ", r.logits_hashes_size(), " hashes, ",
                    computed, " positions were recomputed")};
  return {};
}

}  // namespace

v1::Receipt make_receipt(std::string_view numerics_id, std::string_view model_digest, std::span<const int32_t> prompt,
                         const v1::SamplingParams& effective, uint32_t choice, std::span<const int32_t> output,
                         std::span<const uint64_t> logits_hashes, std::string_view response_digest) {
  v1::Receipt r;
  r.set_version(kReceiptVersion);
  r.set_numerics_id(std::string(numerics_id));
  r.set_model_digest(std::string(model_digest));
  r.mutable_prompt_token_ids()->Add(prompt.begin(), prompt.end());
  *r.mutable_sampling_params() = effective;
  r.set_choice(choice);
  r.mutable_output_token_ids()->Add(output.begin(), output.end());
  r.mutable_logits_hashes()->Add(logits_hashes.begin(), logits_hashes.end());
  r.set_response_digest(std::string(response_digest));
  return r;
}

std::string receipt_to_json(const v1::Receipt& receipt) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string out;
  const auto status = google::protobuf::util::MessageToJsonString(receipt, &out, options);
  return status.ok() ? out : std::string();
}

absl::StatusOr<v1::Receipt> receipt_from_json(std::string_view json) {
  v1::Receipt receipt;
  const auto status = google::protobuf::util::JsonStringToMessage(std::string(json), &receipt);
  if (!status.ok()) return absl::InvalidArgumentError(message("receipt: not a receipt in JSON: ", std::string(status.message())));
  return receipt;
}

absl::Status check_receipt(const v1::Receipt& r) {
  if (r.version() != kReceiptVersion)
    return absl::InvalidArgumentError(message("receipt: version = ", r.version(), ", this program knows ", kReceiptVersion));
  if (r.numerics_id().empty()) return absl::InvalidArgumentError("receipt: numerics_id is empty");
  if (r.model_digest().empty()) return absl::InvalidArgumentError("receipt: model_digest is empty");
  if (r.prompt_token_ids().empty()) return absl::InvalidArgumentError("receipt: prompt_token_ids is empty");
  if (r.output_token_ids().empty()) return absl::InvalidArgumentError("receipt: output_token_ids is empty");
  if (absl::Status s = check_ids("prompt_token_ids", r.prompt_token_ids()); !s.ok()) return s;
  if (absl::Status s = check_ids("output_token_ids", r.output_token_ids()); !s.ok()) return s;
  if (absl::Status s = check_sampling(r.sampling_params()); !s.ok()) return s;
  if (r.choice() >= r.sampling_params().n())
    return absl::InvalidArgumentError(message("receipt: choice = ", r.choice(), " of n = ", r.sampling_params().n()));
  if (r.output_token_ids_size() != r.logits_hashes_size())
    return absl::InvalidArgumentError(message("receipt: logits_hashes has ", r.logits_hashes_size(), " entries for ",
                                              r.output_token_ids_size(), " output_token_ids"));
  const std::string digest = recomputed_digest(r);
  if (digest != r.response_digest())
    return absl::InvalidArgumentError(message("receipt: response_digest = \"", absl::CHexEscape(r.response_digest()),
                                              "\", the chain over its own contents ends in ", digest));
  return absl::OkStatus();
}

std::string_view name(ReceiptDifference difference) {
  switch (difference) {
    case ReceiptDifference::kNone:
      return "none";
    case ReceiptDifference::kNumericsId:
      return "numerics id";
    case ReceiptDifference::kModelDigest:
      return "model digest";
    case ReceiptDifference::kLength:
      return "length";
    case ReceiptDifference::kLogitsHash:
      return "logits hash";
    case ReceiptDifference::kToken:
      return "token";
    case ReceiptDifference::kChain:
      return "chain";
  }
  return "unknown";
}

ReceiptVerdict compare_receipt(const v1::Receipt& receipt, const Recomputed& recomputed) {
  ReceiptVerdict first = first_difference(receipt, recomputed);
  const std::string where =
      first.position < 0 ? std::string("; every position agrees all the same") : message("; first difference: ", first.message);
  if (receipt.numerics_id() != recomputed.numerics_id)
    return {ReceiptDifference::kNumericsId, first.position,
            message("the receipt's numerics id is ", receipt.numerics_id(), ", recomputed with ", recomputed.numerics_id, where)};
  if (receipt.model_digest() != recomputed.model_digest)
    return {
        ReceiptDifference::kModelDigest, first.position,
        message("the receipt's model digest is ", receipt.model_digest(), ", recomputed with ", recomputed.model_digest, where)};
  if (!first.equal()) return first;
  if (const std::string digest = recomputed_digest(receipt); digest != receipt.response_digest())
    return {ReceiptDifference::kChain, receipt.output_token_ids_size(),
            message("all ", receipt.output_token_ids_size(), " tokens and hashes agree, but response_digest = \"",
                    absl::CHexEscape(receipt.response_digest()), "\" is not the head of their chain (", digest, ")")};
  return {ReceiptDifference::kNone, -1,
          message("equal: ", receipt.output_token_ids_size(), " tokens, digest ", receipt.response_digest())};
}

}  // namespace invar
