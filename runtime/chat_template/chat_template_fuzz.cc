// libFuzzer target: the input up to the first zero byte is a template, the rest is JSON of its variables.
//   runtime_chat_template_fuzz CORPUS_FOLDER
// writes the samples of template_samples.h into CORPUS_FOLDER if it is empty, so that no corpus has to be kept.
#include <cstdlib>
#include <string_view>

#include "runtime/chat_template/chat_template.h"
#include "runtime/chat_template/template_samples.h"
#include "runtime/tokenizer/utf8.h"
#include "tests/support/fuzz_corpus.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  std::vector<std::string> samples;
  for (const std::string& text : invar::jinja::sample_templates())
    samples.push_back(text + '\0' + invar::jinja::sample_variables().dump());
  invar::fill_empty_corpus(*argc, *argv, samples);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const auto parsed = invar::ChatTemplate::parse(std::string(input.substr(0, zero)), "fuzz");
  if (!parsed.ok()) return 0;
  auto variables = zero == std::string_view::npos
                       ? nlohmann::ordered_json()
                       : nlohmann::ordered_json::parse(input.substr(zero + 1), nullptr, /*allow_exceptions=*/false);
  if (!variables.is_object()) variables = invar::jinja::sample_variables();
  const std::chrono::system_clock::time_point now{std::chrono::seconds(1752148800)};
  const auto first = parsed->render(variables, now), again = parsed->render(variables, now);
  if (first.ok() != again.ok()) std::abort();
  if (!first.ok()) return 0;
  // A prompt is text, and always the same one. (Addresses would show here if an object's were ever written.)
  if (*first != *again || invar::tokenizer::first_invalid_utf8(*first) != std::string_view::npos) std::abort();
  return 0;
}
