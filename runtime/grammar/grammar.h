// Structured output: which tokens may come next. A specification is compiled once and shared; a Matcher follows one answer.
//
// A mask is a function of the specification, the tokens so far and the vocabulary, and of nothing else: caches only save time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/grammar/automaton.h"
#include "runtime/grammar/network.h"
#include "runtime/grammar/token_trie.h"

namespace invar::grammar {

inline constexpr size_t kMostSpecificationBytes = size_t{1} << 20;

struct Specification {
  enum class Kind : uint8_t { kJsonSchema, kJsonObject, kRegex, kChoice, kEbnf };
  Kind kind = Kind::kJsonObject;
  std::string text;                  // kJsonSchema, kRegex, kEbnf
  std::vector<std::string> choices;  // kChoice
};

// Bit id % 8 of byte id / 8: the token may come next.
using TokenMask = std::shared_ptr<const std::vector<uint8_t>>;

class Matcher;

// May be used by several threads; one at a time gets in.
class Grammar {
 public:
  static constexpr size_t kCacheBytes = size_t{24} << 20;

  // InvalidArgument names what is wrong or not supported, and where; the caller adds the field's name. Caches are emptied when
  // they have grown by `most_cached_bytes`.
  static absl::StatusOr<std::shared_ptr<Grammar>> compile(const Specification& specification,
                                                          std::shared_ptr<const TokenTexts> tokens,
                                                          size_t most_cached_bytes = kCacheBytes);

  const TokenTexts& tokens() const { return *tokens_; }
  // Of the network; the caches come on top.
  size_t bytes() const { return network_.bytes(); }

 private:
  friend class Matcher;
  Grammar(Network network, std::shared_ptr<const TokenTexts> tokens, size_t most_cached_bytes);

  // What a frame (Automaton::Group) allows whatever is around it.
  struct Frame {
    std::vector<uint8_t> allowed;
    std::vector<int32_t> exits;  // nodes of the trie behind which what is around decides, if something is below them
    int64_t work = 0;            // that the walk cost, or at least so much
    bool complete = false;
  };
  // All under the mutex. `work` is what a mask may still cost; walks take from it, and end when it is used up.
  const Frame& frame(const Automaton::Group& group, int64_t most_work);
  bool compute(int32_t state, bool first, std::vector<uint8_t>* allowed);
  template <class Visit>
  bool walk(const TokenTrie& trie, int32_t begin, int32_t end, int32_t state, bool skip, std::vector<uint8_t>* allowed,
            int64_t* work, const Visit& visit);
  void make_room();

  const Network network_;
  const std::shared_ptr<const TokenTexts> tokens_;
  const size_t most_cached_bytes_;
  std::mutex mutex_;
  Automaton automaton_;
  std::unordered_map<int64_t, Frame> frames_;     // by state, and whether something is around it
  std::unordered_map<int64_t, TokenMask> masks_;  // by state, first, may_end; null = too complex
  size_t cached_bytes_ = 0, kept_bytes_ = 0;
  std::unordered_set<Matcher*> matchers_;
  std::vector<int32_t> by_depth_;
};

// The answer so far. Not for two threads at once.
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<Grammar> grammar);
  Matcher(const Matcher& other);
  Matcher& operator=(const Matcher& other);
  ~Matcher();

  // Takes the next token. False: the grammar does not allow it; nothing has changed. A token that ends the answer is taken if the
  // text may end, and no other after it.
  bool accept(int32_t token);
  // The text may end here; nothing may follow.
  bool may_end();
  bool must_end();
  // A token that ends it was taken.
  bool ended() const { return ended_; }
  // Tokens that may come next; with `end_tokens` those that end the answer too, where it may end. Empty masks are possible: the
  // vocabulary may have no token for what must follow. ResourceExhausted: too many ways to go on; the same whenever it is asked.
  absl::StatusOr<TokenMask> mask(bool end_tokens);

 private:
  friend class Grammar;

  std::shared_ptr<Grammar> grammar_;
  bool any_ = false, ended_ = false;
  int32_t state_ = 0;  // of the grammar's automaton, which renames it: under the mutex
};

}  // namespace invar::grammar
