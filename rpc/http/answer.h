// How answers are written: one class a dialect. Text only; nothing here knows of connections or the engine's threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rpc/http/ask.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar::http {

// What every answer to a request says besides its tokens.
struct AnswerFacts {
  std::string id;       // "cmpl-..."
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string numerics_id, model_digest;
  std::shared_ptr<const Tokenizer> tokenizer;
};

// "numerics id+first 16 digits of the model digest": what must be equal for two answers to be comparable.
std::string fingerprint_of(const AnswerFacts& facts);

// One request's answer. Not for two threads at once.
class Answer {
 public:
  Answer(AnswerFacts facts, Ask ask);
  virtual ~Answer() = default;

  // The body of a whole answer: one response a prompt, everything merged.
  virtual std::string whole(const std::vector<v1::GenerateResponse>& responses) = 0;
  // Server-sent events ("data: ...\n\n") for news of one prompt.
  virtual void events(uint32_t prompt, const v1::GenerateResponse& news, std::string& out) = 0;
  // Behind the last: usage where asked for, then [DONE].
  virtual void last_events(std::string& out);

  const Ask& ask() const { return ask_; }
  // "prompt_tokens=5 completion_tokens=7 digest=..." for the access log; as far as known.
  std::string summary() const;

 protected:
  // What is counted and remembered of one choice of one prompt.
  struct Choice {
    bool begun = false, finished = false;
    int64_t tokens = 0;
    int64_t text_offset = 0;  // in characters
    std::string digest;
    v1::Receipt receipt;
    bool has_receipt = false;
  };
  uint32_t index_of(uint32_t prompt, const v1::ChoiceDelta& delta) const { return prompt * ask_.n + delta.index(); }
  Choice& note(uint32_t prompt, const v1::ChoiceDelta& delta);  // counts the delta's tokens and takes its end over
  void note_usage(const v1::GenerateResponse& response);
  bool all_finished() const { return finished_ == choices_.size(); }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t shown_tokens(const Choice& choice) const { return ask_.no_answer ? 0 : choice.tokens; }

  Json usage() const;  // of the whole request
  Json usage_so_far(uint32_t prompt, const Choice& choice) const;
  Json invar(uint32_t first, uint32_t count) const;  // the "invar" object for these choices
  // The choice's stop_reason as vLLM has it: the stop string, the id as a number, or null.
  Json stop_reason(uint32_t prompt, const v1::ChoiceDelta& delta) const;
  std::string token_text(const v1::Logprob& logprob) const;

  const AnswerFacts facts_;
  const Ask ask_;
  const std::string fingerprint_;
  std::vector<Choice> choices_;

 private:
  size_t finished_ = 0;
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0;
};

// A log-probability as JSON has numbers: vLLM's -9999 where it is minus infinity.
double shown_logprob(const v1::Logprob& logprob);
Json bytes_of(const v1::Logprob& logprob, const Tokenizer* tokenizer);
const char* finish_name(v1::FinishReason reason);  // "stop", "length", "abort", "error"; null for none
std::string dumped(const Json& json);
void add_event(std::string& out, const std::string& data);
// vLLM's prompt_logprobs: a list that begins with null, then {id: {logprob, rank, decoded_token}}.
Json prompt_logprobs_of(const v1::GenerateResponse& response);

std::unique_ptr<Answer> make_completion_answer(AnswerFacts facts, Ask ask);
std::unique_ptr<Answer> make_chat_answer(AnswerFacts facts, Ask ask);
std::unique_ptr<Answer> make_sglang_answer(AnswerFacts facts, Ask ask);

}  // namespace invar::http
