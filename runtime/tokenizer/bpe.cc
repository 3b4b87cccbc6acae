#include "runtime/tokenizer/bpe.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr int32_t kGone = -1;
constexpr size_t kScratchKept = 1 << 16;  // symbols; a longer word's memory is returned

}  // namespace

struct Bpe::Scratch {
  struct Symbol {
    int32_t id;  // kGone: merged into the one before
    int32_t previous, next;
  };
  struct Candidate {
    int32_t rank, left, id;                         // the pair at `left` would become `id`
    bool operator<(const Candidate& other) const {  // std heaps keep the largest on top: the largest is the best merge
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::string spelled, piece;

  void add(int32_t id) {
    const auto at = static_cast<int32_t>(symbols.size());
    if (at > 0) symbols.back().next = at;
    symbols.push_back({id, at - 1, -1});
  }
};

absl::StatusOr<Bpe> Bpe::build(const Fields& model, const Document& document) {
  Bpe bpe;
  if (!model.value().is_object()) model.fail("", "is not an object");
  // Old files have no type; then the merges tell.
  if (model.ok() && model.text("type", document.has_merges ? "BPE" : "unnamed") != "BPE") model.unsupported("type");
  if (!model.ok()) return model.error();
  model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
              "ignore_merges", "vocab", "merges"});
  if (!document.has_vocabulary) model.fail("vocab", "is missing or not an object");
  if (!document.has_merges) model.fail("merges", "is missing or not a list");
  // Dropout makes the ids random; a runtime whose outputs are to repeat cannot serve it.
  if (model.present("dropout") && !(model.value()["dropout"].is_number() && model.value()["dropout"].get<double>() == 0))
    model.unsupported("dropout");
  bpe.continuing_prefix_ = model.text("continuing_subword_prefix", "");
  bpe.end_suffix_ = model.text("end_of_word_suffix", "");
  bpe.fuse_unknown_ = model.flag("fuse_unk", false);
  bpe.ignore_merges_ = model.flag("ignore_merges", false);
  const bool byte_fallback = model.flag("byte_fallback", false);
  const std::string unknown = model.text("unk_token", "");
  if (!model.ok()) return model.error();

  auto vocabulary = Vocabulary::build(document);
  if (!vocabulary.ok()) return vocabulary.status();
  bpe.vocabulary_ = *std::move(vocabulary);
  if (model.present("unk_token")) {
    bpe.unknown_ = bpe.vocabulary_.find(unknown);
    if (bpe.unknown_ == Vocabulary::kNone) model.fail("unk_token", concat("'", unknown.substr(0, 80), "' is not in model.vocab"));
  }
  for (int byte = 0; byte_fallback && byte < 256; ++byte)
    bpe.byte_ids_.push_back(bpe.vocabulary_.find(absl::StrFormat("<0x%02X>", byte)));

  bpe.merges_.reserve(document.merges.size());
  std::string merged;
  for (size_t rank = 0; rank < document.merges.size(); ++rank) {
    const auto& merge = document.merges[rank];
    const std::string_view left = document.text(merge.begin, merge.left),
                           right = document.text(merge.begin + merge.left, merge.right);
    // A continuing token begins with the prefix, which is written once in the merged token.
    if (right.size() < bpe.continuing_prefix_.size()) {
      model.fail(concat("merges[", rank, "]"), concat("'", right, "' is shorter than continuing_subword_prefix"));
      break;
    }
    merged.assign(left);
    merged.append(right.substr(bpe.continuing_prefix_.size()));
    int32_t ids[3];
    const std::string_view texts[3] = {left, right, merged};
    for (int i = 0; i < 3; ++i) {
      ids[i] = bpe.vocabulary_.find(texts[i]);
      if (ids[i] == Vocabulary::kNone) {
        model.fail(concat("merges[", rank, "]"), concat("'", texts[i].substr(0, 80), "' is not in model.vocab"));
      }
    }
    if (!model.ok()) break;
    bpe.merges_.insert_or_assign(pair(ids[0], ids[1]),
                                 Merge{static_cast<int32_t>(rank), ids[2]});  // as Hugging Face: the later wins
  }
  if (!model.ok()) return model.error();
  bpe.cache_ = std::make_unique<WordCache>();
  return bpe;
}

void Bpe::encode(std::string_view word, bool byte_level, std::vector<int32_t>& out) const {
  if (cache_->find(word, out)) return;
  const size_t before = out.size();
  if (byte_level) {
    thread_local std::string spelled;
    spelled.clear();
    append_byte_characters(word, spelled);
    encode_spelled(spelled, out);
    if (spelled.capacity() > kScratchKept) std::string().swap(spelled);
  } else {
    encode_spelled(word, out);
  }
  cache_->put(word, out.data() + before, out.size() - before);
}

void Bpe::encode_spelled(std::string_view word, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    if (const int32_t id = vocabulary_.find(word); id != Vocabulary::kNone) {
      out.push_back(id);
      return;
    }
  }
  thread_local Scratch scratch;
  scratch.symbols.clear();
  scratch.heap.clear();
  spell(word, scratch);
  merge(scratch);
  for (const auto& symbol : scratch.symbols) {
    if (symbol.id != kGone) out.push_back(symbol.id);
  }
  if (scratch.symbols.capacity() > kScratchKept) scratch = Scratch();
}

// The ids of the single characters, the way Hugging Face finds them (order and fusing of unknowns included).
void Bpe::spell(std::string_view word, Scratch& scratch) const {
  bool unknown_waits = false;
  const auto put_unknown = [&] {
    if (unknown_waits) scratch.add(unknown_);
    unknown_waits = false;
  };
  for (size_t at = 0, next; at < word.size(); at = next) {
    next = at + utf8_length(static_cast<unsigned char>(word[at]));
    std::string_view character = word.substr(at, next - at);
    const bool prefixed = at > 0 && !continuing_prefix_.empty(), suffixed = next == word.size() && !end_suffix_.empty();
    if (prefixed || suffixed) {
      scratch.piece.assign(prefixed ? continuing_prefix_ : "").append(character).append(suffixed ? end_suffix_ : "");
      character = scratch.piece;
    }
    if (const int32_t id = vocabulary_.find(character); id != Vocabulary::kNone) {
      put_unknown();
      scratch.add(id);
      continue;
    }
    const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (!byte_ids_.empty() &&
        std::all_of(character.begin(), character.end(), [&](char b) { return byte_id(b) != Vocabulary::kNone; })) {
      for (const char byte : character) scratch.add(byte_id(byte));
      continue;
    }
    if (unknown_ == Vocabulary::kNone) continue;  // without unk_token such characters give no id
    if (!fuse_unknown_) put_unknown();
    unknown_waits = true;
  }
  put_unknown();
}

void Bpe::propose(Scratch& scratch, int32_t left) const {
  const auto& symbol = scratch.symbols[left];
  if (symbol.next < 0) return;
  const auto found = merges_.find(pair(symbol.id, scratch.symbols[symbol.next].id));
  if (found == merges_.end()) return;
  scratch.heap.push_back({found->second.rank, left, found->second.id});
  std::push_heap(scratch.heap.begin(), scratch.heap.end());
}

void Bpe::merge(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  for (size_t i = 0; i + 1 < symbols.size(); ++i) propose(scratch, static_cast<int32_t>(i));
  while (!scratch.heap.empty()) {
    std::pop_heap(scratch.heap.begin(), scratch.heap.end());
    const Scratch::Candidate best = scratch.heap.back();
    scratch.heap.pop_back();
    auto& left = symbols[best.left];
    if (left.id == kGone || left.next < 0) continue;
    auto& right = symbols[left.next];
    // The pair may have changed since it was proposed. What counts is what it would become now, not its rank: that is how
    // Hugging Face decides, and where two pairs make the same token the result depends on it.
    const auto now = merges_.find(pair(left.id, right.id));
    if (now == merges_.end() || now->second.id != best.id) continue;
    left.id = best.id;
    right.id = kGone;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    if (left.previous >= 0) propose(scratch, left.previous);
    propose(scratch, best.left);
  }
}

}  // namespace invar::tokenizer
