// The BPE model: a word becomes the ids of its characters, then pairs are merged, the best-ranked pair first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/document.h"
#include "runtime/tokenizer/fields.h"
#include "runtime/tokenizer/vocabulary.h"
#include "runtime/tokenizer/word_cache.h"

namespace invar::tokenizer {

class Bpe {
 public:
  // `model` is the field "model" of `document`.
  static absl::StatusOr<Bpe> build(const Fields& model, const Document& document);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Appends the ids of one word (valid UTF-8). With `byte_level` the model sees the word's bytes in the byte alphabet.
  // O(n log n) in the word's length.
  void encode(std::string_view word, bool byte_level, std::vector<int32_t>& out) const;

  const WordCache& cache() const { return *cache_; }

 private:
  struct Merge {
    int32_t rank, id;
  };
  struct Scratch;

  void encode_spelled(std::string_view word, std::vector<int32_t>& out) const;
  void spell(std::string_view word, Scratch& scratch) const;
  void merge(Scratch& scratch) const;
  void propose(Scratch& scratch, int32_t left) const;

  static uint64_t pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::string continuing_prefix_, end_suffix_;
  int32_t unknown_ = Vocabulary::kNone;
  bool fuse_unknown_ = false, ignore_merges_ = false;
  std::vector<int32_t> byte_ids_;  // <0x00> .. <0xFF>, empty without byte_fallback
  std::unique_ptr<WordCache> cache_;
};

}  // namespace invar::tokenizer
