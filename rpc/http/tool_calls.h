// The calls of tools in one choice of a chat answer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "rpc/http/ask.h"
#include "runtime/receipt/sha256.h"
#include "runtime/tool_call/reader.h"

namespace invar::http {

class ToolCalls {
 public:
  struct Call {
    int32_t index = 0;
    bool begins = false;  // id and name are its, otherwise it is more of a call that was there
    std::string id, name;
    std::string arguments;
  };
  struct News {
    std::string content;
    std::vector<Call> calls;  // one entry a call
  };

  // `ask` has a tool mode. Ids of calls are a function of the model, the prompt, the seed, the choice and what it said before the
  // call: whoever asks again gets the same ones, whole or streamed.
  ToolCalls(const Ask& ask, uint32_t prompt, uint32_t choice, std::string_view model_digest);
  // `last`: the text ends here.
  News take(std::string_view text, bool last);
  // Calls that the model chose to make, or had to choose, end an answer with "tool_calls"; the arguments of a function that was
  // named do not (OpenAI's way, and vLLM's).
  bool end_the_answer() const { return named_calls_ > 0 && use_.mode != ToolUse::Mode::kNamed; }

 private:
  std::string next_id(const std::string& name);

  const ToolUse use_;
  std::string before_;  // digest of what was said so far
  std::unique_ptr<tool_call::Reader> reader_;
  std::string said_;  // since `before_`
  int32_t named_calls_ = 0;
};

}  // namespace invar::http
