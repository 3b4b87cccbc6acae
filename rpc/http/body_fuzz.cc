// libFuzzer target: bodies of every path, read as far as the engine's requests. The first byte chooses the path.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "rpc/http/ask.h"
#include "rpc/http/error_body.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_samples.h"
#include "tests/support/fuzz_corpus.h"

namespace {

constexpr const char* kSamples[] = {
    R"(0{"prompt": ["a", "b"], "best_of": 1, "user": "u", "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": -1, "ignore_eos": true, "stop_token_ids": [1], "min_tokens": 1, "prompt_logprobs": 1, "bad_words": ["x"], "allowed_token_ids": [1, 2], "return_token_ids": true, "return_tokens_as_token_ids": true, "add_special_tokens": false, "priority": -1, "request_id": "r", "include_stop_str_in_output": true, "skip_special_tokens": false, "invar": {"receipt": true, "logprob_bits": true, "require_model_digest": "00"}})",
    R"(0{"model": "m", "prompt": "x", "structured_outputs": {"json": {"type": "object", "properties": {"a": {"$ref": "#"}}}}, "stream": true, "stream_options": {"continuous_usage_stats": true}})",
    R"(0{"prompt": "x", "guided_regex": "[a-z]{2,3}|\\d+", "guided_decoding_backend": "xgrammar"})",
    R"(0{"prompt": "x", "guided_grammar": "root ::= [a-z]{1,5} | root [0-9]"})",
    R"(1{"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "1", "content": "7"}], "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false, "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 9, "chat_template_kwargs": {"enable_thinking": false}, "documents": [{"text": "t"}], "reasoning_effort": "low"})",
    R"(2{"text": ["a", "b"], "sampling_params": {"temperature": 0.5, "top_k": -1, "stop": "x", "regex": "a+", "min_new_tokens": 1, "ignore_eos": true, "spaces_between_special_tokens": true}, "stream": true, "rid": ["1", "2"], "return_text_in_logprobs": true})",
    R"(2{"text": "a", "sampling_params": {"json_schema": "{\"type\": \"integer\"}", "stop_token_ids": [3], "n": 2}})",
    R"(1{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}}}], "tool_choice": "required", "parallel_tool_calls": false})",
    R"(1{"messages": [{"role": "user", "content": "x"}], "tools": [{"function": {"name": "f"}}], "tool_choice": {"type": "function", "function": {"name": "f"}}, "truncate_prompt_tokens": 2})",
    R"(0{"prompt": "hello", "max_tokens": 5, "temperature": 0.7, "stop": ["a", "b"], "logit_bias": {"5": -1}, "n": 2, "echo": true, "logprobs": 3})",
    R"(0{"prompt": [[1, 2], [3]], "stream": true, "stream_options": {"include_usage": true}, "guided_choice": ["yes", "no"], "seed": -5})",
    R"(1{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": 1}"}}]}], "tools": [{"type": "function"}]})",
    R"(1{"messages": [{"role": "assistant", "content": " it is "}], "continue_final_message": true, "add_generation_prompt": false, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}})",
    R"(2{"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 3, "n": 2}, "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 2, "invar": {"receipt": true}})"};

invar::http::ModelFacts model() {
  static const auto tokenizer = invar::Tokenizer::parse(invar::tokenizer::sample_files().front());
  if (!tokenizer.ok()) std::abort();
  invar::http::ModelFacts facts;
  facts.tokenizer = tokenizer->get();
  facts.tool_format = invar::tool_call::Format::kHermes;
  facts.names = {"m"};
  facts.max_model_len = 4096;
  facts.render = [](const invar::http::Json& variables) -> absl::StatusOr<std::string> {
    std::string text;
    for (const auto& message : variables["messages"]) text += message.value("role", "") + message.dump();
    return text;
  };
  return facts;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  invar::fill_empty_corpus(*argc, *argv, {std::begin(kSamples), std::end(kSamples)});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace invar::http;
  if (size == 0) return 0;
  static const ModelFacts facts = model();
  const auto body = parse_body(std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  const auto ask = !body.ok()         ? absl::StatusOr<Ask>(body.status())
                   : data[0] % 3 == 0 ? parse_completion(*body, facts)
                   : data[0] % 3 == 1 ? parse_chat(*body, facts)
                                      : parse_sglang(*body, facts);
  if (ask.ok()) {
    for (const auto& request : ask->requests)
      if (request.prompt_token_ids().ids().empty()) std::abort();
    if (ask->requests.empty() || ask->n == 0) std::abort();
    return 0;
  }
  const int http = http_status(ask.status());
  if (http < 400 || http >= 500) std::abort();
  if (Json::parse(error_json(ask.status()), nullptr, false).is_discarded()) std::abort();
  return 0;
}
