// A request from its acceptance to its last response: its choices and the response being gathered.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine/choice_output.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/validate.h"
#include "runtime/proto/generate.pb.h"
#include "runtime/proto/step.pb.h"

namespace invar::engine {

// Owned and used by the engine's thread once submitted. `context` must outlive it.
class Request {
 public:
  Request(ValidRequest valid, Engine::Callback callback, const EngineContext& context);
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // Gives it its id and its place in the order of arrival; before it is scheduled.
  void admit(std::string id, uint64_t arrival);
  const std::string& id() const { return valid_.id; }
  const ValidRequest& valid() const { return valid_; }
  // sequence(i) computes choice valid().first_choice + i.
  Sequence* sequence(uint32_t i) { return &sequences_[i]; }
  uint32_t choices() const { return static_cast<uint32_t>(sequences_.size()); }

  // Takes the result over that `s`, a sequence of this request, waits for: position logits_from + 1. What it says is added to the
  // response being gathered. Returns true when it ended the choice.
  bool take(Sequence* s, const v1::TokenResult& result);

  // Log-probabilities of the prompt belong into the first response, so the other choices wait until the first has brought them.
  bool prompt_logprobs_missing() const;
  bool finished() const { return unfinished_ == 0; }
  // Forced tokens taken so far, and those that the draws differ from.
  uint64_t verified() const { return verified_; }
  uint64_t mismatches() const { return mismatches_; }
  bool has_response() const { return response_.choices_size() > 0; }
  // What was gathered since response_taken(), to be called once before it; with usage and finished set if it is the last.
  const v1::GenerateResponse& response();
  void response_taken() { response_.Clear(); }  // keeps the memory for the next

  // Kept by the engine.
  Engine::Callback callback;
  int replica = -1;
  std::chrono::steady_clock::time_point submitted;
  bool queued = true;         // no sequence has started yet
  bool choices_held = false;  // all choices but the first wait for the prompt's log-probabilities
  bool touched = false;       // has something to say after this step

 private:
  v1::ChoiceDelta* delta_of(uint32_t choice);

  ValidRequest valid_;
  const EngineContext& context_;
  std::vector<Sequence> sequences_;  // in order of choices; never resized: the scheduler holds pointers
  std::vector<std::unique_ptr<ChoiceOutput>> outputs_;
  v1::GenerateResponse response_;
  std::vector<v1::TokenLogprobs> prompt_logprobs_;
  bool prompt_logprobs_sent_ = false;
  uint32_t unfinished_ = 0;
  uint64_t verified_ = 0, mismatches_ = 0;
};

}  // namespace invar::engine
