// The grammars of one model: compiled once for equal specifications, and never more of them than memory allows.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/grammar/grammar.h"

namespace invar::grammar {

// May be used by several threads.
class GrammarCache {
 public:
  static constexpr size_t kMostKept = 64;                // grammars kept though nobody uses them
  static constexpr size_t kMostBytes = size_t{1} << 30;  // of networks, used ones too

  // `end_tokens`: the model's eos ids.
  GrammarCache(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab_size, std::vector<int32_t> end_tokens);

  // Grammar::compile's errors; FailedPrecondition without a tokenizer; ResourceExhausted when the grammars in use are too many.
  absl::StatusOr<std::shared_ptr<Grammar>> get(const Specification& specification);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<Grammar> grammar;
  };
  absl::StatusOr<std::shared_ptr<const TokenTexts>> tokens();

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int64_t vocab_size_;
  const std::vector<int32_t> end_tokens_;
  std::once_flag once_;
  absl::StatusOr<std::shared_ptr<const TokenTexts>> tokens_;
  std::mutex mutex_;
  std::list<Entry> recent_;  // the latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
  std::vector<std::pair<std::weak_ptr<Grammar>, size_t>> live_;
};

}  // namespace invar::grammar
