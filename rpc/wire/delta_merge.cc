#include "rpc/wire/delta_merge.h"

namespace invar::rpc {
namespace {

v1::ChoiceDelta& choice_of(uint32_t index, v1::GenerateResponse& response) {
  for (v1::ChoiceDelta& choice : *response.mutable_choices()) {
    if (choice.index() == index) return choice;
  }
  v1::ChoiceDelta& choice = *response.add_choices();
  choice.set_index(index);
  return choice;
}

}  // namespace

// A proto3 merge concatenates repeated fields, replaces scalars that are set and merges messages: right for every field but the
// text, which must be appended, and the choices, which go by index. Usage comes once, in the last response.
void merge_response(const v1::GenerateResponse& next, v1::GenerateResponse& waiting) {
  for (const v1::ChoiceDelta& delta : next.choices()) {
    v1::ChoiceDelta& choice = choice_of(delta.index(), waiting);
    std::string text = std::move(*choice.mutable_text());
    text += delta.text();
    choice.MergeFrom(delta);
    *choice.mutable_text() = std::move(text);
  }
  if (!next.request_id().empty()) waiting.set_request_id(next.request_id());
  waiting.mutable_prompt_logprobs()->MergeFrom(next.prompt_logprobs());
  if (next.has_usage()) *waiting.mutable_usage() = next.usage();
  if (next.finished()) waiting.set_finished(true);
}

}  // namespace invar::rpc
