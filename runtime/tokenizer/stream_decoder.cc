#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_parts.h"

namespace invar {

struct StreamDecoder::State {
  State(std::shared_ptr<const Tokenizer> t, bool skip)
      : tokenizer(std::move(t)), skip_special(skip), run(tokenizer->parts_->decoder) {}
  std::shared_ptr<const Tokenizer> tokenizer;  // keeps alive the decoder that `run` points to
  bool skip_special;
  tokenizer::DecoderRun run;
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : state_(std::make_unique<State>(std::move(tokenizer), skip_special_tokens)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  const auto token = state_->tokenizer->parts_->token(id);
  if (!token || (state_->skip_special && state_->tokenizer->is_special(id))) return {};
  state_->run.token(*token);
  return state_->run.take();
}

std::string StreamDecoder::finish() {
  state_->run.finish();
  return state_->run.take();
}

}  // namespace invar
