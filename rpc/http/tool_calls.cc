#include "rpc/http/tool_calls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace invar::http {
namespace {

// Mistral's templates want nine letters or digits.
constexpr size_t kMistralIdLength = 9;

std::string digest_of_prompt(const Ask& ask, uint32_t prompt, uint32_t choice, std::string_view model_digest) {
  const auto& ids = ask.requests[prompt].prompt_token_ids().ids();
  const v1::SamplingParams& sampling = ask.requests[prompt].sampling_params();
  return receipt::hex(receipt::Sha256()
                          .text("tool call")
                          .text(model_digest)
                          .ids({ids.data(), static_cast<size_t>(ids.size())})
                          .le32(sampling.has_seed() ? 1 : 0)
                          .le64(sampling.seed())
                          .le32(choice)
                          .finish());
}

}  // namespace

ToolCalls::ToolCalls(const Ask& ask, uint32_t prompt, uint32_t choice, std::string_view model_digest)
    : use_(ask.tools),
      before_(digest_of_prompt(ask, prompt, choice, model_digest)),
      reader_(use_.mode == ToolUse::Mode::kNamed ? tool_call::make_named_reader(use_.name)
                                                 : tool_call::make_reader(use_.format)) {}

std::string ToolCalls::next_id(const std::string& name) {
  const receipt::Digest digest = receipt::Sha256().text(before_).text(std::exchange(said_, {})).text(name).finish();
  before_ = receipt::hex(digest);
  if (use_.mode != ToolUse::Mode::kAuto || use_.format != tool_call::Format::kMistral)
    return absl::StrCat("chatcmpl-tool-", before_.substr(0, 32));
  constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id;
  for (size_t i = 0; i < kMistralIdLength; ++i) id += kDigits[digest[i] % kDigits.size()];
  return id;
}

ToolCalls::News ToolCalls::take(std::string_view text, bool last) {
  std::vector<tool_call::Event> events;
  reader_->take(text, &events);
  if (last) reader_->finish(&events);
  News news;
  for (tool_call::Event& e : events) {
    using Kind = tool_call::Event::Kind;
    if (e.kind == Kind::kCall) {
      named_calls_ = e.call + 1;
      const std::string id = next_id(e.text);
      if (use_.parallel || e.call == 0) news.calls.push_back({e.call, true, id, std::move(e.text), ""});
      continue;
    }
    said_ += e.text;
    if (e.kind == Kind::kContent) {
      news.content += e.text;
      continue;
    }
    if (!use_.parallel && e.call > 0) continue;
    if (news.calls.empty() || news.calls.back().index != e.call) news.calls.push_back({e.call, false, "", "", ""});
    news.calls.back().arguments += e.text;
  }
  return news;
}

}  // namespace invar::http
