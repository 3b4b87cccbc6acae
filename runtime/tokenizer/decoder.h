// The "decoder" of tokenizer.json: tokens to text, one token at a time.
//
// Hugging Face describes decoders as steps from a list of tokens to a list of tokens. Here each step takes its tokens as they
// come and passes on what no later token can change, so the same program serves streaming and whole sequences.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/fields.h"

namespace invar::tokenizer {

class Decoder {
 public:
  Decoder();  // for a file without a decoder: tokens with a space between them
  // Supported types: ByteLevel, Replace (of strings), ByteFallback, Fuse, Strip, Metaspace, Sequence.
  static absl::StatusOr<Decoder> read(const Fields& field);

  // The bytes one token stands for, wherever in the text it is.
  std::string token_bytes(std::string_view token) const;

 private:
  friend class DecoderRun;
  enum class Kind { kSpaced, kByteLevel, kReplace, kByteFallback, kFuse, kStrip, kMetaspace };
  struct Step {
    Kind kind;
    std::string pattern, content;  // kReplace; kStrip: what is stripped; kMetaspace: from the mark to a space
    int64_t start = 0, stop = 0;   // kStrip: how many at most
    bool drop_in_first = false;    // kMetaspace
  };
  void read_step(const Fields& field);

  std::vector<Step> steps_;
};

// One sequence of tokens on its way through a decoder, which must outlive it.
class DecoderRun {
 public:
  explicit DecoderRun(const Decoder& decoder);
  void token(std::string_view token);
  void finish();
  std::string take();  // the text decided since the last take()

 private:
  using Step = Decoder::Step;
  struct State {
    std::string held;   // of the current token: what waits for its end. kByteLevel: the bytes of a character not complete
    std::string bytes;  // kByteFallback: the bytes of the current run of byte tokens
    uint64_t tokens = 0;
    int64_t to_strip = 0;  // kStrip: how many may still go from the start
  };
  void feed(size_t step, std::string_view text);
  void end_token(size_t step);
  void whole_token(size_t step, std::string_view token);
  void flush_bytes(size_t step);
  void strip(size_t step, std::string_view text);

  const Decoder* decoder_;
  std::vector<State> states_;
  std::string out_;
};

}  // namespace invar::tokenizer
