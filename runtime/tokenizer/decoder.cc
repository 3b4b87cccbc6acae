#include "runtime/tokenizer/decoder.h"

#include <algorithm>
#include <cctype>

#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr size_t kMaxSteps = 32;
constexpr int64_t kMaxStrip = 1 << 20;
constexpr int kMaxGrowth = 4096;

bool is_one_character(std::string_view text) {
  return !text.empty() && utf8_length(static_cast<unsigned char>(text[0])) == static_cast<int>(text.size());
}

// The byte of a token like <0x0A>, or -1.
int byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const auto digit = static_cast<unsigned char>(c);
    if (!std::isxdigit(digit)) return -1;
    value = value * 16 + (std::isdigit(digit) ? digit - '0' : std::tolower(digit) - 'a' + 10);
  }
  return value;
}

}  // namespace

Decoder::Decoder() : steps_{{.kind = Kind::kSpaced}} {}

absl::StatusOr<Decoder> Decoder::read(const Fields& field) {
  Decoder decoder;
  decoder.steps_.clear();
  decoder.read_step(field);
  // Replacing may double a token step after step, and decoding has no way to refuse: so the file is refused.
  double growth = 1;
  for (const Step& step : decoder.steps_) {
    if (step.kind == Kind::kReplace && field.ok())
      growth *= std::max(1.0, static_cast<double>(step.content.size()) / static_cast<double>(step.pattern.size()));
  }
  if (growth > kMaxGrowth) field.fail("", concat("makes tokens more than ", kMaxGrowth, " times as long"));
  if (decoder.steps_.size() > kMaxSteps) field.fail("", concat("more than ", kMaxSteps, " steps"));
  if (!field.ok()) return field.error();
  return decoder;
}

void Decoder::read_step(const Fields& field) {
  const std::string type = field.text("type");
  if (!field.ok()) return;
  if (type == "Sequence") {
    field.only({"type", "decoders"});
    for (const Fields& child : field.list("decoders")) read_step(child);
  } else if (type == "ByteLevel") {
    field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});  // none of them matters when decoding
    steps_.push_back({.kind = Kind::kByteLevel});
  } else if (type == "Replace") {
    field.only({"type", "pattern", "content"});
    const Fields pattern = field.child("pattern");
    if (pattern.present("Regex")) pattern.unsupported("Regex");
    pattern.only({"String"});
    steps_.push_back({.kind = Kind::kReplace, .pattern = pattern.text("String"), .content = field.text("content")});
    if (field.ok() && steps_.back().pattern.empty()) pattern.fail("String", "is empty");
  } else if (type == "ByteFallback") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kByteFallback});
  } else if (type == "Fuse") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kFuse});
  } else if (type == "Strip") {
    field.only({"type", "content", "start", "stop"});
    steps_.push_back({.kind = Kind::kStrip,
                      .content = field.text("content"),
                      .start = field.integer("start", 0, kMaxStrip),
                      .stop = field.integer("stop", 0, kMaxStrip)});
    if (field.ok() && !is_one_character(steps_.back().content)) field.fail("content", "is not one character");
  } else if (type == "Metaspace") {
    field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
    const std::string scheme = field.text("prepend_scheme", field.flag("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never") field.unsupported("prepend_scheme");
    steps_.push_back(
        {.kind = Kind::kMetaspace, .pattern = field.text("replacement"), .content = " ", .drop_in_first = scheme != "never"});
    if (field.ok() && !is_one_character(steps_.back().pattern)) field.fail("replacement", "is not one character");
  } else {
    field.unsupported("type");
  }
}

std::string Decoder::token_bytes(std::string_view token) const {
  std::string text(token);
  for (const Step& step : steps_) {
    if (step.kind == Kind::kByteLevel) {
      std::string bytes;
      append_token_bytes(text, bytes);
      return bytes;
    }
    if (step.kind == Kind::kReplace || step.kind == Kind::kMetaspace) text = replace_all(text, step.pattern, step.content);
    if (step.kind == Kind::kByteFallback) {
      if (const int byte = byte_token(text); byte >= 0) return std::string(1, static_cast<char>(byte));
    }
  }
  return text;
}

DecoderRun::DecoderRun(const Decoder& decoder) : decoder_(&decoder), states_(decoder.steps_.size()) {
  for (size_t i = 0; i < states_.size(); ++i) states_[i].to_strip = decoder.steps_[i].start;
}

void DecoderRun::token(std::string_view token) { whole_token(0, token); }

std::string DecoderRun::take() {
  std::string text;
  text.swap(out_);
  return text;
}

void DecoderRun::whole_token(size_t i, std::string_view token) {
  feed(i, token);
  end_token(i);
}

// Text of the current token, never cut inside a character.
void DecoderRun::feed(size_t i, std::string_view text) {
  if (i == states_.size()) {
    out_ += text;
    return;
  }
  const Step& step = decoder_->steps_[i];
  State& state = states_[i];
  switch (step.kind) {
    case Decoder::Kind::kSpaced:
      if (state.tokens > 0) feed(i + 1, " ");
      feed(i + 1, text);
      break;
    case Decoder::Kind::kFuse:
      feed(i + 1, text);
      break;
    case Decoder::Kind::kStrip:
      strip(i, text);
      break;
    case Decoder::Kind::kMetaspace:
      feed(i + 1, replace_all(text, step.pattern, step.drop_in_first && state.tokens == 0 ? "" : step.content));
      break;
    case Decoder::Kind::kReplace:
      // A match of one character cannot reach over the end of `text`; a longer one waits for the end of the token.
      if (is_one_character(step.pattern)) {
        feed(i + 1, replace_all(text, step.pattern, step.content));
        break;
      }
      [[fallthrough]];
    case Decoder::Kind::kByteLevel:
    case Decoder::Kind::kByteFallback:
      state.held += text;
  }
}

void DecoderRun::end_token(size_t i) {
  if (i == states_.size()) return;
  const Step& step = decoder_->steps_[i];
  State& state = states_[i];
  ++state.tokens;
  switch (step.kind) {
    case Decoder::Kind::kFuse:
      return;  // the one token it makes ends in finish()
    case Decoder::Kind::kByteLevel: {
      append_token_bytes(state.held, state.bytes);
      state.held.clear();
      std::string text;
      drain_lossy(state.bytes, false, text);
      feed(i + 1, text);
      return;
    }
    case Decoder::Kind::kByteFallback: {
      std::string token;
      token.swap(state.held);
      if (const int byte = byte_token(token); byte >= 0) {
        state.bytes.push_back(static_cast<char>(byte));
        return;
      }
      flush_bytes(i);
      feed(i + 1, token);
      break;
    }
    case Decoder::Kind::kReplace: {
      std::string token;
      token.swap(state.held);
      if (!token.empty()) feed(i + 1, replace_all(token, step.pattern, step.content));
      break;
    }
    case Decoder::Kind::kStrip:
      state.held.clear();  // what waited is at the end, and goes
      state.to_strip = step.start;
      break;
    case Decoder::Kind::kSpaced:
    case Decoder::Kind::kMetaspace:
      break;
  }
  end_token(i + 1);
}

// A run of byte tokens is text only if all of it is UTF-8; otherwise each byte becomes U+FFFD. So nothing of a run is decided
// before it ends.
void DecoderRun::flush_bytes(size_t i) {
  std::string bytes;
  bytes.swap(states_[i].bytes);
  if (bytes.empty()) return;
  if (first_invalid_utf8(bytes) == std::string_view::npos) return whole_token(i + 1, bytes);
  for (size_t n = 0; n < bytes.size(); ++n) whole_token(i + 1, kReplacementCharacter);
}

void DecoderRun::strip(size_t i, std::string_view text) {
  const Step& step = decoder_->steps_[i];
  State& state = states_[i];
  size_t begin = 0;
  while (state.to_strip > 0 && text.substr(begin).starts_with(step.content)) {
    begin += step.content.size();
    --state.to_strip;
  }
  text.remove_prefix(begin);
  if (text.empty()) return;
  state.to_strip = 0;
  // The last `stop` of a tail of such characters wait: if the token ends with them they go.
  std::string all = std::move(state.held) + std::string(text);
  size_t end = all.size();
  for (int64_t n = 0; n < step.stop && std::string_view(all).substr(0, end).ends_with(step.content); ++n)
    end -= step.content.size();
  state.held = all.substr(end);
  all.resize(end);
  feed(i + 1, all);
}

void DecoderRun::finish() {
  for (size_t i = 0; i < states_.size(); ++i) {
    State& state = states_[i];
    switch (decoder_->steps_[i].kind) {
      case Decoder::Kind::kByteLevel: {
        std::string text;
        drain_lossy(state.bytes, true, text);
        feed(i + 1, text);
        end_token(i + 1);
        break;
      }
      case Decoder::Kind::kFuse:
        end_token(i + 1);
        break;
      case Decoder::Kind::kByteFallback:
        flush_bytes(i);
        break;
      default:
        break;
    }
    state = State();
    state.to_strip = decoder_->steps_[i].start;
  }
}

}  // namespace invar::tokenizer
