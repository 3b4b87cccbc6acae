// Answers of POST /generate.
#include <chrono>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "rpc/http/answer.h"
#include "rpc/wire/delta_merge.h"

namespace invar::http {
namespace {

class SglangAnswer final : public Answer {
 public:
  SglangAnswer(AnswerFacts facts, Ask ask) : Answer(std::move(facts), std::move(ask)) {
    if (ask_.stream) so_far_.resize(ask_.requests.size());
  }

  std::string whole(const std::vector<v1::GenerateResponse>& responses) override {
    std::vector<Json> answers(choices_.size());
    for (uint32_t p = 0; p < responses.size(); ++p) {
      note_usage(responses[p]);
      for (const v1::ChoiceDelta& delta : responses[p].choices()) {
        note(p, delta);
        answers[index_of(p, delta)] = answer_of(p, delta, responses[p]);
      }
    }
    return dumped(ask_.batch || ask_.n > 1 ? Json(answers) : answers[0]);
  }

  // Every event says all of the answer so far: SGLang's clients take the difference themselves.
  void events(uint32_t prompt, const v1::GenerateResponse& news, std::string& out) override {
    note_usage(news);
    v1::GenerateResponse& whole = so_far_[prompt];
    rpc::merge_response(news, whole);
    for (const v1::ChoiceDelta& delta : news.choices()) {
      note(prompt, delta);
      for (const v1::ChoiceDelta& choice : whole.choices()) {
        if (choice.index() != delta.index()) continue;
        Json answer = answer_of(prompt, choice, whole);
        if (ask_.batch || ask_.n > 1) answer["index"] = index_of(prompt, delta);
        add_event(out, dumped(answer));
      }
    }
  }

 private:
  Json answer_of(uint32_t prompt, const v1::ChoiceDelta& choice, const v1::GenerateResponse& response) {
    const uint32_t index = index_of(prompt, choice);
    const Choice& counted = choices_[index];
    const auto& prompt_ids = ask_.requests[prompt].prompt_token_ids().ids();
    Json meta{{"id", choices_.size() > 1 ? absl::StrCat(facts_.id, "-", index) : facts_.id}};
    meta["finish_reason"] = finish(prompt, choice);
    meta["prompt_tokens"] = prompt_ids.size();
    meta["weight_version"] = facts_.model_digest.substr(0, 16);
    if (ask_.logprobs) add_logprobs(prompt, choice, response, meta);
    meta["completion_tokens"] = counted.tokens;
    meta["cached_tokens"] = response.usage().cached_tokens();
    meta["e2e_latency"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    Json answer{{"text", choice.text()},
                {"output_ids", std::vector<int32_t>(choice.token_ids().begin(), choice.token_ids().end())}};
    answer["meta_info"] = std::move(meta);
    if (counted.finished) answer["invar"] = invar(index, 1);
    return answer;
  }

  Json finish(uint32_t prompt, const v1::ChoiceDelta& choice) const {
    switch (choice.finish_reason()) {
      case v1::FINISH_REASON_UNSPECIFIED:
        return nullptr;
      case v1::FINISH_REASON_LENGTH:
        return {{"type", "length"}, {"length", choice.token_ids_size()}};
      case v1::FINISH_REASON_STOP: {
        Json matched = stop_reason(prompt, choice);
        // SGLang names the token also where it is the model's own end.
        if (matched.is_null() && choice.token_ids_size() > 0) matched = choice.token_ids(choice.token_ids_size() - 1);
        return {{"type", "stop"}, {"matched", matched}};
      }
      default:
        return {{"type", "abort"}, {"message", choice.stop_reason()}};
    }
  }

  // SGLang's triple, with the exact float behind it where it is asked for.
  Json triple(const v1::Logprob& p) const {
    Json out = Json::array({shown_logprob(p), p.token_id(), ask_.text_in_logprobs ? Json(p.text()) : Json(nullptr)});
    if (ask_.logprob_bits) out.push_back(p.logprob_bits());
    return out;
  }
  Json list_of(const google::protobuf::RepeatedPtrField<v1::Logprob>& top) const {
    Json out = Json::array();
    for (const v1::Logprob& p : top) out.push_back(triple(p));
    return out;
  }
  void add_logprobs(uint32_t prompt, const v1::ChoiceDelta& choice, const v1::GenerateResponse& response, Json& meta) const {
    const v1::SamplingParams& s = ask_.requests[prompt].sampling_params();
    Json input = Json::array(), input_top = Json::array(), output = Json::array(), output_top = Json::array();
    if (s.has_prompt_logprobs()) {
      const auto& ids = ask_.requests[prompt].prompt_token_ids().ids();
      for (int64_t i = ask_.logprob_start; i < ids.size(); ++i) {
        if (i == 0) {  // nothing predicts the first token
          input.push_back(Json::array({nullptr, ids[0], nullptr}));
          input_top.push_back(nullptr);
        } else if (i <= response.prompt_logprobs_size()) {
          input.push_back(triple(response.prompt_logprobs(static_cast<int>(i) - 1).chosen()));
          input_top.push_back(list_of(response.prompt_logprobs(static_cast<int>(i) - 1).top()));
        }
      }
    }
    for (const v1::TokenLogprobs& token : choice.logprobs()) {
      output.push_back(triple(token.chosen()));
      output_top.push_back(list_of(token.top()));
    }
    meta["input_token_logprobs"] = std::move(input);
    meta["output_token_logprobs"] = std::move(output);
    if (s.logprobs() > 0) {
      meta["input_top_logprobs"] = std::move(input_top);
      meta["output_top_logprobs"] = std::move(output_top);
    }
  }

  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::vector<v1::GenerateResponse> so_far_;  // by prompt, when streaming
};

}  // namespace

std::unique_ptr<Answer> make_sglang_answer(AnswerFacts facts, Ask ask) {
  return std::make_unique<SglangAnswer>(std::move(facts), std::move(ask));
}

}  // namespace invar::http
