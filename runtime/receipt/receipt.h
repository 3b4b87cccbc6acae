// The receipt of one answer: what anyone who has the model needs to recompute it on any layout and compare.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/proto/generate.pb.h"

namespace invar {

inline constexpr uint32_t kReceiptVersion = 1;

// `effective`: sampling parameters with every field set. `response_digest`: head of the chain over tokens and hashes.
v1::Receipt make_receipt(std::string_view numerics_id, std::string_view model_digest, std::span<const int32_t> prompt,
                         const v1::SamplingParams& effective, uint32_t choice, std::span<const int32_t> output,
                         std::span<const uint64_t> logits_hashes, std::string_view response_digest);

// Protobuf's JSON with the proto's field names. Reading refuses unknown fields (InvalidArgument) but checks nothing else.
std::string receipt_to_json(const v1::Receipt& receipt);
absl::StatusOr<v1::Receipt> receipt_from_json(std::string_view json);

// Whether the receipt is consistent in itself: known version, every draw parameter present, choice below n, as many hashes as
// tokens, no negative id, and a digest equal to the chain over its own contents. InvalidArgument names the field.
// A consistent receipt may still be a lie about the model; only compare() after recomputing tells.
absl::Status check_receipt(const v1::Receipt& receipt);

enum class ReceiptDifference : uint8_t { kNone, kNumericsId, kModelDigest, kLength, kLogitsHash, kToken, kChain };
std::string_view name(ReceiptDifference difference);

struct ReceiptVerdict {
  ReceiptDifference difference = ReceiptDifference::kNone;
  int64_t position = -1;  // index of the first output token that differs; -1 = none does
  std::string message;    // one sentence
  bool equal() const { return difference == ReceiptDifference::kNone; }
};

// What a teacher-forced prefill of prompt + output gave: entry i belongs to output token i.
struct Recomputed {
  std::string numerics_id, model_digest;
  std::span<const int32_t> draws;
  std::span<const uint64_t> logits_hashes;
};

// Names what differs first. Identity (numerics id, model digest) is named before positions, but the position is given too:
// the first token at which such another model or arithmetic shows. At a position a differing hash is named before a differing
// token: then the token is a consequence. A token that differs over equal logits was forged, or drawn by other rules.
// kChain: all tokens and hashes agree and the digest alone is wrong; position is then the number of tokens.
ReceiptVerdict compare_receipt(const v1::Receipt& receipt, const Recomputed& recomputed);

}  // namespace invar
