#include "runtime/grammar/grammar_cache.h"

#include "runtime/model_config/message.h"

namespace invar::grammar {
namespace {

std::string key_of(const Specification& s) {
  std::string key = message(static_cast<int>(s.kind), ":", s.text);
  for (const std::string& choice : s.choices) key += message(choice.size(), ":", choice);
  return key;
}

}  // namespace

GrammarCache::GrammarCache(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab_size, std::vector<int32_t> end_tokens)
    : tokenizer_(std::move(tokenizer)),
      vocab_size_(vocab_size),
      end_tokens_(std::move(end_tokens)),
      tokens_(absl::FailedPreconditionError("needs a tokenizer and this model has none")) {}

absl::StatusOr<std::shared_ptr<const TokenTexts>> GrammarCache::tokens() {
  std::call_once(once_, [&] {
    if (tokenizer_) tokens_ = TokenTexts::of(*tokenizer_, vocab_size_, end_tokens_);
  });
  return tokens_;
}

absl::StatusOr<std::shared_ptr<Grammar>> GrammarCache::get(const Specification& specification) {
  absl::StatusOr<std::shared_ptr<const TokenTexts>> texts = tokens();
  if (!texts.ok()) return texts.status();
  std::string key = key_of(specification);
  {
    std::lock_guard lock(mutex_);
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return recent_.front().grammar;
    }
  }
  absl::StatusOr<std::shared_ptr<Grammar>> made = Grammar::compile(specification, *texts);  // outside: it may take milliseconds
  if (!made.ok()) return made.status();
  std::vector<std::shared_ptr<Grammar>> dropped;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) return found->second->grammar;
  size_t bytes = (*made)->bytes();
  std::erase_if(live_, [](const auto& entry) { return entry.first.expired(); });
  for (const auto& [grammar, size] : live_) bytes += size;
  while (!recent_.empty() && (bytes > kMostBytes || recent_.size() >= kMostKept)) {
    if (recent_.back().grammar.use_count() == 1) bytes -= recent_.back().grammar->bytes();
    by_key_.erase(recent_.back().key);
    dropped.push_back(std::move(recent_.back().grammar));
    recent_.pop_back();
  }
  if (bytes > kMostBytes)
    return absl::ResourceExhaustedError(message("the constraints of the requests at hand take more than ", kMostBytes, " bytes"));
  live_.emplace_back(*made, (*made)->bytes());
  recent_.push_front({key, *made});
  by_key_.emplace(std::move(key), recent_.begin());
  return made;
}

}  // namespace invar::grammar
