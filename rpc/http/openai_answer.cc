// Answers of /v1/completions and /v1/chat/completions.
#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "rpc/http/answer.h"
#include "rpc/http/tool_calls.h"

namespace invar::http {
namespace {

int64_t characters(const std::string& text) {
  int64_t count = 0;
  for (const char c : text) count += (c & 0xc0) != 0x80;
  return count;
}

class OpenAiAnswer : public Answer {
 public:
  OpenAiAnswer(AnswerFacts facts, Ask ask, const char* whole_object, const char* chunk_object)
      : Answer(std::move(facts), std::move(ask)), whole_object_(whole_object) {
    chunk_head_ = dumped({{"id", facts_.id},
                          {"object", chunk_object},
                          {"created", facts_.created},
                          {"model", facts_.model},
                          {"system_fingerprint", fingerprint_}});
    chunk_head_.back() = ',';
    chunk_head_ += "\"choices\":[";
  }

  std::string whole(const std::vector<v1::GenerateResponse>& responses) override {
    Json choices = Json::array();
    for (uint32_t p = 0; p < responses.size(); ++p) {
      note_usage(responses[p]);
      for (const v1::ChoiceDelta& delta : responses[p].choices()) {
        note(p, delta);
        choices.push_back(whole_choice(p, delta, responses[p]));
      }
    }
    std::sort(choices.begin(), choices.end(), [](const Json& a, const Json& b) { return a["index"] < b["index"]; });
    Json answer{{"id", facts_.id}, {"object", whole_object_}, {"created", facts_.created}, {"model", facts_.model}};
    answer["choices"] = std::move(choices);
    answer["usage"] = usage();
    answer["system_fingerprint"] = fingerprint_;
    answer["invar"] = invar(0, static_cast<uint32_t>(choices_.size()));
    add_to_whole(responses, answer);
    return dumped(answer);
  }

  void events(uint32_t prompt, const v1::GenerateResponse& news, std::string& out) override {
    note_usage(news);
    note_prompt(prompt, news);
    for (const v1::ChoiceDelta& delta : news.choices()) {
      const uint32_t index = index_of(prompt, delta);
      if (!std::exchange(choices_[index].begun, true)) begin_choice(prompt, index, out);
      Choice& choice = note(prompt, delta);
      std::string chunk = chunk_head_;
      if (!add_choice(prompt, index, delta, choice, chunk) && !ask_.continuous_usage) continue;
      chunk += ']';
      if (ask_.continuous_usage) absl::StrAppend(&chunk, ",\"usage\":", dumped(usage_so_far(prompt, choice)));
      // The proof comes with the last chunk. A chunk without choices of its own would break clients that read choices[0].
      if (choice.finished && all_finished() && !ask_.include_usage)
        absl::StrAppend(&chunk, ",\"invar\":", dumped(invar_of_all()));
      chunk += '}';
      add_event(out, chunk);
    }
  }

  void last_events(std::string& out) override {
    if (ask_.include_usage)
      add_event(out, absl::StrCat(chunk_head_, "],\"usage\":", dumped(usage()), ",\"invar\":", dumped(invar_of_all()), "}"));
    Answer::last_events(out);
  }

 protected:
  virtual Json whole_choice(uint32_t prompt, const v1::ChoiceDelta& delta, const v1::GenerateResponse& response) = 0;
  virtual void add_to_whole(const std::vector<v1::GenerateResponse>&, Json&) {}
  virtual void note_prompt(uint32_t, const v1::GenerateResponse&) {}
  virtual void begin_choice(uint32_t, uint32_t, std::string&) {}
  // Appends the choice's object. False: it says nothing, and need not be sent.
  virtual bool add_choice(uint32_t prompt, uint32_t index, const v1::ChoiceDelta& delta, Choice& choice, std::string& chunk) = 0;

  void add_end(uint32_t prompt, const v1::ChoiceDelta& delta, std::string& chunk, bool calls = false) const {
    const char* finish = finish_of(delta, calls);
    if (finish == nullptr) {
      chunk += ",\"finish_reason\":null";
    } else {
      absl::StrAppend(&chunk, ",\"finish_reason\":\"", finish, "\",\"stop_reason\":", dumped(stop_reason(prompt, delta)));
    }
    if (ask_.return_token_ids) absl::StrAppend(&chunk, ",\"token_ids\":", dumped(token_ids(delta)));
    chunk += '}';
  }
  void add_end(uint32_t prompt, const v1::ChoiceDelta& delta, Json& choice, bool calls = false) const {
    const char* finish = finish_of(delta, calls);
    choice["finish_reason"] = finish != nullptr ? Json(finish) : Json(nullptr);
    choice["stop_reason"] = stop_reason(prompt, delta);
    if (ask_.return_token_ids) choice["token_ids"] = token_ids(delta);
  }
  // An answer that ended by itself and holds calls that the model chose (or had to choose among) ends with them.
  static const char* finish_of(const v1::ChoiceDelta& delta, bool calls) {
    return calls && delta.finish_reason() == v1::FINISH_REASON_STOP ? "tool_calls" : finish_name(delta.finish_reason());
  }
  static Json token_ids(const v1::ChoiceDelta& delta) {
    return std::vector<int32_t>(delta.token_ids().begin(), delta.token_ids().end());
  }
  Json prompt_ids(uint32_t prompt) const {
    const auto& ids = ask_.requests[prompt].prompt_token_ids().ids();
    return std::vector<int32_t>(ids.begin(), ids.end());
  }
  bool wants_prompt_logprobs(uint32_t prompt) const {
    return ask_.requests[prompt].sampling_params().has_prompt_logprobs() && !ask_.echo;
  }

  const std::string& chunk_head() const { return chunk_head_; }

 private:
  Json invar_of_all() const { return invar(0, static_cast<uint32_t>(choices_.size())); }

  const char* const whole_object_;
  std::string chunk_head_;
};

class CompletionAnswer final : public OpenAiAnswer {
 public:
  CompletionAnswer(AnswerFacts facts, Ask ask)
      : OpenAiAnswer(std::move(facts), std::move(ask), "text_completion", "text_completion") {}

 private:
  struct Columns {
    Json text_offset = Json::array(), token_logprobs = Json::array(), tokens = Json::array(), top_logprobs = Json::array();
    Json token_bits = Json::array(), top_bits = Json::array();
  };

  void add_token(const v1::TokenLogprobs& token, Choice& choice, Columns& out) const {
    Json top = Json::object(), bits = Json::object();
    // Of two tokens with the same text the likelier counts.
    const auto add = [&](const v1::Logprob& p) {
      const std::string text = token_text(p);
      if (top.contains(text)) return;
      top[text] = shown_logprob(p);
      bits[text] = p.logprob_bits();
    };
    for (const v1::Logprob& p : token.top()) add(p);
    add(token.chosen());
    const std::string text = token_text(token.chosen());
    out.tokens.push_back(text);
    out.token_logprobs.push_back(shown_logprob(token.chosen()));
    out.top_logprobs.push_back(std::move(top));
    out.text_offset.push_back(choice.text_offset);
    out.token_bits.push_back(token.chosen().logprob_bits());
    out.top_bits.push_back(std::move(bits));
    choice.text_offset += characters(text);
  }
  // The first prompt token: nothing predicted it.
  void add_first_token(uint32_t prompt, Choice& choice, Columns& out) const {
    v1::Logprob first;
    first.set_token_id(ask_.requests[prompt].prompt_token_ids().ids(0));
    if (facts_.tokenizer != nullptr) {
      const int32_t id = first.token_id();
      first.set_text(facts_.tokenizer->decode({&id, 1}, false));
    }
    const std::string text = token_text(first);
    out.tokens.push_back(text);
    for (Json* column : {&out.token_logprobs, &out.top_logprobs, &out.token_bits, &out.top_bits}) column->push_back(nullptr);
    out.text_offset.push_back(choice.text_offset);
    choice.text_offset += characters(text);
  }
  Json shown(Columns columns) const {
    Json out{{"text_offset", std::move(columns.text_offset)},
             {"token_logprobs", std::move(columns.token_logprobs)},
             {"tokens", std::move(columns.tokens)},
             {"top_logprobs", std::move(columns.top_logprobs)}};
    if (ask_.logprob_bits) {
      out["token_logprob_bits"] = std::move(columns.token_bits);
      out["top_logprob_bits"] = std::move(columns.top_bits);
    }
    return out;
  }

  Json whole_choice(uint32_t prompt, const v1::ChoiceDelta& delta, const v1::GenerateResponse& response) override {
    const uint32_t index = index_of(prompt, delta);
    Json choice{{"index", index},
                {"text", absl::StrCat(ask_.echo ? ask_.prompt_texts[prompt] : "", ask_.no_answer ? "" : delta.text())}};
    choice["logprobs"] = nullptr;
    if (ask_.logprobs) {
      Columns columns;
      if (ask_.echo) {
        add_first_token(prompt, choices_[index], columns);
        for (const v1::TokenLogprobs& token : response.prompt_logprobs()) add_token(token, choices_[index], columns);
      }
      if (!ask_.no_answer)
        for (const v1::TokenLogprobs& token : delta.logprobs()) add_token(token, choices_[index], columns);
      choice["logprobs"] = shown(std::move(columns));
    }
    add_end(prompt, delta, choice);
    if (ask_.no_answer) {
      choice["finish_reason"] = "length";
      if (ask_.return_token_ids) choice["token_ids"] = Json::array();
    }
    if (ask_.return_token_ids) choice["prompt_token_ids"] = prompt_ids(prompt);
    if (wants_prompt_logprobs(prompt)) choice["prompt_logprobs"] = prompt_logprobs_of(response);
    return choice;
  }

  bool add_choice(uint32_t prompt, uint32_t index, const v1::ChoiceDelta& delta, Choice& choice, std::string& chunk) override {
    const bool first = choice.tokens == delta.token_ids_size();
    const std::string text =
        absl::StrCat(ask_.echo && first ? ask_.prompt_texts[prompt] : "", ask_.no_answer ? "" : delta.text());
    absl::StrAppend(&chunk, "{\"index\":", index, ",\"text\":", dumped(text), ",\"logprobs\":");
    if (ask_.logprobs) {
      Columns columns;
      if (ask_.echo && first) {
        add_first_token(prompt, choice, columns);
        for (const v1::TokenLogprobs& token : prompt_logprobs_[prompt]) add_token(token, choice, columns);
      }
      if (!ask_.no_answer)
        for (const v1::TokenLogprobs& token : delta.logprobs()) add_token(token, choice, columns);
      chunk += dumped(shown(std::move(columns)));
    } else {
      chunk += "null";
    }
    add_end(prompt, delta, chunk);
    return true;
  }

  // They come with the first news of a prompt, and each of its choices shows them.
  void note_prompt(uint32_t prompt, const v1::GenerateResponse& news) override {
    if (ask_.echo && ask_.logprobs)
      prompt_logprobs_[prompt].insert(prompt_logprobs_[prompt].end(), news.prompt_logprobs().begin(),
                                      news.prompt_logprobs().end());
  }

  std::map<uint32_t, std::vector<v1::TokenLogprobs>> prompt_logprobs_;  // of streamed prompts
};

class ChatAnswer final : public OpenAiAnswer {
 public:
  ChatAnswer(AnswerFacts facts, Ask ask)
      : OpenAiAnswer(std::move(facts), std::move(ask), "chat.completion", "chat.completion.chunk") {}

 private:
  Json one(const v1::Logprob& p) const {
    Json out{{"token", token_text(p)}, {"logprob", shown_logprob(p)}, {"bytes", bytes_of(p, facts_.tokenizer.get())}};
    if (ask_.logprob_bits) out["logprob_bits"] = p.logprob_bits();
    return out;
  }
  Json logprobs(const v1::ChoiceDelta& delta) const {
    if (!ask_.logprobs) return nullptr;
    Json content = Json::array();
    for (const v1::TokenLogprobs& token : delta.logprobs()) {
      Json entry = one(token.chosen()), top = Json::array();
      for (const v1::Logprob& p : token.top()) top.push_back(one(p));
      entry["top_logprobs"] = std::move(top);
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }

  Json whole_choice(uint32_t prompt, const v1::ChoiceDelta& delta, const v1::GenerateResponse&) override {
    Json message{{"role", "assistant"}, {"content", delta.text()}, {"refusal", nullptr}};
    bool called = false;
    if (ask_.tools.mode != ToolUse::Mode::kNone) {
      ToolCalls calls(ask_, prompt, delta.index(), facts_.model_digest);
      const ToolCalls::News news = calls.take(delta.text(), /*last=*/true);
      called = calls.end_the_answer();
      if (!news.calls.empty()) {
        message["content"] = news.content.empty() ? Json(nullptr) : Json(news.content);
        for (const ToolCalls::Call& call : news.calls)
          message["tool_calls"].push_back(
              {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
      }
    }
    Json choice{{"index", index_of(prompt, delta)}, {"message", std::move(message)}};
    choice["logprobs"] = logprobs(delta);
    add_end(prompt, delta, choice, called);
    return choice;
  }
  void add_to_whole(const std::vector<v1::GenerateResponse>& responses, Json& answer) override {
    if (ask_.return_token_ids) answer["prompt_token_ids"] = prompt_ids(0);
    if (wants_prompt_logprobs(0)) answer["prompt_logprobs"] = prompt_logprobs_of(responses[0]);
  }
  void begin_choice(uint32_t prompt, uint32_t index, std::string& out) override {
    std::string chunk =
        absl::StrCat(chunk_head(), "{\"index\":", index,
                     ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
    if (ask_.continuous_usage) absl::StrAppend(&chunk, ",\"usage\":", dumped(usage_so_far(prompt, Choice())));
    add_event(out, chunk + "}");
  }
  bool add_choice(uint32_t prompt, uint32_t index, const v1::ChoiceDelta& delta, Choice& choice, std::string& chunk) override {
    if (ask_.tools.mode == ToolUse::Mode::kNone) {
      absl::StrAppend(&chunk, "{\"index\":", index, ",\"delta\":{\"content\":", dumped(delta.text()), "},\"logprobs\":");
      chunk += ask_.logprobs ? dumped(logprobs(delta)) : "null";
      add_end(prompt, delta, chunk);
      return true;
    }
    const auto [found, added] = calls_.try_emplace(index);
    if (added) found->second = std::make_unique<ToolCalls>(ask_, prompt, delta.index(), facts_.model_digest);
    const ToolCalls::News news = found->second->take(delta.text(), choice.finished);
    Json shown = Json::object();
    if (!news.content.empty()) shown["content"] = news.content;
    for (const ToolCalls::Call& call : news.calls) {
      Json one{{"index", call.index}};
      if (call.begins) {
        one["id"] = call.id;
        one["type"] = "function";
        one["function"]["name"] = call.name;
      }
      one["function"]["arguments"] = call.arguments;
      shown["tool_calls"].push_back(std::move(one));
    }
    const bool says = !shown.empty() || choice.finished || ask_.logprobs || ask_.return_token_ids;
    absl::StrAppend(&chunk, "{\"index\":", index, ",\"delta\":", dumped(shown), ",\"logprobs\":");
    chunk += ask_.logprobs ? dumped(logprobs(delta)) : "null";
    add_end(prompt, delta, chunk, found->second->end_the_answer());
    return says;
  }

  std::map<uint32_t, std::unique_ptr<ToolCalls>> calls_;  // of streamed choices
};

}  // namespace

std::unique_ptr<Answer> make_completion_answer(AnswerFacts facts, Ask ask) {
  return std::make_unique<CompletionAnswer>(std::move(facts), std::move(ask));
}
std::unique_ptr<Answer> make_chat_answer(AnswerFacts facts, Ask ask) {
  return std::make_unique<ChatAnswer>(std::move(facts), std::move(ask));
}

}  // namespace invar::http
