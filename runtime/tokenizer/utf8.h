// UTF-8 and the few Unicode classes the tokenizer needs outside of patterns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace invar::tokenizer {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// Byte offset of the first byte that is not part of a valid character (surrogates and overlong forms are invalid), or npos.
size_t first_invalid_utf8(std::string_view text);

struct CodePoint {
  char32_t value;
  int length;  // bytes
};
// The character at `at`, and the one that ends at `end`. The text must be valid and the position inside it on a boundary.
CodePoint code_point_at(std::string_view text, size_t at);
CodePoint code_point_before(std::string_view text, size_t end);
void append_code_point(std::string& text, char32_t value);
// Bytes of the character that a lead byte of valid UTF-8 begins.
inline int utf8_length(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

// Moves the decided part of `pending` to `out`: whole characters as they are, each maximal invalid sequence as one U+FFFD.
// A character that may still be completed stays in `pending`, unless `last` says that nothing follows.
void drain_lossy(std::string& pending, bool last, std::string& out);

bool is_white_space(char32_t c);  // Unicode White_Space
bool is_numeric(char32_t c);      // general category N
bool is_word(char32_t c);         // letters, marks, digits, connectors and joiners: \w of Unicode regular expressions

}  // namespace invar::tokenizer
