// libFuzzer target: the input up to the first zero byte is tokenizer.json, the rest is text to encode.
//   runtime_tokenizer_fuzz CORPUS_FOLDER
// writes the samples of tokenizer_samples.h into CORPUS_FOLDER if it is empty, so that no corpus has to be kept.
#include <cstdlib>
#include <string_view>

#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_samples.h"
#include "tests/support/fuzz_corpus.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  std::vector<std::string> samples;
  for (const std::string& file : invar::tokenizer::sample_files())
    for (const std::string& text : invar::tokenizer::sample_texts()) samples.push_back(file + '\0' + text);
  invar::fill_empty_corpus(*argc, *argv, samples);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const auto made = invar::Tokenizer::parse(input.substr(0, zero));
  if (!made.ok()) return 0;
  const std::string_view text = zero == std::string_view::npos ? "hello" : input.substr(zero + 1);
  const auto ids = (*made)->encode(text, true);
  if (!ids.ok()) return 0;
  invar::StreamDecoder stream(*made, false);
  std::string streamed;
  for (const int32_t id : *ids) {
    if (id < 0 || id >= (*made)->vocab_size()) std::abort();
    const std::string piece = stream.push(id);
    if (invar::tokenizer::first_invalid_utf8(piece) != std::string_view::npos) std::abort();
    streamed += piece;
  }
  streamed += stream.finish();
  if (streamed != (*made)->decode(*ids, false)) std::abort();
  return 0;
}
