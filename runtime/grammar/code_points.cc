#include "runtime/grammar/code_points.h"

#include <algorithm>

#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

constexpr CodePointRange kSurrogates = {0xd800, 0xdfff};

// `first` and `last` have the same number of bytes. Splits until every byte but the first ones that differ runs over all
// continuation bytes.
void split(char32_t first, char32_t last, std::vector<std::vector<ByteRange>>* out) {
  std::string low, high;
  tokenizer::append_code_point(low, first);
  tokenizer::append_code_point(high, last);
  const size_t length = low.size();
  for (size_t i = 1; i < length; ++i) {
    const char32_t mask = (char32_t{1} << 6 * i) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if (first & mask) {
      split(first, first | mask, out);
      return split((first | mask) + 1, last, out);
    }
    if ((last & mask) != mask) {
      split(first, (last & ~mask) - 1, out);
      return split(last & ~mask, last, out);
    }
  }
  std::vector<ByteRange> sequence;
  for (size_t i = 0; i < length; ++i) sequence.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  out->push_back(std::move(sequence));
}

}  // namespace

CodePointSet::CodePointSet(std::initializer_list<CodePointRange> ranges) {
  for (const CodePointRange& r : ranges) add(r.first, r.last);
}

void CodePointSet::add(char32_t first, char32_t last) {
  last = std::min(last, kLastCodePoint);
  if (first > last) return;
  if (first <= kSurrogates.last && last >= kSurrogates.first) {
    if (first < kSurrogates.first) add(first, kSurrogates.first - 1);
    if (last > kSurrogates.last) add(kSurrogates.last + 1, last);
    return;
  }
  std::vector<CodePointRange> merged;
  for (const CodePointRange& r : ranges_) {
    if (r.last + 1 < first || r.first > last + 1) {
      merged.push_back(r);
      continue;
    }
    first = std::min(first, r.first);
    last = std::max(last, r.last);
  }
  merged.push_back({first, last});
  std::sort(merged.begin(), merged.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  ranges_ = std::move(merged);
}

void CodePointSet::add(const CodePointSet& other) {
  for (const CodePointRange& r : other.ranges_) add(r.first, r.last);
}

CodePointSet CodePointSet::complement() const {
  CodePointSet out;
  char32_t next = 0;
  for (const CodePointRange& r : ranges_) {
    if (r.first > next) out.add(next, r.first - 1);
    next = r.last + 1;
  }
  out.add(next, kLastCodePoint);
  return out;
}

CodePointSet CodePointSet::without(const CodePointSet& other) const {
  CodePointSet gone = complement();
  gone.add(other);
  return gone.complement();
}

bool CodePointSet::contains(char32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [c](const auto& r) { return r.first <= c && c <= r.last; });
}

std::vector<std::vector<ByteRange>> utf8_sequences(const CodePointSet& set) {
  std::vector<std::vector<ByteRange>> out;
  for (const CodePointRange& r : set.ranges()) {
    char32_t first = r.first;
    for (const char32_t last_of_length : {char32_t{0x7f}, char32_t{0x7ff}, char32_t{0xffff}, kLastCodePoint}) {
      if (first > last_of_length || first > r.last) continue;
      split(first, std::min(r.last, last_of_length), &out);
      first = last_of_length + 1;
    }
  }
  return out;
}

}  // namespace invar::grammar
