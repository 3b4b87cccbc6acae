// Text to token ids and back, from a Hugging Face tokenizer.json (BPE models).
//
// A file that asks for anything this folder does not implement is refused with Unimplemented or InvalidArgument naming the
// field and the value; nothing in it is skipped silently. The file is untrusted: no content may crash or hang the process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace invar {

// Immutable after loading; every member may be called from any number of threads at once.
class Tokenizer {
 public:
  // Reads `folder`/tokenizer.json and, where it is there, `folder`/tokenizer_config.json.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> load(const std::filesystem::path& folder);
  // tokenizer_config.json adds what the first file does not say: bos_token, eos_token, add_bos_token, add_eos_token.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> parse(std::string_view tokenizer_json,
                                                                std::string_view tokenizer_config_json = {});
  ~Tokenizer();

  // Ids of `utf8`. `add_special_tokens` adds what the model wants around a prompt (usually BOS); special tokens written out
  // in the text become their ids either way. Errors: InvalidArgument (invalid UTF-8, with its byte offset; text over
  // kMaxTextBytes), ResourceExhausted (a pattern or normalizer of the file costs too much on this text).
  absl::StatusOr<std::vector<int32_t>> encode(std::string_view utf8, bool add_special_tokens) const;

  // Text of `ids`; always valid UTF-8, U+FFFD where the bytes are not. Ids that no token has give no text.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
  // The same, but an id that no token has is InvalidArgument naming the id and its position.
  absl::StatusOr<std::string> decode_checked(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // The largest id + 1. Models may have more rows than this (padding) and ids below it may be holes.
  int32_t vocab_size() const;
  // The id of a token as written in the file ("Ġhello", "<|im_end|>").
  std::optional<int32_t> id_of(std::string_view token) const;
  // The token as written in the file; empty for an id that no token has.
  std::string token_text(int32_t id) const;
  // The bytes the token stands for in the text (" hello"), not necessarily UTF-8; empty for an id that no token has.
  std::string token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

  static constexpr size_t kMaxTextBytes = size_t{1} << 28;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

// Detokenises one sequence as its ids arrive. The concatenation of all push() results and finish() equals
// Tokenizer::decode of all ids. A piece of text is handed out as soon as no later id can change it and never earlier: a
// UTF-8 character spread over several tokens comes whole with the last of them, and bytes that never become a character
// come as U+FFFD when that is certain, at the latest in finish(). Not for use by two threads at once.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string push(int32_t id);
  // Ends the sequence; the next push() begins a new one.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace invar
