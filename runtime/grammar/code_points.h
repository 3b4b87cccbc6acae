// Sets of Unicode characters, and the UTF-8 bytes that spell them.
#pragma once

#include <cstdint>
#include <vector>

namespace invar::grammar {

inline constexpr char32_t kLastCodePoint = 0x10ffff;

struct CodePointRange {
  char32_t first, last;  // both inside
};

// Surrogates are no characters: they are left out whatever is added.
class CodePointSet {
 public:
  CodePointSet() = default;
  CodePointSet(std::initializer_list<CodePointRange> ranges);
  static CodePointSet all() { return {{0, kLastCodePoint}}; }

  void add(char32_t first, char32_t last);
  void add(const CodePointSet& other);
  CodePointSet complement() const;
  CodePointSet without(const CodePointSet& other) const;
  bool contains(char32_t c) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<CodePointRange>& ranges() const { return ranges_; }  // ascending, with gaps between them

 private:
  std::vector<CodePointRange> ranges_;
};

struct ByteRange {
  uint8_t low, high;
  bool operator==(const ByteRange&) const = default;
  auto operator<=>(const ByteRange&) const = default;
};
// Sequences of byte ranges whose products are exactly the UTF-8 of the set, none twice.
std::vector<std::vector<ByteRange>> utf8_sequences(const CodePointSet& set);

}  // namespace invar::grammar
