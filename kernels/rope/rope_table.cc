#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/rope/fixed_math.h"
#include "kernels/rope/rope.h"

namespace invar {
namespace {

constexpr double kTwoPi = 0x1.921fb54442d18p+2;

absl::Status refuse(absl::string_view field, absl::string_view must, double got) {
  return absl::InvalidArgumentError(absl::StrCat("rope: ", field, " must be ", must, ", got ", got));
}

// NaN fails every one of these comparisons, so it is refused too.
absl::Status check(const RopeScaling& s, double theta, int64_t rotary_dim) {
  if (rotary_dim <= 0 || rotary_dim % 2 != 0)
    return refuse("rotary_dim", "a positive even number", static_cast<double>(rotary_dim));
  if (!(theta > 1 && theta <= 1e30)) return refuse("rope_theta", "above 1 and at most 1e30", theta);
  if (s.type == "default") return absl::OkStatus();
  if (s.type != "linear" && s.type != "llama3" && s.type != "yarn")
    return absl::InvalidArgumentError(absl::StrCat("rope: rope_type '", s.type, "' is not one of default, linear, llama3, yarn"));
  if (!(s.factor > 0 && s.factor <= 1e9)) return refuse("factor", "above 0 and at most 1e9", s.factor);
  if (s.type == "linear") return absl::OkStatus();
  if (!(s.original_max_position >= 1 && s.original_max_position <= 1e12))
    return refuse("original_max_position_embeddings", "between 1 and 1e12", s.original_max_position);
  if (s.type == "llama3") {
    if (!(s.low_freq_factor > 0 && s.low_freq_factor <= 1e9))
      return refuse("low_freq_factor", "above 0 and at most 1e9", s.low_freq_factor);
    if (!(s.high_freq_factor > s.low_freq_factor && s.high_freq_factor <= 1e9))
      return refuse("high_freq_factor", absl::StrCat("above low_freq_factor (", s.low_freq_factor, ") and at most 1e9"),
                    s.high_freq_factor);
    return absl::OkStatus();
  }
  if (!(s.beta_slow > 0 && s.beta_slow <= 1e9)) return refuse("beta_slow", "above 0 and at most 1e9", s.beta_slow);
  if (!(s.beta_fast >= s.beta_slow && s.beta_fast <= 1e9))
    return refuse("beta_fast", absl::StrCat("at least beta_slow (", s.beta_slow, ") and at most 1e9"), s.beta_fast);
  if (!(s.mscale >= 0 && s.mscale <= 1e3)) return refuse("mscale", "between 0 and 1000", s.mscale);
  if (!(s.mscale_all_dim >= 0 && s.mscale_all_dim <= 1e3))
    return refuse("mscale_all_dim", "between 0 and 1000", s.mscale_all_dim);
  if (!(s.attention_factor >= 0 && s.attention_factor <= 1e3))
    return refuse("attention_factor", "between 0 (derived) and 1000", s.attention_factor);
  return absl::OkStatus();
}

double ln(double x) { return fixed_math::natural_log(x).hi; }

double round_down(double x) {  // |x| < 2^62
  const auto whole = static_cast<double>(static_cast<int64_t>(x));
  return whole > x ? whole - 1 : whole;
}

// Long wavelengths are stretched by `factor`, short ones kept, those between blended by how often they turn in the original
// context.
double llama3(const RopeScaling& s, double inverse) {
  const double wavelength = kTwoPi / inverse;
  if (wavelength > s.original_max_position / s.low_freq_factor) return inverse / s.factor;
  if (wavelength < s.original_max_position / s.high_freq_factor) return inverse;
  const double smooth = (s.original_max_position / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * inverse / s.factor + smooth * inverse;
}

// Yarn keeps dimensions below `low`, stretches those above `high` and ramps between.
struct YarnRamp {
  double low;
  double high;

  YarnRamp(const RopeScaling& s, double theta, int64_t dim) {
    const auto turns_at = [&](double turns) {  // the dimension that makes `turns` turns in the original context
      return static_cast<double>(dim) * ln(s.original_max_position / (turns * kTwoPi)) / (2 * ln(theta));
    };
    low = turns_at(s.beta_fast);
    high = turns_at(s.beta_slow);
    if (s.truncate) {
      low = round_down(low);
      high = -round_down(-high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(dim - 1));
    if (low == high) high += 0.001;
  }
  double stretched(int64_t i) const { return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0); }
};

double yarn_attention_factor(const RopeScaling& s) {
  if (s.attention_factor > 0) return s.attention_factor;
  const auto scale = [&](double mscale) { return s.factor <= 1 ? 1.0 : 0.1 * mscale * ln(s.factor) + 1.0; };
  return s.mscale > 0 && s.mscale_all_dim > 0 ? scale(s.mscale) / scale(s.mscale_all_dim) : scale(1.0);
}

}  // namespace

absl::StatusOr<RopeFrequencies> rope_frequencies(const RopeScaling& scaling, double theta, int64_t rotary_dim) {
  if (absl::Status status = check(scaling, theta, rotary_dim); !status.ok()) return status;
  RopeFrequencies result;
  std::optional<YarnRamp> yarn;
  if (scaling.type == "yarn") {
    yarn.emplace(scaling, theta, rotary_dim);
    result.attention_factor = yarn_attention_factor(scaling);
  }
  for (int64_t i = 0; i < rotary_dim / 2; ++i) {
    const fixed_math::Pair exponent =
        fixed_math::quotient({-2.0 * static_cast<double>(i), 0}, {static_cast<double>(rotary_dim), 0});
    double inverse = fixed_math::power(theta, exponent);
    if (scaling.type == "linear") inverse /= scaling.factor;
    if (scaling.type == "llama3") inverse = llama3(scaling, inverse);
    if (yarn) {
      const double kept = 1 - yarn->stretched(i);
      inverse = inverse / scaling.factor * (1 - kept) + inverse * kept;
    }
    const auto rounded = static_cast<float>(inverse);
    // An angle must stay in the range where sin_cos is exact enough; only a tiny factor can leave it.
    if (!(rounded <= 0x1p20f)) return refuse("factor", "large enough that no frequency exceeds 2^20", scaling.factor);
    result.inverse.push_back(rounded);
  }
  return result;
}

absl::StatusOr<RopeTable> RopeTable::make(const RopeScaling& scaling, double theta, int64_t rotary_dim, int64_t positions) {
  if (positions <= 0 || positions > kMaxPositions)
    return refuse("positions", absl::StrCat("between 1 and ", kMaxPositions), static_cast<double>(positions));
  absl::StatusOr<RopeFrequencies> frequencies = rope_frequencies(scaling, theta, rotary_dim);
  if (!frequencies.ok()) return frequencies.status();
  RopeTable table;
  table.half_ = rotary_dim / 2;
  table.positions_ = positions;
  table.table_.resize(static_cast<size_t>(positions * rotary_dim));
  float* cosine = table.table_.data();
  for (int64_t position = 0; position < positions; ++position, cosine += rotary_dim)
    for (int64_t i = 0; i < table.half_; ++i) {
      const float angle = numerics::mul(static_cast<float>(position), frequencies->inverse[i]);
      const fixed_math::SinCos value = fixed_math::sin_cos(angle);
      cosine[i] = static_cast<float>(value.cosine * frequencies->attention_factor);
      cosine[table.half_ + i] = static_cast<float>(value.sine * frequencies->attention_factor);
    }
  return table;
}

void RopeTable::to_device(const Device& device) {
  if (device.backend() == Backend::kCpu) return;
  const size_t bytes = table_.size() * sizeof(float);
  device_table_ = Buffer(device, bytes);
  device.upload(device_table_.data(), table_.data(), bytes);
}

}  // namespace invar
