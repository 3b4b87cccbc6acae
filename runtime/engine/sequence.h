// One choice of a request as the scheduler sees it: its tokens, how far plans have taken it, and its pages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/engine/constraint.h"
#include "runtime/engine/prefix_cache.h"
#include "runtime/proto/generate.pb.h"

namespace invar::engine {

class Request;

struct Sequence {
  // Fixed at submission.
  Request* request = nullptr;
  uint32_t choice = 0;
  int32_t priority = 0;
  uint64_t arrival = 0;
  int64_t prompt_length = 0;
  int64_t end = 0;  // positions [0, end) are computed if nothing ends the sequence before: prompt + most answer tokens - 1
  const v1::SamplingParams* sampling = nullptr;  // of the request, as everything a start tells the ranks
  const std::string* request_id = nullptr;
  const std::vector<int32_t>* late_token_ids = nullptr;
  const std::vector<std::vector<int32_t>>* bad_words = nullptr;
  int32_t top_logprobs = -1;
  int32_t prompt_logprobs = -1;

  // What is known of its text. Results append to it; forced tokens are all there from the start.
  std::vector<int32_t> tokens;
  int64_t logits_from = 0;                 // the first position whose logits have not come back and are needed
  std::vector<BlockKey> keys;              // of the full blocks of `tokens` so far
  std::unique_ptr<Constraint> constraint;  // null = free; else draws are planned only behind known tokens

  // The present life on the ranks. A preempted or moved sequence starts anew under another number.
  enum class State : uint8_t { kNew, kWaiting, kRunning, kDone };
  State state = State::kNew;
  uint64_t number = 0;  // 0 = the ranks do not know it
  int home = 0;
  int64_t planned = 0;          // positions [0, planned) are in submitted plans or came from the prefix cache
  int64_t pending = 0;          // results of submitted plans that have not come back
  std::vector<uint32_t> pages;  // page table
  int64_t registered = 0;       // leading pages that the prefix cache knows (or has an equal one of)
  int64_t announced = 0;        // blocks [registered, announced) are announced as being computed

  // While waiting: the last of the blocks it shares with a sequence that is computing them on `home`; -1 = none is awaited.
  int64_t awaited_block = -1;

  bool started_before = false;
  int64_t cached_tokens = 0;  // found in the prefix cache at the first start

  // Known tokens that can still be planned as one prefill; 1 or less: the next chunk is a decode step.
  int64_t known_ahead() const { return std::min<int64_t>(static_cast<int64_t>(tokens.size()), end) - planned; }
  bool plannable() const { return planned < end; }
  // Answer tokens before `position`, all known.
  std::span<const int32_t> answer_before(int64_t position) const {
    return std::span(tokens).subspan(static_cast<size_t>(prompt_length), static_cast<size_t>(position - prompt_length));
  }
};

// Who runs first: smaller priority, then earlier arrival, then smaller choice. Total and independent of addresses, so that a
// run can be repeated.
struct SequenceOrder {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return std::tie(a->priority, a->arrival, a->choice) < std::tie(b->priority, b->arrival, b->choice);
  }
};

}  // namespace invar::engine
