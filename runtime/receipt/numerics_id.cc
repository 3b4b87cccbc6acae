#include "runtime/receipt/numerics_id.h"

#include "kernels/numerics.h"
#include "kernels/rope/rope.h"
#include "runtime/model_config/message.h"
#include "runtime/receipt/sha256.h"

namespace invar {
namespace {

using numerics::float_bits;

void line(std::string* out, std::string_view key, std::string_view value) { *out += message(key, "=", value, "\n"); }
void line(std::string* out, std::string_view key, int64_t value) { *out += message(key, "=", value, "\n"); }
void bits(std::string* out, std::string_view key, float value) {
  *out += message(key, "=0x", absl::Hex(float_bits(value), absl::kZeroPad8), "\n");
}
void bits(std::string* out, std::string_view key, const float* values, int count) {
  for (int i = 0; i < count; ++i) bits(out, message(key, "[", i, "]"), values[i]);
}

// Values of the contract's functions at arguments that reach each branch and every polynomial coefficient.
void function_values(std::string* out) {
  for (const float x : {-126.5f, -125.7f, -1.3f, 0.0f, 0.37f, 127.9f}) {
    const std::string at = message("(0x", absl::Hex(float_bits(x), absl::kZeroPad8), ")");
    bits(out, message("exp2", at), numerics::exp2(x));
    bits(out, message("sigmoid", at), numerics::sigmoid(x));
    *out += message("bf", at, "=", numerics::bf(x).bits, "\n");
  }
  for (const float t : {1.9f, 2.003f, 2.5f, 2.71828f, 2.996f, 3.5f})
    bits(out, message("attention_weight(0x", absl::Hex(float_bits(t)), ")"), numerics::attention_weight(t));
  for (const float x : {-2000.3f, -7.5f, 0.3f, 91.6f}) {
    const float r = numerics::attention_reference(0.0f, x);
    bits(out, message("attention_reference(0x", absl::Hex(float_bits(x)), ")"), r);
    bits(out, message("attention_offset(0x", absl::Hex(float_bits(r)), ")"), numerics::attention_offset(r));
    bits(out, message("attention_rescale(0, 0x", absl::Hex(float_bits(r)), ")"), numerics::attention_rescale(0.0f, r));
  }
  for (const float x : {0.003f, 0.8f, 1.37f, 71.0f}) {
    bits(out, message("ln(0x", absl::Hex(float_bits(x)), ")"), numerics::ln(x));
    bits(out, message("rsqrt(0x", absl::Hex(float_bits(x)), ")"), numerics::rsqrt(x));
  }
  line(out, "silu_mul", numerics::silu_mul(numerics::bf(1.7f), numerics::bf(-0.6f)).bits);
  line(out, "residual", numerics::residual(numerics::bf(1.7f), numerics::bf(-0.6f)).bits);
  *out += message("mass(-3.25,1.5)=", numerics::mass(-3.25f, 1.5f), "\n");
  *out += message("order_key=", numerics::order_key(-2.5f), ",", numerics::order_key(2.5f), "\n");
  *out += message("hash_element(12345,0x3f9d70a4)=", numerics::hash_element(12345, 0x3f9d70a4u), "\n");
  bits(out, "gumbel(42,17,4099,3)", numerics::gumbel(42, 17, 4099, 3));
  for (const int64_t k : {96, 768, 1536, 4096}) {
    line(out, message("down_unit(", k, ")"), numerics::down_unit(k));
    for (int i = 0; i <= numerics::kSegments; ++i)
      line(out, message("segment_begin(", k, ",", i, ")"), numerics::segment_begin(k, numerics::down_unit(k), i));
  }
  line(out, "o_unit(32,8,128)", numerics::o_unit(32, 8, 128));
  line(out, "o_unit(32,4,128)", numerics::o_unit(32, 4, 128));
  // Terms far apart in exponent: the alignment, both cuts and the sign handling all show in the result.
  numerics::Bf16 a[numerics::kTensorCoreGroup], b[numerics::kTensorCoreGroup];
  for (int i = 0; i < numerics::kTensorCoreGroup; ++i) {
    a[i] = numerics::Bf16{static_cast<uint16_t>(0x3f80 + 0x45 * i + ((i & 1) << 15))};
    b[i] = numerics::Bf16{static_cast<uint16_t>(0x4233 - 0xb1 * i)};
  }
  bits(out, "tensor_core_step(16)", numerics::tensor_core_step(0x1.23456p-3f, a, b, 16));
  bits(out, "tensor_core_step(5)", numerics::tensor_core_step(-0x1.9p+7f, a, b, 5));
}

// The RoPE tables are data made by a routine of ours: a few rows of one stand for the routine.
void rope_values(std::string* out) {
  const auto table = RopeTable::make({}, 10000.0, 64, 4);
  if (!table.ok()) return line(out, "rope", std::string(table.status().message()));
  uint64_t hash = 0;
  for (int64_t position = 0; position < table->positions(); ++position)
    for (int64_t i = 0; i < 2 * table->half(); ++i)
      hash += numerics::hash_element(static_cast<uint64_t>(position * 2 * table->half() + i),
                                     numerics::float_bits(table->cosine(position)[i]));
  line(out, "rope", static_cast<int64_t>(hash));
}

}  // namespace

std::string numerics_text(Profile profile, ControlArm arm) {
  namespace n = numerics;
  std::string out;
  line(&out, "contract", n::kContractVersion);
  line(&out, "profile", name(profile));
  if (arm != ControlArm::kNone) line(&out, "control_arm", name(arm));
  line(&out, "dtype", "bf16");
  line(&out, "wire", "fp32 partials of maximal aligned subtrees; bf16 expert rows");
  line(&out, "tensor_core_group", n::kTensorCoreGroup);
  line(&out, "tensor_core_fraction_bits", n::kTensorCoreFractionBits);
  line(&out, "tensor_core_least_exponent", n::kTensorCoreLeastExponent);
  line(&out, "column_leaf", n::column_leaf(profile));
  line(&out, "row_leaf", n::row_leaf(profile));
  line(&out, "segments", n::kSegments);
  line(&out, "sum_lanes", n::kSumLanes);
  line(&out, "attention_block", n::kAttentionBlock);
  line(&out, "attention_split", n::kAttentionSplit);
  if (profile == Profile::kPortable) line(&out, "attention_sum_lanes", n::kAttentionSumLanes);
  bits(&out, "attention_step", n::kAttentionStep);
  bits(&out, "attention_zero", n::kAttentionZero);
  bits(&out, "attention_least", n::kAttentionLeast);
  bits(&out, "attention_most", n::kAttentionMost);
  bits(&out, "attention_headroom", n::kAttentionHeadroom);
  out += profile == Profile::kPortable ? "attention_denominator=of weights rounded to bf16\n"
                                       : "attention_denominator=chain of tensor-core steps, weights rounded to bf16 times ones\n";
  line(&out, "mass_bits", n::kMassBits);
  line(&out, "top_p_bits", n::kTopPBits);
  rope_values(&out);
  bits(&out, "log2e", n::kLog2e);
  bits(&out, "ln2", n::kLn2);
  bits(&out, "round_magic", n::kRoundMagic);
  bits(&out, "attention_weight", n::kAttentionWeight, 4);
  bits(&out, "exp2", n::kExp2, n::kExp2Degree);
  bits(&out, "ln1p", n::kLn1p, 8);
  function_values(&out);
  return out;
}

std::string numerics_id(Profile profile, ControlArm arm) {
  const std::string text = numerics_text(profile, arm);
  const std::string digest = receipt::hex(receipt::Sha256().bytes(text.data(), text.size()).finish());
  const std::string suffix = arm == ControlArm::kNone ? "" : message("+", name(arm));
  return message("invar-v", numerics::kContractVersion, "-", name(profile), suffix, "-", digest.substr(0, 16));
}

}  // namespace invar
