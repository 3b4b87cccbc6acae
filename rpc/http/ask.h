// What a client asks for, whatever dialect it came in: the engine's requests and how the answer is to be written.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/http/error_body.h"
#include "rpc/http/fields.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tool_call/format.h"

namespace invar::http {

inline constexpr size_t kMaxPrompts = 1024;  // in one request

// Messages and the like (an object) to the text of a prompt.
using RenderChat = std::function<absl::StatusOr<std::string>(const Json& variables)>;

// What parsing needs to know of the model.
struct ModelFacts {
  std::vector<std::string> names;  // the first is shown
  const Tokenizer* tokenizer = nullptr;
  int64_t max_model_len = 0;
  RenderChat render;                             // null = the model has no chat template
  std::optional<tool_call::Format> tool_format;  // in which the model writes calls when it chooses; none = not enabled
};

// How the calls of tools get into an answer.
struct ToolUse {
  enum class Mode : uint8_t { kNone, kAuto, kRequired, kNamed };
  Mode mode = Mode::kNone;
  tool_call::Format format = tool_call::Format::kForced;  // kAuto, kRequired
  std::string name;                                       // kNamed
  bool parallel = true;                                   // false: only the first call is shown
};

struct Ask {
  // One a prompt, all with the same n; prompts are token ids, request_id is empty.
  std::vector<v1::GenerateRequest> requests;
  std::vector<std::string> prompt_texts;  // with echo
  bool batch = false;                     // SGLang: the answer is a list
  uint32_t n = 1;
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false;
  bool no_answer = false;  // max_tokens 0 with echo: one token is drawn, and not shown
  bool logprobs = false;
  std::optional<int64_t> keep_last;  // truncate_prompt_tokens: so many tokens of a longer prompt
  bool tokens_as_ids = false, return_token_ids = false;
  bool text_in_logprobs = false;  // SGLang
  ToolUse tools;
  int64_t logprob_start = -1;  // SGLang: the first prompt position whose log-probability is shown; -1 = none
  bool logprob_bits = false;
  std::string request_id;            // SGLang's rid; empty = the HTTP request's
  std::vector<std::string> ignored;  // fields nobody knows
  FieldNames field_names;            // what the client calls the engine's fields

  void set_receipt(bool wanted) {
    for (v1::GenerateRequest& r : requests) r.set_return_receipt(wanted || r.return_receipt());
  }
};

// Each reads one request body. InvalidArgument names the field and the value; nothing was computed but token ids.
absl::StatusOr<Ask> parse_completion(const Json& body, const ModelFacts& model);
absl::StatusOr<Ask> parse_chat(const Json& body, const ModelFacts& model);
absl::StatusOr<Ask> parse_sglang(const Json& body, const ModelFacts& model);

// The prompt of a chat body: rendered, and as ids with no special tokens added (templates write them). Shared with /tokenize.
absl::StatusOr<std::string> render_chat(Fields& fields, const ModelFacts& model);
// Ids of a prompt, the last `keep_last` of them; `field` names it in errors. Checks the length against the model's.
absl::StatusOr<std::vector<int32_t>> encode_prompt(const std::string& field, const std::string& text, bool add_special_tokens,
                                                   const ModelFacts& model, std::optional<int64_t> keep_last = std::nullopt);
void truncate_prompt(std::vector<int32_t>& ids, std::optional<int64_t> keep_last);
absl::Status check_prompt_length(const std::string& field, size_t tokens, const ModelFacts& model);
// NotFound when `model` is given and is none of the model's names.
absl::Status check_model_name(Fields& fields, const ModelFacts& model);

// The members that OpenAI's dialects share: sampling, structured output, stream options, the "invar" object.
void read_shared(Fields& fields, const ModelFacts& model, Ask& ask, v1::GenerateRequest& base);
// response_format, guided_*, structured_outputs.
void read_structured(Fields& fields, v1::SamplingParams& sampling, FieldNames& names);
// tools, tool_choice, parallel_tool_calls. After read_shared: a forced call excludes other constraints.
void read_tools(Fields& fields, const ModelFacts& model, Ask& ask, v1::SamplingParams& sampling);
// {"receipt", "logprob_bits", "require_model_digest"}
void read_invar(Fields& fields, Ask& ask, v1::GenerateRequest& base);

}  // namespace invar::http
