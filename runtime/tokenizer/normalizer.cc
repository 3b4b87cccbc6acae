#include "runtime/tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

absl::StatusOr<std::string> unicode_form(std::string text, const icu::Normalizer2* (*form)(UErrorCode&)) {
  if (is_ascii(text)) return text;
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = form(error);
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<int32_t>(text.size()));
  if (U_SUCCESS(error))
    normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr, error);
  if (U_FAILURE(error)) return absl::InternalError(concat("Unicode normalisation failed: ", u_errorName(error)));
  return result;
}

// Character by character, as Hugging Face does: no rule that looks at neighbours (final sigma).
std::string lowercase(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.length;
    if (c.value == 0x130) {  // the one character whose lower case is two
      result += "i\xCC\x87";
    } else {
      append_code_point(result, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c.value))));
    }
  }
  return result;
}

std::string strip(std::string text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const CodePoint c = code_point_at(text, begin);
    if (!is_white_space(c.value)) break;
    begin += c.length;
  }
  while (right && begin < end) {
    const CodePoint c = code_point_before(text, end);
    if (!is_white_space(c.value)) break;
    end -= c.length;
  }
  return text.substr(begin, end - begin);
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::read(const Fields& field) {
  Normalizer normalizer;
  normalizer.read_step(field);
  if (!field.ok()) return field.error();
  return normalizer;
}

void Normalizer::read_step(const Fields& field) {
  const std::string type = field.text("type");
  if (!field.ok()) return;
  if (type == "Sequence") {
    field.only({"type", "normalizers"});
    for (const Fields& child : field.list("normalizers")) read_step(child);
    return;
  }
  if (type == "Prepend") {
    field.only({"type", "prepend"});
    steps_.push_back({.kind = Kind::kPrepend, .content = field.text("prepend")});
  } else if (type == "Replace") {
    field.only({"type", "pattern", "content"});
    steps_.push_back({.kind = Kind::kReplace, .content = field.text("content"), .pattern = Pattern::read(field)});
  } else if (type == "Strip") {
    field.only({"type", "strip_left", "strip_right"});
    steps_.push_back({.kind = Kind::kStrip, .left = field.flag("strip_left"), .right = field.flag("strip_right")});
  } else {
    constexpr std::pair<std::string_view, Kind> kPlain[] = {
        {"NFC", Kind::kNfc}, {"NFD", Kind::kNfd}, {"NFKC", Kind::kNfkc}, {"NFKD", Kind::kNfkd}, {"Lowercase", Kind::kLowercase}};
    const auto* known =
        std::find_if(std::begin(kPlain), std::end(kPlain), [&](const auto& plain) { return plain.first == type; });
    if (known == std::end(kPlain)) return field.unsupported("type");
    field.only({"type"});
    steps_.push_back({.kind = known->second});
  }
}

absl::StatusOr<std::string> Normalizer::apply(std::string text, const MatchBudget& budget) const {
  // The largest expansion of a Unicode form is 18 bytes for one; honest files add a prefix and swap spaces for a symbol.
  const size_t limit = text.size() * 32 + (1 << 16);
  for (const Step& step : steps_) {
    absl::StatusOr<std::string> next;
    switch (step.kind) {
      case Kind::kNfc:
        next = unicode_form(std::move(text), icu::Normalizer2::getNFCInstance);
        break;
      case Kind::kNfd:
        next = unicode_form(std::move(text), icu::Normalizer2::getNFDInstance);
        break;
      case Kind::kNfkc:
        next = unicode_form(std::move(text), icu::Normalizer2::getNFKCInstance);
        break;
      case Kind::kNfkd:
        next = unicode_form(std::move(text), icu::Normalizer2::getNFKDInstance);
        break;
      case Kind::kLowercase:
        next = lowercase(text);
        break;
      case Kind::kStrip:
        next = strip(std::move(text), step.left, step.right);
        break;
      case Kind::kPrepend:
        next = text.empty() ? std::string() : step.content + text;
        break;
      case Kind::kReplace: {
        std::vector<Span> spans;
        if (auto status = step.pattern->find_all(text, budget, spans); !status.ok()) return status;
        std::string replaced;
        for (const Span& span : spans) {
          replaced.append(span.match ? std::string_view(step.content)
                                     : std::string_view(text).substr(span.begin, span.end - span.begin));
          if (replaced.size() > limit) break;
        }
        next = std::move(replaced);
      }
    }
    if (!next.ok()) return next;
    text = *std::move(next);
    if (text.size() > limit) return absl::ResourceExhaustedError(concat("normalizer: the text grows beyond ", limit, " bytes"));
  }
  return text;
}

}  // namespace invar::tokenizer
